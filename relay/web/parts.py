"""The parts of a running relay that pages use. `relay.app` makes them once."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.alerts.sources import Sources
from relay.api.monitor import Monitor
from relay.api.reading import Parts as Measured
from relay.config import Settings
from relay.gateway.catalog import Catalog
from relay.gateway.watch import Watch
from relay.net.deadlines import Deadlines
from relay.pool.affinity import Bindings
from relay.pool.leases import Upstreams
from relay.quota.ledger import Ledger
from relay.store.audit import Actor
from relay.store.database import Database
from relay.store.scheduled_backup import Backups


class Changes(Protocol):
    """What a reload changes, one line for each setting."""

    @property
    def changed(self) -> Sequence[str]: ...

    @property
    def restart(self) -> Sequence[str]:
        """Those that are in force only after a restart."""
        ...


class Reloading(Protocol):
    """Reads relay.toml again. Both raise ConfigError: it cannot be used, nothing has changed."""

    @property
    def path(self) -> str: ...

    async def reload(self, actor: Actor) -> Changes: ...

    async def compare(self, text: str | None = None) -> Changes:
        """What a reload would change, now or with another text in the file."""
        ...

    def words(self, error: Exception) -> str:
        """An error as one line."""
        ...


@dataclass(frozen=True, slots=True)
class Operations:
    """What administrators see and change. `reloading` is None where no file was read."""

    monitor: Monitor
    measured: Measured
    upstreams: Upstreams
    bindings: Bindings
    deadlines: Deadlines
    watch: Watch
    sources: Sources
    backups: Backups
    reloading: Reloading | None


@dataclass(frozen=True, slots=True)
class Parts:
    """`settings`, `catalog` and `operations` return those of now; `apply_keys` puts changed keys
    into force."""

    database: Database
    ledger: Ledger
    settings: Callable[[], Settings]
    catalog: Callable[[], Catalog]
    operations: Callable[[], Operations]
    apply_keys: Callable[[], Awaitable[None]]

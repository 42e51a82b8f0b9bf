"""The parts of a running relay that pages use. `relay.app` makes it once."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from relay.config import Settings
from relay.gateway.catalog import Catalog
from relay.quota.ledger import Ledger
from relay.store.database import Database


@dataclass(frozen=True, slots=True)
class Parts:
    """`settings` and `catalog` return those of now; `apply_keys` puts changed keys into force."""

    database: Database
    ledger: Ledger
    settings: Callable[[], Settings]
    catalog: Callable[[], Catalog]
    apply_keys: Callable[[], Awaitable[None]]

"""Puts the workers of a relay together: how they begin, and everything that they share.

Decides which features span processes. Must not know how any of them works.
"""

from collections.abc import Callable

import msgspec

from relay import config
from relay.app import App
from relay.reload import LogFormat
from relay.store.responses import MemoryResponseStore
from relay.workers.certificates import share_certificates_as_owner
from relay.workers.figures import share_figures_as_owner
from relay.workers.inner_server import serve_forwarded_as_owner
from relay.workers.link import Link
from relay.workers.nursery import Nursery
from relay.workers.owner import Workers
from relay.workers.pool_sharing import share_pool_as_owner
from relay.workers.refreshing import share_changes_as_owner
from relay.workers.remote_responses import share_responses_as_owner
from relay.workers.title import OWNER, set_title
from relay.workers.worker import Beginning, run


class WorkerPlan:
    """What is known before the loop runs: the process that forks, and the text of relay.toml."""

    def __init__(self, nursery: Nursery, beginning: Beginning) -> None:
        """Use `fork`."""
        self._nursery = nursery
        self._beginning = beginning

    @classmethod
    def fork(cls, path: str, log_format: LogFormat | None) -> "WorkerPlan":
        """Start the process that forks workers. Only while there is a single thread.

        Raises:
            ConfigError: relay.toml, at `path`, cannot be read.
            OSError: no process can be started.
        """
        text = config.read_text(path)
        nursery = Nursery.fork(run)
        set_title(OWNER)
        return cls(nursery, Beginning(path, text, text, log_format))

    async def workers(self, app: App) -> Workers:
        """The workers of a relay, which `start` starts. Raises OSError: they cannot reach it."""
        workers = Workers(app, self._nursery, lambda: msgspec.to_builtins(self._beginning))
        share_figures_as_owner(app, workers)
        share_certificates_as_owner(app, workers)
        share_pool_as_owner(app, workers)
        share_changes_as_owner(app, workers)
        workers.on_joined.append(self._catch_up)
        inner = await serve_forwarded_as_owner(app, workers)
        workers.on_ended.append(inner.close)
        if isinstance(app.responses, MemoryResponseStore):
            share_responses_as_owner(app.responses, inner)
        return workers

    def _catch_up(self, link: Link) -> None:
        """Send a new worker what may have come since it began."""
        if self._beginning.latest != self._beginning.text:
            link.send("reload", self._beginning.latest)
        link.send("reopen")

    def reloads(self, workers: Workers) -> Callable[[str], None]:
        """Called with the text of relay.toml once the owner uses it."""

        def reloaded(text: str) -> None:
            self._beginning.latest = text
            workers.broadcast("reload", text)

        return reloaded

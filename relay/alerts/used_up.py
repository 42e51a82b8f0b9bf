"""Writes an event when a person has used up a window: once for each window.

Decides what is the same window. Runs beside the request that was refused. Must not know receivers.
"""

import asyncio
import logging
import time
from typing import Final

from relay.gateway.context import RequestContext
from relay.quota.exceeded import USED_UP, QuotaExceeded
from relay.store import events
from relay.store.database import Database, StoreError
from relay.store.events import Event

_log = logging.getLogger("relay.alerts")

_MAX_KNOWN: Final = 4096
_MAX_WRITING: Final = 64  # at once; the next refusal of the window writes it


class WindowsUsedUp:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: set[str] = set()
        self._writing: set[asyncio.Task[None]] = set()

    def note(self, ctx: RequestContext, error: QuotaExceeded) -> None:
        """A request was refused: write an event if it is the first of its window."""
        caller, limit = ctx.caller, error.limit
        if error.kind is not USED_UP or caller is None or limit is None:
            return
        once = f"{caller.user_id}/{limit.kind}/{limit.per}/{error.resets_at}"
        if once in self._known or len(self._writing) >= _MAX_WRITING:
            return
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known.add(once)
        event = Event("window", caller.email, error.message, once)
        task = asyncio.get_running_loop().create_task(self._write(event))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, event: Event) -> None:
        try:
            await events.write(self._database, time.time(), event)
        except StoreError as error:
            self._known.discard(event.once)
            _log.warning("an event is not written: %s", error)

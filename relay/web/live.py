"""Tells open pages that their account has new requests, so that they show them without a reload.

One look at the database a second for all pages, while there are any. A page gets a thin event and
asks for the parts that it shows. Decides how many pages one account may keep open this way. Must
not know pages.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Final

from relay.store import request_log
from relay.store.database import Database, StoreError

MAX_STREAMS: Final = 256
MAX_STREAMS_OF_ACCOUNT: Final = 6
_LOOK_SECONDS: Final = 1.0
_STEP_PAUSE_SECONDS: Final = 0.02  # the journal writes meanwhile
HEARTBEAT_SECONDS: Final = 15.0

_log = logging.getLogger("relay.web")


class Live:
    """The open streams, by account."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._streams: dict[str, set[asyncio.Event]] = {}
        self._count = 0
        self._task: asyncio.Task[None] | None = None
        self._indexing: asyncio.Task[None] | None = None
        self.closing = False

    def has_room(self, user_id: str) -> bool:
        """Whether an account may open one more stream."""
        own = self._streams.get(user_id, ())
        return not self.closing and self._count < MAX_STREAMS and len(own) < MAX_STREAMS_OF_ACCOUNT

    async def events(self, user_id: str, since: int | None = None) -> AsyncGenerator[bool, None]:
        """True for each time that there are new requests, False for each quiet while; ends when the
        relay stops. `since`: the last row when the page was made; what came after it is new."""
        event = asyncio.Event()
        self._streams.setdefault(user_id, set()).add(event)
        self._count += 1
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look())
        try:
            if since is not None and await request_log.has_after(self._database, user_id, since):
                event.set()
            while not self.closing:
                try:
                    await asyncio.wait_for(event.wait(), HEARTBEAT_SECONDS)
                except TimeoutError:
                    yield False
                    continue
                event.clear()
                if not self.closing:
                    yield True
        finally:
            self._count -= 1
            own = self._streams[user_id]
            own.discard(event)
            if not own:
                del self._streams[user_id]

    def close(self) -> None:
        """End all streams."""
        self.closing = True
        for events in self._streams.values():
            for event in events:
                event.set()

    def index(self) -> None:
        """Bring the index of people's own requests up to date, in small steps beside the rest."""
        if self._indexing is None or self._indexing.done():
            self._indexing = asyncio.get_running_loop().create_task(self._index())

    async def _index(self) -> None:
        try:
            has_more = True
            while has_more and not self.closing:
                has_more = await request_log.advance(self._database)
                await asyncio.sleep(_STEP_PAUSE_SECONDS)
        except StoreError as error:
            _log.warning("people's requests are not indexed for now: %s", error)

    async def _look(self) -> None:
        """Notice new requests, until nobody looks any more."""
        seen = -1
        while self._streams and not self.closing:
            try:
                seen, accounts = await request_log.newest(self._database, seen)
                for account in accounts:
                    for event in self._streams.get(account, ()):
                        event.set()
                self.index()
            except StoreError as error:
                _log.warning("open pages do not see new requests for now: %s", error)
            await asyncio.sleep(_LOOK_SECONDS)

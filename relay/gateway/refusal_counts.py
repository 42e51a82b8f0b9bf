"""Counts the requests of known keys that are refused before their admission.

They have no row in the log of requests, since a refusal has to stay cheap. Counts are kept by
minute, key and reason, and written together. Decides how many are kept between two writes. Must not
know pages.
"""

import asyncio
import logging
import time
from typing import Final

from relay.errors import RelayError
from relay.gateway.context import RequestContext
from relay.quota.exceeded import QuotaExceeded
from relay.store.database import Database, StoreError
from relay.store.refusals import Refusals, add_refusals

_log = logging.getLogger("relay.gateway")

_WRITE_AFTER_SECONDS: Final = 2.0
_MAX_COUNTS: Final = 2_000  # refusals of further keys or reasons are not counted
_MAX_OF_KEY: Final = 16  # of one key, so that none takes the place of others
_MAX_WORDS: Final = 300


class RefusalCounts:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: dict[tuple[str, int, str], Refusals] = {}
        self._of_key: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def note(self, ctx: RequestContext, error: RelayError, words: str) -> None:
        """Count a refusal, if its key is known. `words` are those of the answer."""
        caller = ctx.caller
        if caller is None:
            return
        key_id, minute, reason = caller.key_id, int(time.time()) // 60 * 60, _reason(error)
        counted = self._counts.get((key_id, minute, reason))
        if counted is None:
            of_key = self._of_key.get(key_id, 0)
            if len(self._counts) >= _MAX_COUNTS or of_key >= _MAX_OF_KEY:
                return
            self._of_key[key_id] = of_key + 1
            counted = Refusals(caller.user_id, minute, key_id, reason, 0, 0, "", "", "")
            self._counts[key_id, minute, reason] = counted
        counted.number += 1
        counted.status = ctx.exchange.status
        counted.model, counted.words, counted.last_id = ctx.model, words[:_MAX_WORDS], ctx.id
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_WRITE_AFTER_SECONDS, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self._writing is None:  # else the next refusal sets the timer again
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        counts = list(self._counts.values())
        self._counts, self._of_key = {}, {}
        try:
            await add_refusals(self._database, counts)
        except StoreError as error:
            _log.warning("%d counts of refused requests are lost: %s", len(counts), error)
        finally:
            self._writing = None


def _reason(error: RelayError) -> str:
    """The reason that refusals are counted by: the limit, or the error's code."""
    if isinstance(error, QuotaExceeded) and error.limit is not None:
        return f"{error.limit.kind}/{error.limit.per}"
    return error.kind.code or error.kind.messages_type

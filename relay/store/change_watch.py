"""Notices changes to users, keys, credits and limits, whichever process makes them.

Reads the revision number at a fixed interval (a few microseconds). Must not know what is read once
it has changed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from relay.store.database import Database, StoreError
from relay.store.keys import revision

_log = logging.getLogger(__name__)


async def watch(
    database: Database, interval: float, on_change: Callable[[], Awaitable[None]]
) -> None:
    """Call `on_change` now, and after each change, until cancelled.

    The first call closes the gap between the listener's own reading and the start of the watch.
    While the database or the listener fails, the last keys stay in force and the watch goes on.
    `interval` is in seconds.
    """
    seen: int | None = None
    failing = False
    while True:
        try:
            # Read before the call, so that a change in between is noticed by the next look.
            number = await revision(database)
            if number != seen:
                await on_change()
                seen = number
        except StoreError as error:
            if not failing:
                _log.warning("changes to keys are not seen for now: %s", error)
            failing = True
        except Exception:  # must not end the watch: revoked keys would go on working
            _log.exception("changes to keys are not seen for now")
            failing = True
        else:
            if failing:
                _log.warning("changes to keys are seen again")
            failing = False
        await asyncio.sleep(interval)

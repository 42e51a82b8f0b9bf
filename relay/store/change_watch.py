"""Tells a running server which keys are live, as soon as somebody changed them.

Asks for the number of the last change at a fixed pace (a few microseconds) and reads the
keys only when that moved. What to do with them is the listener's business.
"""

import asyncio
import logging
from collections.abc import Callable

from relay.store.database import Database, StoreError
from relay.store.keys import LiveKey, live_keys, revision

_log = logging.getLogger(__name__)


async def watch(
    database: Database, interval: float, on_change: Callable[[list[LiveKey]], None]
) -> None:
    """Call `on_change` with the live keys now, and after each change; until cancelled.

    The first call closes the gap between the listener's own reading and the start of
    the watch. A database that fails for a while is asked again at the same pace, and
    what was last told stays in force meanwhile.
    """
    told: int | None = None
    failing = False
    while True:
        try:
            number = await revision(database)  # before the keys: a change in between is seen next
            if number != told:
                on_change(await live_keys(database))
                told = number
        except StoreError as error:
            if not failing:
                _log.warning("changes to keys are not seen for now: %s", error)
            failing = True
        except Exception:  # nothing may end the watch: revoked keys would go on working
            _log.exception("changes to keys are not seen for now")
            failing = True
        else:
            if failing:
                _log.warning("changes to keys are seen again")
            failing = False
        await asyncio.sleep(interval)

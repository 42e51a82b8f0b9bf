"""Changes by administrators, each with its entry in the audit log.

A change of the database is written by `acting`, whose entry is in the same transaction; any other
change is noted here. Must not know topics.
"""

import logging
from typing import Any

from relay.store.database import Database
from relay.web.visit import Visit

State = dict[str, Any]
_log = logging.getLogger("relay.web")


def acting(visit: Visit) -> Database:
    """The database, for changes by the administrator who asks."""
    return visit.database


async def note(
    visit: Visit, action: str, subject: str, before: State | None, after: State | None
) -> None:
    """Enter a change that is not in the database."""
    _log.warning("admin %s: %s %s: %s → %s", visit.user.id, action, subject, before, after)

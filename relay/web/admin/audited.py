"""Changes by administrators, each with its entry in the audit log.

A change of the database is written by `acting`, whose entry is in the same transaction; any other
change is noted here. Must not know topics.
"""

from relay.store import audit
from relay.store.audit import Actor, Change
from relay.store.database import Database
from relay.web.visit import Visit


def actor_of(visit: Visit) -> Actor:
    """Who makes a change: who is logged in, also while they are logged in as somebody else."""
    user = visit.administrator or visit.user
    return Actor(user.id, visit.address)


def acting(visit: Visit) -> Database:
    """The database, for changes by the administrator who asks."""
    return visit.parts.database.by(actor_of(visit))


async def note(
    visit: Visit,
    action: str,
    subject: str,
    before: audit.State | None = None,
    after: audit.State | None = None,
) -> None:
    """Enter a change that is not in the database."""
    await audit.note(acting(visit), visit.now, Change(action, subject, before, after))

"""Changes by administrators that are not in the database, each with its entry in the audit log.

A change of the database is made by `Visit.acting`, whose entry is in the same transaction. Must not
know topics.
"""

from relay.store import audit
from relay.store.audit import Change
from relay.web.visit import Visit


async def note(
    visit: Visit,
    action: str,
    subject: str,
    before: audit.State | None = None,
    after: audit.State | None = None,
) -> None:
    """Enter a change."""
    await audit.note(visit.acting, visit.now, Change(action, subject, before, after))

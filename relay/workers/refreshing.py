"""A change that the owner's endpoints make is in force in every process before its answer goes out.

Every process looks for changes four times a second. That is too late for a caller who makes a key
and uses it at once. Must not know what changes.
"""

import asyncio
from typing import Final

from relay.app import App
from relay.workers.link import Link
from relay.workers.owner import Workers

_REFRESH: Final = "refresh"
_MAX_SECONDS: Final = 1.0  # for a worker that is busy; it sees the change by itself


def share_changes_as_owner(app: App, workers: Workers) -> None:
    """Let `app.refresh` put changes into force in workers, too."""
    refresh = app.refresh

    async def refresh_all() -> None:
        await refresh()
        asked = [asyncio.ensure_future(link.ask(_REFRESH)) for link in workers.links]
        if not asked:
            return
        try:
            await asyncio.wait(asked, timeout=_MAX_SECONDS)
        finally:
            for question in asked:
                if not question.cancel():
                    question.exception()  # a worker that ends: it matters to nobody here

    app.refresh = refresh_all


def share_changes_as_worker(app: App, link: Link) -> None:
    """Put changes into force when the owner says so."""
    link.answer(_REFRESH, app.refresh)

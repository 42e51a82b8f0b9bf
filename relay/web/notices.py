"""The announcements above every page, as they are now.

Kept for a few seconds, since every page shows them. Must not know who writes them.
"""

import logging
from dataclasses import dataclass
from typing import Final

from relay.store.announcements import Announcement, list_all
from relay.store.database import Database, StoreError

_KEPT_SECONDS: Final = 5.0

_log = logging.getLogger("relay.web")


@dataclass(frozen=True, slots=True)
class Notice:
    """One announcement, in a reader's language."""

    kind: str
    text: str


class Notices:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: list[Announcement] = []
        self._read_at = float("-inf")

    async def refresh(self, now: float, *, always: bool = False) -> None:
        """Read them anew, if that was long ago. An error keeps those that are known."""
        if not always and 0 <= now - self._read_at < _KEPT_SECONDS:
            return
        self._read_at = now
        try:
            self._known = await list_all(self._database)
        except StoreError as error:
            _log.warning("announcements are not read anew: %s", error)

    def shown(self, now: float, language: str) -> list[Notice]:
        """Those of a moment, maintenance first."""
        found = [
            Notice(one.kind, (one.text_zh if language == "zh" else "") or one.text)
            for one in self._known
            if one.is_shown(now)
        ]
        return sorted(found, key=lambda one: one.kind != "maintenance")

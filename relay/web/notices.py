"""The announcements above every page, as they are now.

Kept for a few seconds, since every page shows them. Must not know who writes them.
"""

import logging
from dataclasses import dataclass
from typing import Final

from relay.store.announcements import Announcement, by_gravity, list_all
from relay.store.database import Database, StoreError

_KEPT_SECONDS: Final = 5.0

_log = logging.getLogger("relay.web")


@dataclass(frozen=True, slots=True)
class Notice:
    """One announcement, in a reader's language."""

    kind: str
    title: str
    text: str
    starts_at: float
    over_at: float | None  # None: it goes on


def in_language(one: Announcement, language: str) -> Notice:
    """An announcement as readers of a language see it."""
    is_chinese = language == "zh"
    return Notice(
        one.kind,
        (one.title_zh if is_chinese else "") or one.title,
        (one.text_zh if is_chinese else "") or one.text,
        one.starts_at,
        one.over_at,
    )


class Notices:
    """See the module. `version` changes with them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: list[Announcement] = []
        self._read_at = float("-inf")
        self.version = 0

    async def refresh(self, now: float, *, always: bool = False) -> None:
        """Read them anew, if that was long ago. An error keeps those that are known."""
        if not always and 0 <= now - self._read_at < _KEPT_SECONDS:
            return
        self._read_at = now
        try:
            found = await list_all(self._database)
        except StoreError as error:
            _log.warning("announcements are not read anew: %s", error)
            return
        if found != self._known:
            self._known = found
            self.version += 1

    def shown(self, now: float, language: str) -> list[Notice]:
        """Those of a moment, the gravest first."""
        found = by_gravity(one for one in self._known if one.is_shown(now))
        return [in_language(one, language) for one in found]

    def events(self, since: float, language: str) -> list[Notice]:
        """Incidents and maintenance that were not over then, the newest first."""
        found = [
            one
            for one in self._known
            if one.kind != "notice" and (one.over_at is None or one.over_at >= since)
        ]
        found.sort(key=lambda one: -one.starts_at)
        return [in_language(one, language) for one in found]

"""Announcements: which texts and times are allowed. Must not know SQL, or how they are shown."""

from typing import Final

from relay.accounts import AccountError, InvalidError
from relay.store import announcements as stored
from relay.store.announcements import Announcement
from relay.store.database import Database

_MAX_LENGTH: Final = 2_000


async def add(database: Database, new: Announcement) -> Announcement:
    """Add an announcement. Raises InvalidError: a text or times that are not allowed."""
    for text in (new.text, new.text_zh):
        if len(text) > _MAX_LENGTH or not text.replace("\n", "").isprintable():
            raise InvalidError(f"an announcement has up to {_MAX_LENGTH:,} printable characters")
    if not new.text.strip():
        raise InvalidError("an announcement needs a text")
    if new.ends_at is not None and new.ends_at <= new.starts_at:
        raise InvalidError("an announcement ends after it starts")
    return await stored.add(database, new)


async def remove(database: Database, announcement_id: str, now: float) -> None:
    """Remove an announcement. Raises AccountError: there is none."""
    if not await stored.remove(database, announcement_id, now):
        raise AccountError(
            f"no announcement has the id {announcement_id!r}; `relay announce list` shows them"
        )

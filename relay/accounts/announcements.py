"""Announcements: which texts and times are allowed. Must not know SQL, or how they are shown."""

from typing import Final

from relay.accounts import AccountError, InvalidError
from relay.store import announcements as stored
from relay.store.announcements import Announcement
from relay.store.database import Database

_MAX_LENGTH: Final = 2_000
_MAX_TITLE: Final = 120


async def add(database: Database, new: Announcement) -> Announcement:
    """Add an announcement. Raises InvalidError: a text or times that are not allowed."""
    for text in (new.text, new.text_zh):
        if len(text) > _MAX_LENGTH:
            raise InvalidError(f"an announcement has up to {_MAX_LENGTH:,} characters", "long")
        if not text.replace("\n", "").replace("\r", "").isprintable():
            raise InvalidError("an announcement has printable characters alone", "unprintable")
    for title in (new.title, new.title_zh):
        if not title.isprintable():
            raise InvalidError(
                "an announcement's title has printable characters alone", "unprintable"
            )
        if len(title) > _MAX_TITLE:
            raise InvalidError(
                f"an announcement's title has up to {_MAX_TITLE} characters", "long_title"
            )
    if not new.text.strip():
        raise InvalidError("an announcement needs a text", "no_text")
    if new.kind == "incident" and not new.title.strip():
        raise InvalidError("an announcement of an incident needs a title", "no_title")
    if new.ends_at is not None and new.ends_at <= new.starts_at:
        raise InvalidError("an announcement ends after it starts", "ends")
    return await stored.add(database, new)


async def resolve(database: Database, announcement_id: str, now: float) -> None:
    """Note that it is over. Raises AccountError: there is none, or it was over."""
    if not await stored.resolve(database, announcement_id, now):
        raise AccountError(
            f"no open announcement has the id {announcement_id!r}; `relay announce list` shows them"
        )


async def remove(database: Database, announcement_id: str, now: float) -> None:
    """Remove an announcement. Raises AccountError: there is none."""
    if not await stored.remove(database, announcement_id, now):
        raise AccountError(
            f"no announcement has the id {announcement_id!r}; `relay announce list` shows them"
        )

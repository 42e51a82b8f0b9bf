import pytest

from relay.accounts import AccountError, InvalidError
from relay.accounts import announcements as rules
from relay.store import announcements, audit
from relay.store.announcements import Announcement
from relay.store.database import Database


def notice(text: str = "Hello", **changes: object) -> Announcement:
    values: dict[str, object] = {
        "id": "", "kind": "notice", "text": text, "text_zh": "你好", "starts_at": 10.0,
        "ends_at": 20.0, "created_at": 5.0, **changes,
    }  # fmt: skip
    return Announcement(**values)  # type: ignore[arg-type]


async def test_an_announcement_is_shown_from_its_start_to_its_end(database: Database) -> None:
    made = await rules.add(database, notice())
    assert made.id.startswith("ann_")
    banner = await rules.add(database, notice("Down", kind="maintenance", ends_at=None))
    assert await announcements.shown(database, 9.9) == []
    assert await announcements.shown(database, 10.0) == [banner, made]
    assert await announcements.shown(database, 20.0) == [banner]
    await rules.remove(database, banner.id, 30.0)
    assert await announcements.list_all(database) == [made]
    actions = [one.action for one in await audit.entries(database)]
    assert actions == ["announcement.remove", "announcement.add", "announcement.add"]


@pytest.mark.parametrize(
    "new",
    [
        notice(" "), notice("x" * 2001), notice("\x1b[31m"), notice(ends_at=10.0),
        notice(kind="incident"), notice(title="x" * 121), notice(title="a\nb"),
    ],
)  # fmt: skip
async def test_a_wrong_announcement_is_refused(database: Database, new: Announcement) -> None:
    with pytest.raises(InvalidError, match="announcement"):
        await rules.add(database, new)


async def test_an_unknown_announcement_cannot_be_removed(database: Database) -> None:
    with pytest.raises(AccountError, match="relay announce list"):
        await rules.remove(database, "ann_0", 1.0)


async def test_an_incident_is_shown_until_it_is_resolved(database: Database) -> None:
    open_ended = {"title": "Slow", "ends_at": None}
    made = await rules.add(database, notice("Looking", kind="incident", **open_ended))
    await rules.add(database, notice("Down", kind="maintenance", ends_at=None))
    kinds = [one.kind for one in await announcements.shown(database, 10.0)]
    assert kinds == ["incident", "maintenance"]
    await rules.resolve(database, made.id, 12.0)
    [*_, ended] = await announcements.list_all(database)
    assert (ended.title, ended.over_at) == ("Slow", 12.0)
    assert [one.kind for one in await announcements.shown(database, 12.0)] == ["maintenance"]
    with pytest.raises(AccountError, match="relay announce list"):
        await rules.resolve(database, made.id, 13.0)
    assert (await audit.entries(database))[0].action == "announcement.resolve"

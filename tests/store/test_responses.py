"""What is kept is found by its own account alone, for its time, and read by nobody else."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.accounts import users
from relay.config import PlanSettings, Settings
from relay.store.database import Database
from relay.store.responses import (
    DatabaseResponseStore,
    MemoryResponseStore,
    ResponseStore,
    StoredResponse,
)
from tests.workers.remote import remote_store

LIFE = 1000.0
KEY = bytes(range(32))
NOW = time.time()
CANARY = b"the prompt that nobody else may read"


async def database(folder: Path) -> tuple[Database, list[str]]:
    """A database with two accounts."""
    opened = await Database.open(folder / "relay.db")
    settings = Settings(plan=[PlanSettings(id="free")])
    owners = []
    for name in ("ada", "ben"):
        made = await users.create(
            opened, settings, f"{name}@example.com", plan=None, is_admin=False, now=NOW
        )
        owners.append(made.id)
    return opened, owners


@pytest.fixture(params=["memory", "remote", "database"])
async def shelf(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[ResponseStore, str, str]]:
    """A shelf and two owners."""
    opened, (ada, ben) = await database(tmp_path)
    if request.param == "memory":
        yield MemoryResponseStore(LIFE, 10_000_000), ada, ben
    elif request.param == "remote":
        async with remote_store(MemoryResponseStore(LIFE, 10_000_000), tmp_path) as (store, _):
            yield store, ada, ben
    else:
        yield DatabaseResponseStore(opened, KEY, LIFE), ada, ben
    await opened.close()


def turn(owner: str, number: int, previous: int | None = None) -> StoredResponse:
    return StoredResponse(
        f"resp_{number}",
        owner,
        None if previous is None else f"resp_{previous}",
        NOW + number,
        b'{"id":"resp_%d"}' % number,
        [b'{"content":"%b, %d"}' % (CANARY, number)],
        [b'{"answer":%d}' % number],
    )


async def test_a_stored_turn_is_found_again(shelf: tuple[ResponseStore, str, str]) -> None:
    kept, ada, _ = shelf
    await kept.put(turn(ada, 1), NOW)
    assert await kept.get(ada, "resp_1", NOW) == turn(ada, 1)
    assert await kept.get(ada, "resp_2", NOW) is None


async def test_nobody_finds_another_owners_turn(shelf: tuple[ResponseStore, str, str]) -> None:
    kept, ada, ben = shelf
    await kept.put(turn(ada, 1), NOW)
    assert await kept.get(ben, "resp_1", NOW) is None
    assert await kept.conversation(ben, "resp_1", NOW) is None
    assert not await kept.delete(ben, "resp_1")
    assert await kept.get(ada, "resp_1", NOW) is not None


async def test_a_conversation_is_all_its_turns_in_order(
    shelf: tuple[ResponseStore, str, str],
) -> None:
    kept, ada, _ = shelf
    for number in range(4):
        await kept.put(turn(ada, number, number - 1 if number else None), NOW)
    items = await kept.conversation(ada, "resp_2", NOW)
    expected = [item for number in range(3) for one in [turn(ada, number)]
                for item in (*one.input, *one.output)]  # fmt: skip
    assert items == expected


async def test_a_conversation_that_lacks_a_turn_is_not_found(
    shelf: tuple[ResponseStore, str, str],
) -> None:
    kept, ada, _ = shelf
    for number in range(3):
        await kept.put(turn(ada, number, number - 1 if number else None), NOW)
    assert await kept.delete(ada, "resp_1")
    assert not await kept.delete(ada, "resp_1")
    assert await kept.conversation(ada, "resp_2", NOW) is None
    assert await kept.get(ada, "resp_2", NOW) is not None


async def test_a_turn_expires_after_its_lifetime(shelf: tuple[ResponseStore, str, str]) -> None:
    kept, ada, _ = shelf
    await kept.put(turn(ada, 1), NOW)
    assert await kept.get(ada, "resp_1", NOW + LIFE - 1) is not None
    assert await kept.get(ada, "resp_1", NOW + LIFE) is None
    assert await kept.prune(NOW + LIFE - 1) == 0
    assert await kept.prune(NOW + LIFE) == 1


async def test_continuing_a_turn_renews_all_before_it(
    shelf: tuple[ResponseStore, str, str],
) -> None:
    kept, ada, _ = shelf
    await kept.put(turn(ada, 1), NOW)
    await kept.put(turn(ada, 2, 1), NOW)
    later = NOW + LIFE - 1
    assert await kept.conversation(ada, "resp_2", later) is not None
    assert await kept.prune(later + LIFE - 1) == 0
    assert await kept.conversation(ada, "resp_2", later + LIFE - 1) is not None


async def test_a_cycle_of_turns_is_not_a_conversation(
    shelf: tuple[ResponseStore, str, str],
) -> None:
    kept, ada, _ = shelf
    await kept.put(turn(ada, 1, 2), NOW)
    await kept.put(turn(ada, 2, 1), NOW)
    assert await kept.conversation(ada, "resp_2", NOW) is None


async def test_memory_is_bounded_and_the_oldest_turns_go_first() -> None:
    kept = MemoryResponseStore(LIFE, 20_000)
    for number in range(100):
        await kept.put(turn("ada", number), NOW)
    found = [number for number in range(100) if await kept.get("ada", f"resp_{number}", NOW)]
    assert found == list(range(found[0], 100))
    assert 5 < len(found) < 20
    assert kept.octets <= 20_000
    for number in found:
        await kept.delete("ada", f"resp_{number}")
    assert kept.octets == 0


async def test_the_file_has_no_plain_text_of_a_turn(tmp_path: Path) -> None:
    opened, (ada, _) = await database(tmp_path)
    await DatabaseResponseStore(opened, KEY, LIFE).put(turn(ada, 1), NOW)
    await opened.close()
    files = b"".join(map(Path.read_bytes, _files(tmp_path)))
    assert b"resp_1" in files
    assert CANARY not in files


async def test_turns_of_another_key_are_not_found_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened, (ada, _) = await database(tmp_path)
    await DatabaseResponseStore(opened, KEY, LIFE).put(turn(ada, 1), NOW)
    other = DatabaseResponseStore(opened, bytes(32), LIFE)
    for _ in range(3):
        assert await other.get(ada, "resp_1", NOW) is None
    assert await other.conversation(ada, "resp_1", NOW) is None
    assert [record.getMessage() for record in caplog.records] == [
        "responses that were kept cannot be decrypted: is responses.key another one?"
    ]
    await opened.close()


async def test_a_row_cannot_replace_another(tmp_path: Path) -> None:
    opened, (ada, ben) = await database(tmp_path)
    kept = DatabaseResponseStore(opened, KEY, LIFE)
    await kept.put(turn(ada, 1), NOW)
    await opened.write(
        lambda connection: connection.execute("UPDATE response SET owner = ?", (ben,))
    )
    assert await kept.get(ben, "resp_1", NOW) is None
    await opened.close()


async def test_stored_turns_outlive_the_process(tmp_path: Path) -> None:
    opened, (ada, _) = await database(tmp_path)
    await DatabaseResponseStore(opened, KEY, LIFE).put(turn(ada, 1), NOW)
    await opened.close()
    again = await Database.open(tmp_path / "relay.db")
    assert await DatabaseResponseStore(again, KEY, LIFE).get(ada, "resp_1", NOW) == turn(ada, 1)
    await again.close()


def _files(folder: Path) -> list[Path]:
    return [*folder.iterdir()]

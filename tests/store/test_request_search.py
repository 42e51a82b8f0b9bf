"""A request is found by its id in a table that has no index for it."""

from pathlib import Path

from relay.store.balance import refund
from relay.store.database import Connection, Database
from relay.store.request_search import billing, find_admitted, find_requests
from tests.store.entries import NOON, admission, journalled

_ROWS = 45_000  # more than two steps of the search


async def filled(path: Path) -> Database:
    """Many requests, without the first ones, as pruning leaves them."""
    database = await Database.open(path)

    def work(connection: Connection) -> None:
        connection.execute(
            """INSERT INTO usage (number, id, time, key_id, user_id, model, dialect, reserved,
                   cost_micro, outcome, rule)
               WITH RECURSIVE n (i) AS (SELECT 101 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
               SELECT i, printf('req_%032x', i), 0, 'k', 'u', 'm', 'messages', 0, 0, 'whole',
                   'reported' FROM n""",
            (_ROWS,),
        )

    await database.write(work)
    return database


async def test_an_id_is_found_wherever_its_row_is(tmp_path: Path) -> None:
    database = await filled(tmp_path / "relay.db")
    for number in (101, 25_000, 25_001, _ROWS):
        [row] = await find_requests(database, f"req_{number:032x}")
        assert row.number == number
    assert await find_requests(database, f"req_{100:032x}") == []
    assert await find_requests(database, f"req_{_ROWS + 1:032x}") == []
    await database.close()


async def test_a_beginning_finds_a_few_of_its_requests(tmp_path: Path) -> None:
    database = await filled(tmp_path / "relay.db")
    found = await find_requests(database, "req_" + "0" * 27)
    assert len({row.id for row in found}) >= 2
    assert len(found) < 20
    assert all(row.id.startswith("req_" + "0" * 27) for row in found)
    await database.close()


async def test_an_empty_table_has_no_request(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "relay.db")
    assert await find_requests(database, "req_00000000") == []
    assert await find_admitted(database, "req_00000000") == []
    assert await billing(database, "req_00000000") is None
    await database.close()


async def test_an_admission_is_found_until_its_batch_ends(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "relay.db")
    running = admission()
    await journalled(database, running=[running])
    assert await find_admitted(database, running.id[:10]) == [running]
    await database.close()


async def test_a_charge_says_whether_it_was_given_back(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "relay.db")
    paid = admission(billed_micro=77)
    await journalled(database, paid)
    found = await billing(database, paid.id)
    assert found is not None
    assert (found.charged, found.given_back) == (77, False)
    await refund(database, paid.id, "", NOON)
    found = await billing(database, paid.id)
    assert found is not None
    assert found.given_back
    await database.close()

"""The calls to the functions in PostgreSQL that carry rows, as values in and values out.

Must not know when they are made, or what a row means.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from relay.cluster.link import Connection
from relay.store.replication.outbox import Outbatch

ANSWER_SECONDS: Final = 5.0  # of a link for these calls: a batch may have megabytes
MAX_ROWS: Final = 500
_MAX_OCTETS: Final = 2_000_000  # of images, unless one row alone has more
# One value, so that another thread than the loop's takes it apart.
_READ: Final = """
    SELECT coalesce(json_agg(json_build_array(seq, node, tbl, pk, image) ORDER BY seq), '[]')::text,
        count(*), max(number), max(seq)
    FROM (SELECT *, count(*) OVER () AS number, sum(octets) OVER (ORDER BY seq) - octets AS before
          FROM (SELECT * FROM relay.replicated_row
                WHERE seq > %s AND NOT (node = %s AND tbl = ANY (%s))
                ORDER BY seq LIMIT %s) AS found) AS sized
    WHERE before < %s"""


class Mark(NamedTuple):
    """How far PostgreSQL has a node's changes. `number`: the node's own. `entry`: the last one of
    its outbox; `seq`: the number of the last row that came with it."""

    number: int
    entry: int
    seq: int


class Origin(NamedTuple):
    """A database that brings its rows, as the node of this name. `at`: epoch ms."""

    node: str
    is_complete: bool  # it is an import, and all of its rows are here
    at: int


class Page(NamedTuple):
    """Rows in their order, as JSON for `relay.store.replication.applying.parse`, and the number up
    to which these are all. `is_last`: there are no further ones."""

    rows: str
    number: int  # of rows
    upto: int
    is_last: bool


async def join(connection: Connection, node: str, place: str) -> Mark:
    """Have a number and the name, and hear how far this node is. `place`: of its database; while
    that of another relay has the name, PostgreSQL refuses."""
    cursor = await connection.execute("SELECT * FROM relay.join_node(%s, %s)", [node, place])
    row = await cursor.fetchone()
    assert row is not None
    return Mark(*row)


async def join_import(connection: Connection, node: str) -> Mark:
    """As `join`, for an import."""
    cursor = await connection.execute("SELECT * FROM relay.join_import(%s)", [node])
    row = await cursor.fetchone()
    assert row is not None
    return Mark(*row)


async def end_import(connection: Connection, node: str) -> None:
    """Say that an import has ended."""
    await connection.execute("SELECT relay.end_import(%s)", [node])


async def find_origin(connection: Connection, account: str) -> Origin | None:
    """The database whose first account this is, if its rows are here or on their way."""
    cursor = await connection.execute("SELECT * FROM relay.find_origin(%s)", [account])
    row = await cursor.fetchone()
    return None if row is None else Origin(*row)


async def note_origin(
    connection: Connection, account: str, node: str, *, is_complete: bool = False
) -> str:
    """Note that a database brings its rows, or has brought all of them; returns the node that
    brings them, which is another one if that was first."""
    cursor = await connection.execute(
        "SELECT relay.note_origin(%s, %s, %s)", [account, node, is_complete]
    )
    row = await cursor.fetchone()
    assert row is not None
    return str(row[0])


async def withdraw_origin(connection: Connection, account: str, node: str) -> None:
    """Take back that a database brings its rows: it brought none."""
    await connection.execute(
        "DELETE FROM relay.origin WHERE account = %s AND node = %s", [account, node]
    )


async def share(
    connection: Connection, node: str, batch: Outbatch, adds_only: Sequence[str]
) -> int | None:
    """Share changes; returns the number of the last row. None: PostgreSQL has some of them
    already. `adds_only`: tables whose rows never change."""
    cursor = await connection.execute(
        "SELECT relay.share_rows(%s, %s::bigint, %s::bigint, %s::jsonb, %s::text[])",
        [node, batch.first, batch.upto, batch.rows, [*adds_only]],
    )
    row = await cursor.fetchone()
    assert row is not None
    return None if row[0] is None else int(row[0])


async def read(connection: Connection, seen: int, node: str, adds_only: Sequence[str]) -> Page:
    """The next rows after a number, but those that only the node itself adds (none if `node` is
    empty)."""
    cursor = await connection.execute("SELECT seq FROM relay.replication")
    row = await cursor.fetchone()
    assert row is not None
    head = int(row[0])
    cursor = await connection.execute(_READ, [seen, node, [*adds_only], MAX_ROWS, _MAX_OCTETS])
    found = await cursor.fetchone()
    assert found is not None
    rows, number, limited, last = found
    is_last = not number or (number == limited and number < MAX_ROWS)
    return Page(rows, number, max(head, last or 0) if is_last else last, is_last)


async def leave(connection: Connection, node: str, place: str, *, joined: bool) -> None:
    """Free the node's name for another relay. `joined`: its database is the node's."""
    await connection.execute("SELECT relay.leave_name(%s, %s, %s)", [node, place, joined])


async def note_seen(connection: Connection, node: str, seen: int, place: str) -> int | None:
    """Say how far this node has read; returns the number of the last row. None: it is unknown."""
    cursor = await connection.execute("SELECT relay.note_seen(%s, %s, %s)", [node, seen, place])
    row = await cursor.fetchone()
    return None if row is None or row[0] is None else int(row[0])


async def tidy(connection: Connection, keep_requests_seconds: float) -> int:
    """Delete what no node needs any more; returns the number of rows. Of calls at once, one
    works."""
    cursor = await connection.execute(
        "SELECT relay.tidy_rows(%s)", [int(keep_requests_seconds * 1000)]
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])

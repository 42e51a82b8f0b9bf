"""The calls to the functions in PostgreSQL, as values in and values out.

Decides how claims and grants are written as arguments and rows. Must not know when they are sent.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from relay.cluster.link import Connection
from relay.quota.share.claims import Claim, Grant

_ACQUIRE: Final = (
    "SELECT * FROM relay.acquire(%s::text, %s::bigint, %s::int[], %s::text[], %s::bigint[],"
    " %s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],"
    " %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])"
)

REPORT: Final = "?"  # in place of a lease that recalls: only report the use
# It asks nodes for reports as `REPORT` says.
_READ_WINDOWS: Final = """
    SELECT w.name, w.epoch, greatest(0, w.ends - now.at),
        CASE WHEN w.ends > 0 THEN w.bonus ELSE 0 END,
        l.used, l.names, l.numbers,
        CASE WHEN it.asks AND cardinality(l.names) > 0
             THEN pg_notify('relay_recall', '? ' || w.name) END
    FROM (SELECT relay.now_ms() AS at, relay.lease_time() / 5 AS grace) now,
        unnest(%s::text[], %s::text[], %s::boolean[]) it (name, own, asks)
        JOIN relay.quota_window w ON w.name = it.name COLLATE "C",
        LATERAL (
            SELECT coalesce(sum(CASE WHEN o.is_out THEN greatest(o.used, o.ceiling)
                                     ELSE o.used END), 0)::bigint AS used,
                coalesce(array_agg(o.name) FILTER (WHERE o.is_open), '{}') AS names,
                coalesce(array_agg(o.number) FILTER (WHERE o.is_open), '{}') AS numbers
            FROM (
                SELECT s.*, s.is_lost OR now.at >= s.expires + now.grace AS is_out,
                    NOT s.is_lost AND now.at < s.expires AND s.ceiling > s.used AS is_open
                FROM relay.lease s WHERE s.window_name = w.name AND s.name <> it.own
            ) o
        ) l
"""


class WindowClaim(NamedTuple):
    """A claim and its window, which has the node's `size` from now on, and its `per` once it opens.

    `seed`: the use of a window that the engine does not know yet, from before it was shared;
    `seed_ends_in`: when that is over, milliseconds.
    """

    window: str
    size: int
    per: int  # milliseconds
    claim: Claim
    seed: int = 0
    seed_ends_in: int = 0


class Answers(NamedTuple):
    """The grants of one call, by request in the order of the claims."""

    incarnation: int
    frozen: bool  # nothing is granted until all nodes have reported to this incarnation
    grants: list[list[Grant]]


class Pulse(NamedTuple):
    """The answer to a poll."""

    incarnation: int
    nodes: int  # that are alive
    seq: int  # of the last change


class EngineFigures(NamedTuple):
    """The engine's own count."""

    incarnation: int
    nodes: int
    windows: int  # that are open
    leases: int  # with something unused
    unused: int  # by all of these
    lost: int  # leases that counted as used, since their nodes were silent


async def acquire(
    connection: Connection, node: str, reported: int, requests: Sequence[Sequence[WindowClaim]]
) -> Answers:
    """Send the claims of several requests in one round trip: each request gets all or nothing.
    `reported`: see `poll`; 0: none."""
    columns: tuple[list[Any], ...] = tuple([[] for _ in range(14)])
    for number, request in enumerate(requests):
        for window, size, per, claim, seed, seed_ends_in in request:
            values = (
                number, window, size, per, claim.lease, claim.number, claim.epoch, claim.used,
                claim.ceiling, claim.want, claim.need, claim.ends_in, seed, seed_ends_in,
            )  # fmt: skip
            for column, value in zip(columns, values, strict=True):
                column.append(value)
    cursor = await connection.execute(_ACQUIRE, [node, reported, *columns])
    rows = iter(await cursor.fetchall())
    grants = []
    incarnation, frozen = 0, False
    for request in requests:
        own = []
        for _ in request:
            row = next(rows)
            incarnation, frozen = row[:2]
            own.append(Grant(*row[2:]))
        grants.append(own)
    return Answers(incarnation, frozen, grants)


async def poll(connection: Connection, node: str, boot: str, reported: int | None) -> Pulse:
    """Say that a node is alive. `reported`: the incarnation that has all of its use; None: it has
    used nothing so far."""
    cursor = await connection.execute(
        "SELECT * FROM relay.poll(%s, %s, %s::bigint)", [node, boot, reported]
    )
    row = await cursor.fetchone()
    assert row is not None
    return Pulse(*row)


class WindowRead(NamedTuple):
    """A window whose use is asked for. `own`: this node's lease, whose use it knows itself.
    `asks`: let the other nodes report theirs."""

    window: str
    own: str
    asks: bool


class WindowUse(NamedTuple):
    """The use of a window by all leases but the node's own, as far as it was reported."""

    epoch: int
    ends_in: int  # milliseconds; 0: it is closed
    bonus: int
    elsewhere: int  # what leases of silent nodes had counts as used
    leases: list[str]  # the others with something unused: they may have used more meanwhile
    numbers: list[int]  # of their last claims


async def read_windows(connection: Connection, reads: Sequence[WindowRead]) -> dict[str, WindowUse]:
    """The use of windows by name, without those that the engine does not know. Locks no row."""
    names, owns, asks = zip(*reads, strict=True)
    cursor = await connection.execute(_READ_WINDOWS, [list(names), list(owns), list(asks)])
    return {name: WindowUse(*use) for name, *use, _ in await cursor.fetchall()}


class WindowChange(NamedTuple):
    """An administrator's change of windows: see `relay.adjust`. `name` is the same on all nodes."""

    name: str
    kind: str
    windows: Sequence[tuple[str, int]]  # name and length, milliseconds
    amount: int = 0
    times: int = 0


async def adjust(connection: Connection, change: WindowChange) -> None:
    """Carry out a change of windows, unless it was carried out before."""
    names, pers = [name for name, _ in change.windows], [per for _, per in change.windows]
    await connection.execute(
        "SELECT relay.adjust(%s, %s, %s::text[], %s::bigint[], %s::bigint, %s)",
        [change.name, change.kind, names, pers, change.amount, change.times],
    )


async def leave(connection: Connection, node: str, boot: str) -> None:
    """Say that a node has stopped."""
    await connection.execute("SELECT relay.leave(%s, %s)", [node, boot])


async def changes_after(connection: Connection, seq: int) -> list[tuple[int, str, str]]:
    """The changes after a number: seq, kind and id, in their order."""
    cursor = await connection.execute(
        "SELECT seq, kind, id FROM relay.change WHERE seq > %s ORDER BY seq", [seq]
    )
    return [(number, kind, id) for number, kind, id in await cursor.fetchall()]


async def read_figures(connection: Connection) -> EngineFigures:
    """The engine's figures. Reads all leases: for an operator, not for each second."""
    cursor = await connection.execute("SELECT * FROM relay.figures()")
    row = await cursor.fetchone()
    assert row is not None
    return EngineFigures(*row)


async def tidy(connection: Connection) -> int:
    """Delete windows that ended a day ago; returns their number. Of calls at once, one works."""
    cursor = await connection.execute("SELECT relay.tidy()")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])

"""The nodes that share a ledger, as an operator sees them from outside.

Decides nothing; must not know the acts that nodes claim.
"""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeVar

from relay.cluster.link import Connection, Link
from relay.cluster.once import REPEATABLE

T = TypeVar("T")

_ANSWER_SECONDS: Final = 10.0
_NODES: Final = """
    SELECT r.node, r.number, greatest(r.at, n.seen),
        coalesce(n.seen > relay.now_ms() - 15000, false), r.is_gone, r.is_import,
        greatest(0, (SELECT o.seq FROM relay.replication o) - r.seen), n.name IS NULL
    FROM relay.replica r LEFT JOIN relay.node n ON n.name = r.node ORDER BY r.node"""
_LOST: Final = """
    SELECT DISTINCT split_part(l.name, '/', 1),
        EXISTS (SELECT FROM relay.replica r
                WHERE r.node = split_part(l.name, '/', 1) AND NOT r.is_gone)
    FROM relay.lease l WHERE l.is_lost AND l.ceiling > l.used ORDER BY 1"""


class NodeState(NamedTuple):
    """One node. `seen`: when it was last heard of, epoch ms."""

    name: str
    number: int
    seen: int
    is_alive: bool
    is_gone: bool  # an operator has said so
    is_import: bool  # of a relay that did not join: it shares nothing any more
    behind: int  # rows of others that it has yet to read
    has_left: bool  # it was stopped


async def list_nodes(url: str) -> list[NodeState]:
    """All that have ever shared rows. Raises as `Link.call`."""

    async def read(connection: Connection) -> list[NodeState]:
        cursor = await connection.execute(_NODES)
        rows = await cursor.fetchall()
        return [NodeState(*row) for row in rows]

    return await _call(url, read)


async def nodes_with_lost_leases(url: str) -> dict[str, bool]:
    """The nodes whose leases count as used since they were silent, and whether each may come back.
    Raises as `Link.call`."""

    async def read(connection: Connection) -> dict[str, bool]:
        cursor = await connection.execute(_LOST)
        return dict(await cursor.fetchall())

    return await _call(url, read)


async def blocked_acts(url: str) -> dict[str, list[str]]:
    """The acts of silent nodes that nobody may do, by node. Raises as `Link.call`."""

    async def read(connection: Connection) -> dict[str, list[str]]:
        cursor = await connection.execute("SELECT node, kind, id FROM relay.blocked_acts()")
        found: dict[str, list[str]] = {}
        for node, kind, id in await cursor.fetchall():
            if kind not in REPEATABLE:
                # A link or a recovery code is known by its digest, which says nothing to anybody.
                found.setdefault(node, []).append(f"{kind} {id[:40]}")
        return found

    return await _call(url, read)


async def forget_node(url: str, name: str) -> int | None:
    """Declare a node gone; returns the number of its acts that others may do again. None: it is
    alive, unknown, or gone already. Raises as `Link.call`."""

    async def forget(connection: Connection) -> int | None:
        cursor = await connection.execute("SELECT relay.forget_replica(%s)", [name])
        row = await cursor.fetchone()
        return None if row is None or row[0] is None else int(row[0])

    return await _call(url, forget)


async def _call(url: str, work: Callable[[Connection], Awaitable[T]]) -> T:
    link = Link(url, "operator", _ANSWER_SECONDS)
    try:
        return await link.call(work)
    finally:
        await link.close()

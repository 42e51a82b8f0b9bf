"""A database brings its rows to the other nodes, and gets theirs.

Decides that no database brings its rows twice under two names: its copies would double balances.
Must not know which rows contradict each other (`relay.store.replication.joining`).
"""

import time
from functools import partial

from relay.cluster.link import Link
from relay.cluster.replication import calls
from relay.store.database import Database
from relay.store.replication import joining


async def join_with_rows(database: Database, link: Link, node: str) -> None:
    """Let a database be this node's from now on.

    Raises:
        JoinError: its rows contradict those of the others, or came with another node before.
        EngineAwayError, EngineRefusalError, SchemaError: see `Link.call`.
        StoreError: SQLite failed.
    """
    account = await database.run(joining.origin)
    if account is not None:
        await find_origin(link, account, node)
    await take_place(database, link, node)
    if account is not None:
        await link.call(partial(calls.note_origin, account=account, node=node, is_complete=True))


async def find_origin(link: Link, account: str, node: str) -> calls.Origin | None:
    """The database whose first account this is, if it brought its rows as this node. Raises
    JoinError: it did so as another one, else as `Link.call`."""
    found = await link.call(partial(calls.find_origin, account=account))
    if found is not None and found.node != node:
        raise joining.JoinError(
            f"the rows of this database, or of a copy of it, came with node {found.node} already: "
            "begin with an empty database"
        )
    return found


async def take_place(database: Database, link: Link, node: str, *, again: bool = False) -> None:
    """Have a number among the nodes, read all rows of the others and note the own ones. `again`:
    see `relay.store.replication.joining.join`. Raises as `join_with_rows`."""
    mark = await link.call(lambda it: calls.join(it, node))
    await database.run(joining.begin_to_receive)
    seen = 0
    while True:
        page = await link.call(partial(calls.read, seen=seen, node="", adds_only=[]))
        seen = page.upto
        await database.run(partial(joining.receive, rows=page.rows))
        if page.is_last:
            break
    await database.run(
        partial(
            joining.join,
            node=node,
            place=(mark.number, mark.entry),
            seen=seen,
            now=int(time.time() * 1000),
            again=again,
        ),
        writes=True,
    )

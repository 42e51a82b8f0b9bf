"""A database brings its rows to the other nodes, and gets theirs.

Decides that no database brings its rows twice under two names: its copies would double balances.
So its first account is noted in PostgreSQL before any of its rows can go there. Must not know which
rows contradict each other (`relay.store.replication.joining`).
"""

import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from relay.cluster.link import EngineAwayError, EngineRefusalError, Link
from relay.cluster.replication import calls
from relay.cluster.schema import SchemaError
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
    origin = None if account is None else await find_origin(link, account, node)
    mark = await link.call(partial(calls.join, node=node, place=place_of(database)))
    async with claimed_origin(link, account, node, is_kept=origin is not None and mark.entry > 0):
        await take_rows(database, link, node, mark)


def place_of(database: Database) -> str:
    """The host and the file of a database, as other relays and their operators see it."""
    return f"{socket.gethostname()}:{os.path.realpath(database.path)}"


async def find_origin(link: Link, account: str, node: str) -> calls.Origin | None:
    """The database whose first account this is, if it brings its rows as this node. Raises
    JoinError: it does so as another one, else as `Link.call`."""
    found = await link.call(partial(calls.find_origin, account=account))
    if found is not None:
        _check_owner(found.node, node)
    return found


def _check_owner(owner: str, node: str) -> None:
    if owner != node:
        raise joining.came_already(owner)


@asynccontextmanager
async def claimed_origin(
    link: Link, account: str | None, node: str, *, is_kept: bool
) -> AsyncIterator[None]:
    """Be the only node with the rows of a database, by its first account (None: it has none). A
    database that is refused inside brings none, so a copy may; `is_kept`: it brought some before.
    Raises JoinError: another node has them, else as `Link.call`."""
    if account is None:
        yield
        return
    _check_owner(await link.call(partial(calls.note_origin, account=account, node=node)), node)
    try:
        yield
    except joining.JoinError:
        if not is_kept:
            with contextlib.suppress(EngineAwayError, EngineRefusalError, SchemaError):
                await link.call(partial(calls.withdraw_origin, account=account, node=node))
        raise


async def take_rows(
    database: Database, link: Link, node: str, mark: calls.Mark, *, again: bool = False
) -> None:
    """Read all rows of the others and note the own ones. `mark`: of this node; `again`: see
    `relay.store.replication.joining.join`. Raises as `join_with_rows`."""
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

"""The rows of one relay's database, brought into the shared PostgreSQL.

Decides that all of them come or none, in which order, that accounts come with plans that relays
offer, and that a second import of a database brings nothing twice. The import is a node for as long
as it takes: `relay-import-` and the first account name it, so that an import that was cut off goes
on. Must not know how a row travels or which rows contradict each other.
"""

import contextlib
import time
from collections.abc import Collection, Sequence
from functools import partial
from typing import Final, NamedTuple

from relay.cluster.link import EngineAwayError, EngineRefusalError, Link
from relay.cluster.node import ClusterSettings, migrated
from relay.cluster.replication import calls
from relay.cluster.replication.joining import claimed_origin, find_origin, take_rows
from relay.cluster.replication.use import bring
from relay.cluster.schema import SchemaError
from relay.store.database import Database
from relay.store.recovery import restore
from relay.store.replication import joining, outbox, use
from relay.store.replication.joining import Conflict, JoinError
from relay.store.replication.shape import adds_only, read_tables

# Accounts by the plan that they have, or will have after its period.
_PLANS: Final = """
    SELECT plan, count(*) FROM (
        SELECT id, CASE WHEN plan_until <= ? THEN coalesce(plan_then, plan) ELSE plan END AS plan
        FROM users
        UNION SELECT id, plan_then FROM users WHERE plan_until IS NOT NULL AND plan_then IS NOT NULL
    ) GROUP BY plan ORDER BY plan"""
# Codes that can be redeemed by the plan that they bring, or the one that follows.
_CODE_PLANS: Final = """
    WITH open AS (
        SELECT id, plan, plan_then FROM code
        WHERE revoked_at IS NULL AND used < uses AND (expires_at IS NULL OR expires_at > ?)
    )
    SELECT plan, count(*) FROM (
        SELECT id, plan FROM open UNION SELECT id, plan_then FROM open
    ) WHERE plan IS NOT NULL GROUP BY plan ORDER BY plan"""


class Import(NamedTuple):
    """The parts of an import. `rows`: by table, those that the others lack; `windows`: windows
    with use; `plans`: accounts by plan; `code_plans`: codes that can be redeemed, by plan;
    `earlier`: when the database was imported, epoch seconds; None: never; `conflicts`: rows that
    contradict those of the others, in which case nothing was shared."""

    rows: dict[str, int]
    windows: int
    plans: dict[str, int]
    code_plans: dict[str, int]
    earlier: float | None = None
    conflicts: Sequence[Conflict] = ()


async def import_database(
    url: str, database: Database, *, dry_run: bool, plans: Collection[str] | None = None
) -> Import:
    """Share all rows of a database and the use of its open windows. It becomes a node's in the
    course of this: give a copy. `dry_run`: find out what would be shared, and share nothing.
    Nothing is shared either if an account has a plan that is not in `plans`. None: it may have any.

    Raises:
        JoinError: the rows came with a relay that joined. Nothing was shared.
        EngineAwayError: PostgreSQL is away. Rows may have been shared; the next import goes on.
        EngineRefusalError, SchemaError: PostgreSQL cannot be used.
        StoreError: SQLite failed.
    """
    account = await _importable(database)
    if account is None:
        return Import({}, 0, {}, {})
    node = f"relay-import-{account}"
    await migrated(ClusterSettings(url, node))
    link = Link(url, node, calls.ANSWER_SECONDS)
    try:
        origin = await find_origin(link, account, node)
        if origin is not None and origin.is_complete:
            return Import({}, 0, {}, {}, origin.at / 1000)
        by_plan = dict(await database.select(_PLANS, [time.time()]))
        codes = dict(await database.select(_CODE_PLANS, [time.time()]))
        is_trial = dry_run or (plans is not None and not by_plan.keys() <= set(plans))
        try:
            found = await _bring(database, link, node, again=origin is not None, dry_run=is_trial)
            return found._replace(plans=by_plan, code_plans=codes)
        except JoinError as error:
            if not error.conflicts:
                raise
            return Import({}, 0, by_plan, codes, conflicts=error.conflicts)
        finally:
            with contextlib.suppress(EngineAwayError, EngineRefusalError, SchemaError):
                await link.call(partial(calls.end_import, node=node))
    finally:
        await link.close()


async def _importable(database: Database) -> str | None:
    """The first account. Raises JoinError: the database is a node's, whose rows came with it."""
    member = await database.run(joining.membership)
    if member is not None:
        left = "has left its cluster" if member.has_left else "is that of a relay that has joined"
        raise JoinError(f"the database {left} as node {member.node}: its rows came with that node")
    return await database.run(joining.origin)


async def _bring(
    database: Database, link: Link, node: str, *, again: bool, dry_run: bool
) -> Import:
    account = await database.run(joining.origin)
    assert account is not None
    await restore(database, time.time())  # requests that a crash interrupted end here
    mark = await link.call(partial(calls.join_import, node=node))
    claimed = None if dry_run else account
    async with claimed_origin(link, claimed, node, is_kept=mark.entry > 0):
        await take_rows(database, link, node, mark, again=again)
    rows = await database.run(outbox.unsent_by_table)
    found = Import(rows, rows.pop(use.TABLE, 0), {}, {})
    if dry_run:
        return found
    await bring(database, link, node, {})  # upstreams' own limits are those of another relay.toml
    await _send_all(database, link, node)
    await link.call(partial(calls.note_origin, account=account, node=node, is_complete=True))
    return found


async def _send_all(database: Database, link: Link, node: str) -> None:
    tables = await database.run(read_tables)
    only_added = adds_only(tables)
    while True:
        batch = await database.run(partial(outbox.take, tables=tables, node=node))
        if batch is None:
            return
        seq = await link.call(partial(calls.share, node=node, batch=batch, adds_only=only_added))
        if seq is None:
            raise JoinError("another import of this database is under way")
        await database.write(partial(outbox.note_sent, tables=tables, upto=batch.upto, seq=seq))

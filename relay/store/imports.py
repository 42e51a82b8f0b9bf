"""Accounts, keys and credits that come from elsewhere, added in one transaction.

Decides when one is there already, so that a repeated import adds nothing. Must not know sources
or policy.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

from relay.store.audit import Change, record
from relay.store.database import Database
from relay.store.ids import next_id
from relay.store.users import new_id

_CREDIT: Final = f"""INSERT INTO statement
        (id, user_id, time, kind, amount_micro, balance_after, note)
    VALUES ({next_id("statement")}, ?1, ?2, 'credit', ?3,
            coalesce((SELECT micro FROM balance WHERE user_id = ?1), 0) + ?3, ?4)"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class ImportedKey:
    """A key of an imported account."""

    name: str
    digest: bytes
    hint: str
    created_at: float
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class ImportedAccount:
    """An account with its keys and its credit."""

    email: str
    plan: str
    suspended: bool
    created_at: float
    keys: tuple[ImportedKey, ...]
    credit_micro: int
    note: str  # of the credit; an account is credited once per note


@dataclass(frozen=True, slots=True)
class Added:
    """The additions to an account; in a dry run, those that it needs."""

    account: bool
    keys: frozenset[bytes]  # digests
    taken: frozenset[bytes]  # digests of keys that another account has
    credit: bool


async def add_accounts(
    database: Database, accounts: list[ImportedAccount], now: float, *, dry_run: bool = False
) -> list[Added]:
    """Add the missing parts of each account; `dry_run`: report them only.

    An account that is there already keeps its plan and its state.

    Raises:
        StoreError: SQLite failed, and nothing was added.
    """

    def work(connection: sqlite3.Connection) -> list[Added]:
        if dry_run:
            connection.execute("SAVEPOINT trial")
        added = [_add(connection, account, now) for account in accounts]
        for account, one in zip(accounts, added, strict=True):
            if one.account or one.keys or one.credit:
                after = {
                    "plan": account.plan,
                    "keys": len(one.keys),
                    "credit_micro": account.credit_micro if one.credit else 0,
                }
                change = Change("user.import", account.email, None, after)
                record(connection, database.actor, now, change)
        if dry_run:
            connection.execute("ROLLBACK TO trial")
        return added

    return await database.write(work)


def _add(connection: sqlite3.Connection, account: ImportedAccount, now: float) -> Added:
    row = connection.execute("SELECT id FROM users WHERE email = ?", (account.email,)).fetchone()
    user_id = new_id("usr") if row is None else row[0]
    if row is None:
        connection.execute(
            "INSERT INTO users (id, email, plan, suspended_at, created_at) VALUES (?, ?, ?, ?, ?)",
            (
                user_id,
                account.email,
                account.plan,
                now if account.suspended else None,
                account.created_at,
            ),
        )
    added, taken = set(), set()
    for key in account.keys:
        owner = connection.execute(
            "SELECT user_id FROM keys WHERE digest = ?", (key.digest,)
        ).fetchone()
        if owner is None:
            connection.execute(
                """INSERT INTO keys (id, user_id, name, digest, hint, created_at, expires_at)
                   VALUES (?, ?, ?, ?, ?, ?, ?)""",
                (
                    new_id("key"),
                    user_id,
                    key.name,
                    key.digest,
                    key.hint,
                    key.created_at,
                    key.expires_at,
                ),
            )
            added.add(key.digest)
        elif owner[0] != user_id:
            taken.add(key.digest)
    credited = (
        bool(account.credit_micro)
        and not connection.execute(
            "SELECT 1 FROM statement WHERE user_id = ? AND note = ?", (user_id, account.note)
        ).fetchone()
    )
    if credited:
        connection.execute(_CREDIT, (user_id, now, account.credit_micro, account.note))
    return Added(row is None, frozenset(added), frozenset(taken), credited)

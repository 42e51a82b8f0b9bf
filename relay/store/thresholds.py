"""Thresholds at which a person gets a mail, and which mails went already.

Knows the tables `threshold_choice` and `threshold_mail`. Limits are read as they are on disk, a
second late, so requests are not slowed. Must not know words or mail servers.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from relay.store.audit import Change, record
from relay.store.database import Database
from relay.store.keys import OwnLimit

BALANCE: Final = "balance"
_HOUR_SECONDS: Final = 3600
_DAY_MS: Final = 86_400_000
_ROWS: Final = 200  # at a time; those left out are found the next time


class Choice(msgspec.Struct, frozen=True):
    """The thresholds of a person: percentages of a window, and a balance in micro-dollars."""

    shares: list[int]
    balance_micro: int | None
    language: str


class Crossing(msgspec.Struct, frozen=True):
    """A threshold that is passed and gave no mail yet. A window has `kind` and the rest; for the
    balance, `about` is `BALANCE`, `used` the balance and `threshold` micro-dollars."""

    user_id: str
    email: str
    language: str
    about: str
    threshold: int
    until: int  # the window's end, milliseconds
    used: int
    plan: str = ""  # the account's
    plan_until: float | None = None
    plan_then: str | None = None
    scope: str = ""
    key_name: str = ""  # of the key that the limit is for; empty: the account's
    own_limits: str | None = None  # that key's own limits, JSON
    kind: str = ""
    per: int = 0
    refill: str = ""
    size: int = 0

    def plan_at(self, now: float) -> str:
        """The account's plan at a moment."""
        is_over = self.plan_until is not None and now >= self.plan_until
        return self.plan_then or self.plan if is_over else self.plan

    @property
    def limits_of_key(self) -> list[OwnLimit]:
        """The key's own limits."""
        return msgspec.json.decode(self.own_limits or "[]", type=list[OwnLimit])


# An account's own buckets and those of its keys. A limit on an hour or less gives no mail.
_WINDOWS: Final = """WITH owned AS (
        SELECT user_id, user_id AS owner, '' AS name, NULL AS limits FROM threshold_choice
        UNION ALL
        SELECT user_id, id, iif(name = '', hint, name), limits FROM keys
        WHERE user_id IN (SELECT user_id FROM threshold_choice) AND revoked_at IS NULL)
    SELECT owned.user_id, users.email, choice.language,
        scope || '/' || bucket.owner || '/' || kind || '/' || per AS about, share.value, moment,
        used, users.plan, users.plan_until, users.plan_then, scope, owned.name, owned.limits, kind,
        per, refill, size
    FROM owned JOIN users ON users.id = owned.user_id
    JOIN threshold_choice AS choice ON choice.user_id = owned.user_id
    JOIN bucket ON bucket.owner = owned.owner
    JOIN json_each(choice.shares) AS share ON used * 100 >= size * share.value
    WHERE refill <> 'smooth' AND per > ? AND kind IN ('requests', 'tokens', 'money') AND moment > ?
        AND size > 0 AND NOT EXISTS (SELECT 1 FROM threshold_mail AS mail
            WHERE mail.user_id = owned.user_id
                AND mail.about = scope || '/' || bucket.owner || '/' || kind || '/' || per
                AND mail.threshold = share.value AND mail.until = moment)
    ORDER BY owned.user_id, about, share.value LIMIT ?"""
_BALANCES: Final = """SELECT choice.user_id, email, language, 'balance', balance_micro, 0, micro
    FROM threshold_choice AS choice JOIN users ON users.id = choice.user_id
    JOIN balance ON balance.user_id = choice.user_id
    WHERE micro < balance_micro AND NOT EXISTS (SELECT 1 FROM threshold_mail AS mail
        WHERE mail.user_id = choice.user_id AND about = 'balance' AND threshold = balance_micro)
    LIMIT ?"""
_ABOVE: Final = """SELECT mail.user_id, threshold FROM threshold_mail AS mail
    JOIN balance ON balance.user_id = mail.user_id WHERE about = 'balance' AND micro >= threshold
    LIMIT ?"""


async def choice_of(database: Database, user_id: str) -> Choice | None:
    """The thresholds of a person; None: they want no mail."""
    rows = await database.select(
        "SELECT shares, balance_micro, language FROM threshold_choice WHERE user_id = ?", (user_id,)
    )
    return _choice(rows[0]) if rows else None


def _choice(row: tuple[str, int | None, str]) -> Choice:
    return Choice(msgspec.json.decode(row[0], type=list[int]), *row[1:])


async def choose(database: Database, user_id: str, choice: Choice, now: float) -> None:
    """Keep the thresholds of a person; without any, they get no mail."""

    def work(connection: sqlite3.Connection) -> None:
        row = connection.execute(
            "DELETE FROM threshold_choice WHERE user_id = ? "
            "RETURNING shares, balance_micro, language",
            (user_id,),
        ).fetchone()
        before = None if row is None else msgspec.to_builtins(_choice(row))
        after = None
        if choice.shares or choice.balance_micro is not None:
            after = msgspec.to_builtins(choice)
            shares = msgspec.json.encode(choice.shares).decode()
            connection.execute(
                "INSERT INTO threshold_choice VALUES (?, ?, ?, ?)",
                (user_id, shares, choice.balance_micro, choice.language),
            )
        if before != after:
            change = Change("user.thresholds", user_id, before, after)
            record(connection, database.actor, now, change)

    await database.write(work)


async def crossed(database: Database, now: float) -> list[Crossing]:
    """Some of the thresholds that are passed and gave no mail yet, in the order of accounts."""
    windows = await database.select(_WINDOWS, (_HOUR_SECONDS, int(now * 1000), _ROWS))
    balances = await database.select(_BALANCES, (_ROWS,))
    return [Crossing(*row) for row in (*windows, *balances)]


async def claim(database: Database, found: Sequence[Crossing]) -> list[Crossing]:
    """Note that these give their mail now; returns those that nobody else has claimed."""

    def work(connection: sqlite3.Connection) -> list[Crossing]:
        return [
            one
            for one in found
            if connection.execute(
                """INSERT INTO threshold_mail SELECT ?1, ?2, ?3, ?4
                   WHERE EXISTS (SELECT 1 FROM users WHERE id = ?1)
                   ON CONFLICT DO UPDATE SET until = excluded.until
                       WHERE until <> excluded.until""",
                (one.user_id, one.about, one.threshold, one.until),
            ).rowcount
            > 0
        ]

    if not found:
        return []
    async with database.claims.alone("mails"):
        return await database.write(work)


async def release(database: Database, found: Sequence[Crossing]) -> None:
    """Forget a claim: the mail was not taken."""
    await database.write(
        lambda connection: connection.executemany(
            """DELETE FROM threshold_mail
               WHERE user_id = ? AND about = ? AND threshold = ? AND until = ?""",
            [(one.user_id, one.about, one.threshold, one.until) for one in found],
        )
    )


async def rearm_balances(database: Database) -> None:
    """Where a balance is above its threshold again, the next fall gives a mail."""
    rows = await database.select(_ABOVE, (_ROWS,))
    if rows:
        await database.write(
            lambda connection: connection.executemany(
                """DELETE FROM threshold_mail
                   WHERE user_id = ? AND about = 'balance' AND threshold = ?""",
                rows,
            )
        )


async def prune(database: Database, now: float) -> None:
    """Delete what is known of windows that ended more than a day ago."""
    await database.write(
        lambda connection: connection.execute(
            "DELETE FROM threshold_mail WHERE until > 0 AND until < ?", (int(now * 1000) - _DAY_MS,)
        )
    )

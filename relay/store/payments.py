"""Payments in the database: what somebody wanted to buy, and what became of it.

Decides which payments are kept, and which of them a list has. Must not know what is for sale, or
what an event moves (`payment_events`).
"""

import sqlite3
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from relay.store.database import Database
from relay.store.periods import Present
from relay.store.users import User, new_id

State = Literal["open", "pending", "expired", "failed", "paid"]
Shown = Literal[
    "open", "pending", "expired", "failed", "paid", "partly_refunded", "refunded", "disputed"
]

_MAX_OPEN: Final = 20  # of an account; one that is paid all the same is made anew
COLUMNS: Final = """offer, title, price, currency, credit_micro, plan, seconds, plan_then,
    tax_percent, seller, id, user_id, email, state, created_at, replaces, replaces_until, session,
    intent, paid_at, fulfilled_at, refunded, reversed_micro, disputed_at, invoice_year,
    invoice_number"""


class Purchase(msgspec.Struct, frozen=True):
    """The terms of an offer, as it stands now."""

    offer: str
    title: str
    price: int  # cents
    currency: str
    credit_micro: int
    plan: str
    seconds: int
    plan_then: str
    tax_percent: str
    seller: str


class Payment(Purchase, frozen=True):
    """A payment, and what it buys as that was offered then. Times are epoch seconds, amounts
    cents, and those of credit micro-dollars."""

    id: str
    user_id: str
    email: str
    state: State
    created_at: float
    replaces: str
    replaces_until: float | None
    session: str | None
    intent: str | None
    paid_at: float | None
    fulfilled_at: float | None
    refunded: int
    reversed_micro: int
    disputed_at: float | None
    invoice_year: int | None
    invoice_number: int | None

    @property
    def invoice(self) -> str:
        """The number of its invoice, such as `2026-0001`; empty: it is not paid."""
        if self.invoice_number is None:
            return ""
        return f"{self.invoice_year}-{self.invoice_number:04}"

    @property
    def replaced(self) -> Present | None:
        """The plan that its person agreed to give up; None: none."""
        return Present(self.replaces, self.replaces_until) if self.replaces else None

    @property
    def shown(self) -> Shown:
        """Its state for people."""
        if self.disputed_at is not None:
            return "disputed"
        if self.refunded:
            return "refunded" if self.refunded == self.price else "partly_refunded"
        return self.state

    def audited(self) -> dict[str, Any]:
        """The fields for the audit log."""
        return {
            "user": self.user_id,
            "offer": self.offer,
            "state": self.state,
            "refunded": self.refunded,
            "disputed": self.disputed_at is not None,
            "invoice": self.invoice,
        }


class PaymentFilter(msgspec.Struct, frozen=True):
    """Which payments: of an account, whose address, offer or invoice has a text, in a state, or
    paid in a time."""

    user_id: str = ""
    text: str = ""
    state: str = ""
    since: float | None = None
    until: float | None = None

    def conditions(self) -> tuple[str, list[object]]:
        """The conditions in SQL, with their values."""
        found: list[str] = ["1"]
        values: list[object] = []
        if self.user_id:
            found.append("user_id = ?")
            values.append(self.user_id)
        if self.text:
            found.append(
                """instr(lower(email || ' ' || offer || ' ' || id || ' ' ||
                   coalesce(printf('%d-%04d', invoice_year, invoice_number), '')), lower(?)) > 0"""
            )
            values.append(self.text)
        if self.state in _STATES:
            found.append(_STATES[self.state])
        for comparison, moment in (("paid_at >= ?", self.since), ("paid_at < ?", self.until)):
            if moment is not None:
                found.append(comparison)
                values.append(moment)
        return " AND ".join(found), values


_STATES: Final = {
    "paid": "paid_at IS NOT NULL",
    "refunded": "refunded > 0",
    "disputed": "disputed_at IS NOT NULL",
    "pending": "state = 'pending'",
    "failed": "state IN ('failed', 'expired')",
    "open": "state = 'open'",
    "own": "state NOT IN ('open', 'expired')",  # that a person sees of their own
}
STATES: Final = ("paid", "refunded", "disputed", "pending", "failed", "open")


class PaymentPage(msgspec.Struct, frozen=True):
    """A part of a list, and where the next part begins; None: it is the last."""

    rows: list[Payment]
    before: int | None


async def open_payment(
    database: Database,
    user: User,
    purchase: Purchase,
    now: float,
    replaced: Present | None = None,
) -> Payment:
    """Keep what somebody is about to buy, before Stripe hears of it. `replaced`: the plan that
    they agree to give up for it.

    Raises:
        StoreError: SQLite failed, and nothing was kept.
    """

    def work(connection: sqlite3.Connection) -> Payment:
        unpaid = "user_id = ?1 AND state IN ('open', 'expired')"
        connection.execute(
            f"""DELETE FROM payment WHERE {unpaid} AND rowid <= (SELECT rowid FROM payment
                WHERE {unpaid} ORDER BY rowid DESC LIMIT 1 OFFSET ?2)""",  # noqa: S608
            (user.id, _MAX_OPEN - 1),
        )
        payment = insert(connection, new_id("pay"), user, purchase, now)
        if replaced is None:
            return payment
        row = connection.execute(
            f"""UPDATE payment SET replaces = ?, replaces_until = ? WHERE id = ?
                RETURNING {COLUMNS}""",  # noqa: S608
            (replaced.plan, replaced.until, payment.id),
        ).fetchall()[0]
        return Payment(*row)

    return await database.write(work)


def insert(
    connection: sqlite3.Connection, payment_id: str, user: User, purchase: Purchase, now: float
) -> Payment:
    """Enter a payment within a transaction."""
    row = connection.execute(
        f"""INSERT INTO payment (id, user_id, email, offer, title, price, currency, credit_micro,
                plan, seconds, plan_then, tax_percent, seller, state, created_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'open', ?) RETURNING {COLUMNS}""",  # noqa: S608
        (payment_id, user.id, user.email, *msgspec.structs.astuple(purchase), now),
    ).fetchall()[0]
    return Payment(*row)


async def set_session(database: Database, payment_id: str, session: str) -> None:
    """Keep the id of a payment's Checkout Session. Raises StoreError: SQLite failed."""
    await database.write(
        lambda connection: connection.execute(
            "UPDATE payment SET session = ? WHERE id = ? AND session IS NULL", (session, payment_id)
        )
    )


async def find_payment(database: Database, payment_id: str) -> Payment | None:
    """The payment with this id; None if there is none."""
    rows = await database.select(f"SELECT {COLUMNS} FROM payment WHERE id = ?", (payment_id,))  # noqa: S608
    return Payment(*rows[0]) if rows else None


async def payments(
    database: Database, which: PaymentFilter, limit: int = 50, before: int = 2**62
) -> PaymentPage:
    """Payments, the newest first; `before` is that of the page before."""
    conditions, values = which.conditions()
    rows = await database.select(
        f"""SELECT rowid, {COLUMNS} FROM payment WHERE {conditions} AND rowid < ?
            ORDER BY rowid DESC LIMIT ?""",  # noqa: S608
        [*values, before, limit],
    )
    last = int(rows[-1][0]) if len(rows) == limit else None
    return PaymentPage([Payment(*row[1:]) for row in rows], last)


def month_bounds(year: int, month: int) -> tuple[float, float]:
    """The first moment of a month and that of the next one, UTC."""
    following = (year + 1, 1) if month == 12 else (year, month + 1)
    return (
        datetime(year, month, 1, tzinfo=UTC).timestamp(),
        datetime(*following, 1, tzinfo=UTC).timestamp(),
    )

"""The events of payments, and their consequences: credit, a plan, or credit that is taken back.

An event is kept once. A payment's state follows from all of its events and not from their order,
and so does what it moves: credit once, a plan once, and what was refunded is taken back. All of
that is one transaction. Must not know what is for sale, or how Stripe writes an event.
"""

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from relay.store import balance, periods
from relay.store.audit import Change, record
from relay.store.balance import NewCredit
from relay.store.database import Database
from relay.store.events import Event, emit
from relay.store.payments import COLUMNS, Payment, Purchase, insert
from relay.store.periods import NewPeriod
from relay.store.users import select_user_by_id

Kind = Literal["paid", "pending", "expired", "failed", "refunded", "disputed", "refund_failed"]
Outcome = Literal["applied", "noted", "repeated", "foreign"]

_FOREIGN_SECONDS: Final = 30 * 86_400  # an event may come before the one that says whose it is
# The notes, in words for a receiver of alerts; pages have words of their own.
_WORDS: Final = {
    "unknown": "paid, but fits no payment, account or offer here",
    "price": "paid another price than was asked, so nothing was handed over",
    "no_account": "paid, but the account is deleted",
    "no_plan": "paid for a plan that is not in relay.toml any more",
    "disputed": "disputes a payment",
    "refund_failed": "a refund failed",
    "plan_goes_on": "refunded, while the plan goes on",
    "other_plan": "paid for a plan, but has another one now, which was left as it is",
}
_ORDER: Final = ("open", "pending", "expired", "failed", "paid")  # a later one prevails


class Fact(msgspec.Struct, frozen=True):
    """The content of an event. Ids are Stripe's; `payment`, `account` and `offer` are those of the
    relay, which Stripe returns; empty for a payment of somebody else."""

    event: str
    kind: Kind
    made_at: float = 0  # epoch seconds
    amount: int = 0  # cents: paid, refunded so far, disputed, or of the refund that failed
    currency: str = ""
    session: str = ""
    intent: str = ""
    refund: str = ""  # the one that failed
    payment: str = ""
    account: str = ""
    offer: str = ""


class Note(msgspec.Struct, frozen=True):
    """An event that somebody has to act on; `time` is epoch seconds. `email` and what follows it
    are of the payment, and None where none is known."""

    event: str
    time: float
    note: str
    intent: str
    amount: int  # of the event
    currency: str
    payment: str | None
    email: str | None
    title: str | None
    plan: str | None


@dataclass(frozen=True, slots=True)
class Offered:
    """The goods that can be handed over now: offers by id, and the plans that there are."""

    purchases: Mapping[str, Purchase]
    plans: Collection[str]


async def apply(database: Database, fact: Fact, offered: Offered, now: float) -> Outcome:
    """Take an event in, once, with all that follows from it.

    Raises:
        StoreError: SQLite failed, or other nodes could not be asked, and nothing has changed: the
            event has to come again.
    """
    # With the payments of all nodes in sight, since invoices are numbered without a gap.
    async with database.claims.alone("payments"):
        if await database.select("SELECT 1 FROM payment_event WHERE id = ?", (fact.event,)):
            return "repeated"
        async with database.claims.once("payment event", fact.event):
            try:
                return await _apply(database, fact, offered, now)
            except _NumberNeededError as error:
                wanted = error.wanted
            number = await database.claims.number(*wanted)
            return await _apply(database, fact, offered, now, number)


async def _apply(
    database: Database, fact: Fact, offered: Offered, now: float, number: int | None = None
) -> Outcome:
    """`number`: of the invoice. Raises _NumberNeededError: there has to be one, and nothing has
    changed."""
    return await database.write(
        lambda connection: _Transaction(connection, database, offered, now, number).apply(fact)
    )


class _NumberNeededError(Exception):
    """Nodes share the numbers of invoices. `wanted`: the arguments of `Claims.number`."""

    def __init__(self, series: str, subject: str, above: int) -> None:
        super().__init__(series)
        self.wanted = series, subject, above


class _Transaction:
    """The work of one event."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        database: Database,
        offered: Offered,
        now: float,
        number: int | None,
    ) -> None:
        self._connection = connection
        self._number = number
        self._shares_numbers = database.claims.are_needed
        self._actor = database.actor
        self._offered = offered
        self._now = now

    def apply(self, fact: Fact) -> Outcome:
        known = self._row("SELECT 1 FROM payment_event WHERE id = ?", fact.event)
        if known is not None:
            return "repeated"
        payment = self._find(fact) or self._anew(fact)
        if payment is None and not (fact.payment and fact.kind == "paid"):
            return self._keep_foreign(fact)
        self._enter(fact, payment)
        if payment is None:
            self._note(fact.event, "unknown", fact.payment)
            return "noted"
        before = payment
        self._identify(payment, fact)
        self._advance(payment, fact)
        payment = self._gathered(payment.id)
        if payment.state == "paid" and before.state != "paid":
            self._fulfil(payment, fact)
        self._reverse(payment.id, fact.event)
        self._note_later_events(payment)
        after = self._payment(payment.id)
        change = Change(f"payment.{fact.kind}", after.id, before.audited(), after.audited())
        record(self._connection, self._actor, self._now, change)
        noted = "SELECT 1 FROM payment_event WHERE id = ? AND note <> ''"
        return "applied" if self._row(noted, fact.event) is None else "noted"

    # --- whose it is ---

    def _find(self, fact: Fact) -> Payment | None:
        for column, value in (
            ("id", fact.payment), ("session", fact.session), ("intent", fact.intent),
        ):  # fmt: skip
            if value:
                query = f"SELECT {COLUMNS} FROM payment WHERE {column} = ?"  # noqa: S608
                row = self._row(query, value)
                if row is not None:
                    return Payment(*row)
        return None

    def _anew(self, fact: Fact) -> Payment | None:
        """A payment whose row is gone: its person opened many, or an older backup was restored."""
        if fact.kind not in ("paid", "pending"):
            return None
        purchase = self._offered.purchases.get(fact.offer)
        user = select_user_by_id(self._connection, fact.account) if fact.account else None
        if not fact.payment or purchase is None or user is None:
            return None
        return insert(self._connection, fact.payment, user, purchase, self._now)

    def _keep_foreign(self, fact: Fact) -> Outcome:
        """A refund or dispute may come before the event that says whose payment it was."""
        if fact.intent and fact.kind in ("refunded", "disputed", "refund_failed"):
            self._connection.execute(
                "DELETE FROM payment_event WHERE payment IS NULL AND note = '' AND time < ?",
                (self._now - _FOREIGN_SECONDS,),
            )
            self._enter(fact, None)
        return "foreign"

    def _enter(self, fact: Fact, payment: Payment | None) -> None:
        self._connection.execute(
            """INSERT INTO payment_event
               (id, time, kind, payment, intent, amount, currency, made_at, refund, note)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '')""",
            (
                fact.event,
                self._now,
                fact.kind,
                None if payment is None else payment.id,
                fact.intent,
                fact.amount,
                fact.currency,
                fact.made_at,
                fact.refund,
            ),
        )

    def _identify(self, payment: Payment, fact: Fact) -> None:
        """Keep Stripe's ids of a payment, and claim the events that came before them."""
        self._connection.execute(
            """UPDATE payment SET session = coalesce(session, nullif(?, '')),
               intent = coalesce(intent, nullif(?, '')) WHERE id = ?""",
            (fact.session, fact.intent, payment.id),
        )
        self._connection.execute(
            """UPDATE payment_event SET payment = ?1 WHERE payment IS NULL AND intent <> ''
               AND intent = (SELECT intent FROM payment WHERE id = ?1)""",
            (payment.id,),
        )

    # --- what it is ---

    def _advance(self, payment: Payment, fact: Fact) -> None:
        """The state of a payment; it is paid only by the price that was asked."""
        if fact.kind not in _ORDER or _ORDER.index(fact.kind) <= _ORDER.index(payment.state):
            return
        if fact.kind != "paid":
            self._set(payment.id, "state = ?", fact.kind)
            return
        if (fact.amount, fact.currency) != (payment.price, payment.currency):
            self._note(fact.event, "price", payment.email)
            return
        year = datetime.fromtimestamp(self._now, UTC).year
        self._set(
            payment.id,
            "state = 'paid', paid_at = ?, invoice_year = ?, invoice_number = ?",
            self._now,
            year,
            self._invoice_number(year, payment.id),
        )

    def _invoice_number(self, year: int, payment_id: str) -> int:
        """The next number. Among nodes, one that dies may have given it out already."""
        if self._number is not None:
            return self._number
        [last] = self._connection.execute(
            "SELECT coalesce(max(invoice_number), 0) FROM payment WHERE invoice_year = ?", (year,)
        ).fetchone()
        if self._shares_numbers:
            raise _NumberNeededError(f"invoice {year}", payment_id, last)
        return int(last) + 1

    def _gathered(self, payment_id: str) -> Payment:
        """The payment with what its refunds and disputes say, in whatever order they came."""
        self._set(
            payment_id,
            """refunded = max(0, min(price, ?)),
               disputed_at = (SELECT min(time) FROM payment_event AS event
                   WHERE event.payment = payment.id AND kind = 'disputed')""",
            self._refunded(payment_id),
        )
        return self._payment(payment_id)

    def _refunded(self, payment_id: str) -> int:
        """The refunded sum: the last total of Stripe, less the refunds that have failed
        since. Stripe counts in seconds; a refund that fails in its own second has failed since."""
        last = self._row(
            """SELECT made_at, amount FROM payment_event WHERE payment = ? AND kind = 'refunded'
               ORDER BY made_at DESC, amount DESC LIMIT 1""",
            payment_id,
        )
        if last is None:
            return 0
        made_at, total = last
        failed = self._connection.execute(
            """SELECT coalesce(sum(amount), 0) FROM (
                   SELECT max(amount) AS amount, min(made_at) AS made_at FROM payment_event
                   WHERE payment = ? AND kind = 'refund_failed' AND refund <> '' GROUP BY refund)
               WHERE made_at >= ?""",
            (payment_id, made_at),
        ).fetchone()[0]
        return int(total - failed)

    # --- what it moves ---

    def _fulfil(self, payment: Payment, fact: Fact) -> None:
        """Hand over what was bought, to an account that is there."""
        user = select_user_by_id(self._connection, payment.user_id)
        if user is None:
            self._note(fact.event, "no_account", payment.email)
            return
        if payment.plan and not {payment.plan, payment.plan_then} <= set(self._offered.plans):
            self._note(fact.event, "no_plan", payment.email)
            return
        if payment.plan:
            new = NewPeriod(payment.plan, payment.seconds, payment.plan_then, payment.id)
            agreed = payment.replaced
            if periods.grant(self._connection, self._actor, user, new, agreed, self._now) is None:
                self._note(fact.event, "other_plan", payment.email)
                return
            self._emit(payment.email, f"{payment.title}: paid")
        else:
            new_credit = NewCredit(
                user.id, payment.credit_micro, payment.title, "payment", payment.id
            )
            balance.add_credit(self._connection, self._actor, new_credit, self._now)
        self._set(payment.id, "fulfilled_at = ?", self._now)

    def _reverse(self, payment_id: str, event: str) -> None:
        """Take back the share of the credit that is refunded, all of it at the end; and give it
        again once the refund has failed."""
        payment = self._payment(payment_id)
        if payment.fulfilled_at is None or not payment.credit_micro:
            return
        due = payment.credit_micro * payment.refunded // payment.price
        if due == payment.reversed_micro:
            return
        about = f"{payment.id}/{event}"
        amount = payment.reversed_micro - due
        new = NewCredit(payment.user_id, amount, payment.title, "reversal", about)
        balance.add_credit(self._connection, self._actor, new, self._now)
        self._set(payment.id, "reversed_micro = ?", due)

    # --- notes ---

    def _note_later_events(self, payment: Payment) -> None:
        """Events that somebody has to act on, once it is known whose they are."""
        notes = {"disputed": "disputed", "refund_failed": "refund_failed"}
        if payment.plan:
            notes["refunded"] = "plan_goes_on"
        noted: set[str] = set()  # one failure may be in several events
        for event, kind, refund, note in self._connection.execute(
            """SELECT id, kind, refund, note FROM payment_event WHERE payment = ?
               ORDER BY note = '', made_at""",
            (payment.id,),
        ).fetchall():
            if not note and kind in notes and refund not in noted:
                self._note(event, notes[kind], payment.email)
            if refund:
                noted.add(refund)

    def _note(self, event: str, note: str, subject: str) -> None:
        self._connection.execute("UPDATE payment_event SET note = ? WHERE id = ?", (note, event))
        self._emit(subject, f"{_WORDS[note]}; see /admin/payments")

    def _emit(self, subject: str, text: str) -> None:
        emit(self._connection, self._now, Event("payment", subject, text))

    # --- rows ---

    def _row(self, query: str, value: str) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(query, (value,)).fetchone()
        return row

    def _payment(self, payment_id: str) -> Payment:
        row = self._row(f"SELECT {COLUMNS} FROM payment WHERE id = ?", payment_id)  # noqa: S608
        assert row is not None
        return Payment(*row)

    def _set(self, payment_id: str, assignment: str, *values: object) -> None:
        self._connection.execute(
            f"UPDATE payment SET {assignment} WHERE id = ?",  # noqa: S608
            (*values, payment_id),
        )


async def open_notes(database: Database, limit: int = 100) -> list[Note]:
    """The notes that administrators have yet to deal with, oldest first."""
    rows = await database.select(
        """SELECT event.id, time, note, event.intent, amount, event.currency, payment, email, title,
               plan FROM payment_event AS event LEFT JOIN payment ON payment.id = event.payment
           WHERE note <> '' AND resolved_at IS NULL ORDER BY time, event.id LIMIT ?""",
        (limit,),
    )
    return [Note(*row) for row in rows]


async def resolve(database: Database, event: str, now: float) -> bool:
    """An administrator has dealt with a note. False: there is no such open one.

    Raises:
        StoreError: SQLite failed.
    """

    def work(connection: sqlite3.Connection) -> bool:
        row = connection.execute(
            """UPDATE payment_event SET resolved_at = ?
               WHERE id = ? AND note <> '' AND resolved_at IS NULL RETURNING note""",
            (now, event),
        ).fetchall()
        if row:
            change = Change("payment.resolve", event, None, {"note": row[0][0]})
            record(connection, database.actor, now, change)
        return bool(row)

    return await database.write(work)

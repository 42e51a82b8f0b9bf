"""Recorded events against a database: what each moves, in any order, once."""

import itertools
import random
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.alerts.messages import title
from relay.alerts.rules import Alert
from relay.payments import events
from relay.payments.events import EventError
from relay.store import balance, periods
from relay.store.audit import AuditFilter, entries
from relay.store.database import Database
from relay.store.events import pending
from relay.store.payment_events import open_notes, resolve
from relay.store.payments import Payment, PaymentFilter, open_payment, payments
from relay.store.sessions import delete_user
from relay.store.users import User, user_by_id
from tests.payments.conftest import NOW, OFFERED, Opens
from tests.payments.recorded import NAMES, event
from tests.payments.taking import CREDIT, moved, seen, take

# --- each event ---


async def test_a_paid_session_brings_its_credit(database: Database, opens: Opens) -> None:
    payment = await opens()
    assert await take(database, event("session_paid", payment)) == "applied"
    assert await moved(database, payment.user_id) == [CREDIT]
    after = await seen(database, payment)
    assert (after.shown, after.invoice, after.paid_at) == ("paid", "2026-0001", NOW)
    assert after.session == "cs_test_" + payment.id[4:]
    [entry] = await balance.statement(database, payment.user_id)
    assert (entry.reason, entry.about) == ("payment", payment.id)
    actions = [one.action for one in await entries(database, AuditFilter())]
    assert actions[:-1] == ["payment.paid", "balance.payment"]
    assert [one.kind for one in await pending(database, 0)] == ["user", "payment"]


async def test_a_paid_session_begins_its_plan(database: Database, opens: Opens) -> None:
    payment = await opens("pro-month")
    await take(database, event("session_paid", payment))
    user = await user_by_id(database, payment.user_id)
    assert user is not None
    assert (user.plan, user.plan_until, user.plan_then) == ("pro", NOW + 30 * 86_400, "free")
    [period] = await periods.list_periods(database, user.id)
    assert (period.kind, period.source) == ("start", payment.id)
    again = await opens("pro-month")
    await take(database, event("session_paid", again), NOW + 86_400)
    user = await user_by_id(database, payment.user_id)
    assert user is not None
    assert user.plan_until == NOW + 60 * 86_400
    assert await moved(database, user.id) == []


@pytest.mark.parametrize("name", NAMES)
async def test_an_event_is_taken_once(database: Database, opens: Opens, name: str) -> None:
    payment = await opens()
    await take(database, event("session_paid", payment))
    await take(database, event(name, payment))
    first = (await seen(database, payment), await moved(database, payment.user_id))
    again = await take(database, event(name, payment))
    assert again in ("repeated", "foreign", "none")
    await take(database, event(name, payment, event="evt_another"))
    assert (await seen(database, payment), await moved(database, payment.user_id)) == first


@pytest.mark.parametrize(
    ("last", "state", "sum_micro"),
    [("session_late_paid", "paid", CREDIT), ("session_late_failed", "failed", 0)],
)
async def test_a_late_payment_is_settled_when_it_ends(
    database: Database, opens: Opens, last: str, state: str, sum_micro: int
) -> None:
    payment = await opens()
    await take(database, event("session_unpaid", payment))
    assert (await seen(database, payment)).shown == "pending"
    assert await moved(database, payment.user_id) == []
    await take(database, event(last, payment))
    assert (await seen(database, payment)).shown == state
    assert sum(await moved(database, payment.user_id)) == sum_micro


async def test_refunds_take_back_their_share(database: Database, opens: Opens) -> None:
    payment = await opens("credit-odd")
    await take(database, event("session_paid", payment))
    for name, taken in [
        ("charge_refunded_part", 7_654_321 * 333 // 2000),
        ("charge_refunded_more", 7_654_321 * 1001 // 2000),
        ("charge_refunded_rest", 7_654_321),
    ]:
        await take(database, event(name, payment))
        assert sum(await moved(database, payment.user_id)) == 7_654_321 - taken
    after = await seen(database, payment)
    assert (after.shown, after.reversed_micro) == ("refunded", 7_654_321)
    assert len(await moved(database, payment.user_id)) == 4


async def test_a_refund_of_a_plan_is_noted(database: Database, opens: Opens) -> None:
    payment = await opens("pro-month")
    await take(database, event("session_paid", payment))
    assert await take(database, event("charge_refunded_rest", payment)) == "noted"
    [note] = await open_notes(database)
    assert (note.note, note.plan) == ("plan_goes_on", "pro")
    assert await moved(database, payment.user_id) == []


@pytest.mark.parametrize(
    ("name", "word"), [("dispute_created", "disputed"), ("refund_failed", "refund_failed")]
)
async def test_what_needs_somebody_is_noted(
    database: Database, opens: Opens, name: str, word: str
) -> None:
    payment = await opens()
    await take(database, event("session_paid", payment))
    assert await take(database, event(name, payment)) == "noted"
    [note] = await open_notes(database)
    assert (note.note, note.payment, note.email) == (word, payment.id, payment.email)
    alert = (await pending(database, 0))[-1]
    assert (alert.kind, alert.subject) == ("payment", payment.email)
    assert "/admin/payments" in alert.text
    occurred = Alert("payment", alert.subject, "occurred", alert.text, NOW, NOW)
    assert "credited" not in title(occurred)
    assert await resolve(database, note.event, NOW)
    assert not await resolve(database, note.event, NOW)
    assert await open_notes(database) == []
    assert await moved(database, payment.user_id) == [CREDIT]


# --- whose it is ---


@pytest.mark.parametrize(
    "name", ["session_of_others", "charge_refunded_of_others", "dispute_created", "refund_failed"]
)
async def test_payments_of_others_are_ignored(database: Database, user: User, name: str) -> None:
    assert await take(database, event(name)) == "foreign"
    assert await open_notes(database) == []
    assert await moved(database, user.id) == []


async def test_events_of_others_are_not_kept_for_good(database: Database) -> None:
    await take(database, event("dispute_created", event="evt_1"), NOW)
    await take(database, event("dispute_created", event="evt_2"), NOW + 31 * 86_400)
    rows = await database.select("SELECT id FROM payment_event")
    assert rows == [("evt_2",)]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"relay_account": "usr_gone"}, id="account"),
        pytest.param({"relay_offer": "gone"}, id="offer"),
    ],
)
async def test_an_unknown_payment_is_noted(
    database: Database, user: User, change: dict[str, str]
) -> None:
    known = {"relay_payment": "pay_1", "relay_account": user.id, "relay_offer": "credit-20"}
    body = event("session_paid", metadata={**known, **change})
    assert await take(database, body) == "noted"
    [note] = await open_notes(database)
    assert (note.note, note.payment, note.intent) == ("unknown", None, "pi_unknown")
    assert await take(database, body) == "repeated"


async def test_a_payment_whose_row_is_gone_is_made_anew(database: Database, opens: Opens) -> None:
    payment = await opens()
    await database.write(lambda connection: connection.execute("DELETE FROM payment"))
    assert await take(database, event("session_paid", payment)) == "applied"
    assert await moved(database, payment.user_id) == [CREDIT]
    assert (await seen(database, payment)).invoice == "2026-0001"


@pytest.mark.parametrize("name", ["session_expired", "session_late_failed", "session_unpaid"])
async def test_what_was_not_paid_and_is_gone_stays_gone(
    database: Database, user: User, name: str
) -> None:
    assert await take(database, event(name)) == "foreign"
    assert await open_notes(database) == []
    assert (await payments(database, PaymentFilter())).rows == []


async def test_a_refund_waits_for_a_payment_whose_row_is_gone(
    database: Database, opens: Opens
) -> None:
    payment = await opens()
    await database.write(lambda connection: connection.execute("DELETE FROM payment"))
    assert await take(database, event("charge_refunded_rest", payment)) == "foreign"
    await take(database, event("session_paid", payment))
    assert await moved(database, payment.user_id) == [CREDIT, -CREDIT]


async def test_a_payment_for_a_deleted_account_is_noted(database: Database, opens: Opens) -> None:
    payment = await opens()
    await delete_user(database, payment.user_id, NOW)
    assert await take(database, event("session_paid", payment)) == "noted"
    [note] = await open_notes(database)
    assert note.note == "no_account"
    assert await moved(database, payment.user_id) == []
    after = await seen(database, payment)
    assert (after.invoice, after.fulfilled_at) == ("2026-0001", None)
    await take(database, event("charge_refunded_rest", payment))
    assert await moved(database, payment.user_id) == []


async def test_a_plan_that_is_gone_is_noted(database: Database, opens: Opens) -> None:
    payment = await opens("pro-month")
    offered = replace(OFFERED, plans=frozenset({"free"}))
    assert await take(database, event("session_paid", payment), offered=offered) == "noted"
    assert (await open_notes(database))[0].note == "no_plan"


@pytest.mark.parametrize("change", [{"amount_total": 1999}, {"currency": "jpy"}])
async def test_another_price_is_noted(
    database: Database, opens: Opens, change: dict[str, Any]
) -> None:
    payment = await opens()
    assert await take(database, event("session_paid", payment, **change)) == "noted"
    assert (await open_notes(database))[0].note == "price"
    assert (await seen(database, payment)).shown == "open"
    assert await moved(database, payment.user_id) == []


# --- order ---

ORDERED = (
    "session_unpaid", "session_late_paid", "charge_refunded_part", "charge_refunded_more",
    "dispute_created",
)  # fmt: skip


async def outcome(database: Database, user: User, offer: str, names: Any) -> Any:
    """What a payment is in the end."""
    payment = await open_payment(database, user, OFFERED.purchases[offer], NOW)
    before = await balance.balance_of(database, user.id)
    for name in names:
        await take(database, event(name, payment))
    after = await seen(database, payment)
    notes = sorted(one.note for one in await open_notes(database, 10**6) if one.payment == after.id)
    credit = await balance.balance_of(database, user.id) - before
    assert credit == after.credit_micro - after.reversed_micro
    return credit, after.shown, after.state, after.refunded, bool(after.disputed_at), notes


@pytest.mark.parametrize("offer", ["credit-odd", "pro-month"])
async def test_every_order_ends_alike(database: Database, user: User, offer: str) -> None:
    expected = await outcome(database, user, offer, ORDERED)
    assert expected[1] == "disputed"
    for names in itertools.permutations(ORDERED):
        assert await outcome(database, user, offer, names) == expected, names


@settings(
    max_examples=max(25, settings().max_examples // 4),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
async def test_repetitions_change_nothing(database: Database, user: User, data: Any) -> None:
    names = data.draw(st.lists(st.sampled_from(NAMES), unique=True))
    more = data.draw(st.permutations(names + names))
    offer = data.draw(st.sampled_from(["credit-20", "credit-odd"]))
    payment_names = [name for name in names if "others" not in name]
    expected = await outcome_or_none(database, user, offer, payment_names)
    assert await outcome_or_none(database, user, offer, more) == expected


async def outcome_or_none(database: Database, user: User, offer: str, names: Any) -> Any:
    """As `outcome`, for events among which there may be none that says that it is paid."""
    payment = await open_payment(database, user, OFFERED.purchases[offer], NOW)
    before = await balance.balance_of(database, user.id)
    for name in names:
        await take(database, event(name, payment))
    after = await seen(database, payment)
    return await balance.balance_of(database, user.id) - before, after.shown, after.refunded


async def test_money_agrees_after_a_random_run(database: Database, user: User) -> None:
    """Payments, refunds, credits by the operator and charges, in random order with repetitions."""
    dice = random.Random()
    bodies: list[bytes] = []
    opened: list[Payment] = []
    for _ in range(40):
        offer = dice.choice(list(OFFERED.purchases.values()))
        opened.append(await open_payment(database, user, offer, NOW))
        names = dice.sample(NAMES, dice.randint(1, 6))
        bodies += [event(name, opened[-1]) for name in names * 2]
        if len(opened) % 10 == 0:  # before the oldest open ones go
            dice.shuffle(bodies)
            while bodies:
                await take(database, bodies.pop())
                if dice.random() < 0.2:
                    await balance.credit(database, user.id, dice.randint(1, 10**7), "", NOW)
                if dice.random() < 0.2:
                    await charge(database, user.id, dice.randint(1, 10**7), dice)
    rows = await database.select(
        "SELECT reason, kind, sum(amount_micro) FROM statement GROUP BY 1, 2"
    )
    sums = {(reason, kind): amount for reason, kind, amount in rows}
    paid = (await payments(database, PaymentFilter(user_id=user.id), 1000)).rows
    got = [one for one in paid if one.fulfilled_at is not None]
    assert sums.get(("payment", "credit"), 0) == sum(one.credit_micro for one in got)
    assert -sums.get(("reversal", "credit"), 0) == sum(one.reversed_micro for one in got)
    assert all(one.reversed_micro == one.credit_micro * one.refunded // one.price for one in got)
    [[credited, charged, micro]] = await database.select(
        "SELECT credited, charged, micro FROM balance"
    )
    assert micro == credited - charged == sum(sums.values())
    assert charged == -sums[("", "charge")]
    numbers = sorted(one.invoice_number or 0 for one in paid if one.paid_at)
    assert numbers == list(range(1, len(numbers) + 1))


async def charge(database: Database, user_id: str, micro: int, dice: random.Random) -> None:
    """A request that draws from the balance, as the journal writes it."""
    await database.write(
        lambda connection: connection.execute(
            """INSERT INTO statement (user_id, time, kind, amount_micro, balance_after, request_id)
               VALUES (?1, ?2, 'charge', -?3,
                   coalesce((SELECT micro FROM balance WHERE user_id = ?1), 0) - ?3, ?4)""",
            (user_id, NOW, micro, f"req_{dice.random()}"),
        )
    )


# --- rows ---


async def test_open_payments_are_bounded(database: Database, opens: Opens, user: User) -> None:
    kept = await opens()
    await take(database, event("session_paid", kept))
    for _ in range(30):
        await opens()
    page = await payments(database, PaymentFilter(user_id=user.id))
    assert [one.state for one in page.rows] == ["open"] * 20 + ["paid"]


async def test_a_payment_is_never_deleted(database: Database, opens: Opens) -> None:
    await take(database, event("session_paid", await opens()))
    with pytest.raises(Exception, match="never deleted"):
        await database.write(lambda connection: connection.execute("DELETE FROM payment"))


async def test_numbers_begin_anew_each_year(database: Database, opens: Opens) -> None:
    year = 366 * 86_400
    got = []
    for moment in (NOW, NOW + 1, NOW + year):
        payment = await opens()
        await take(database, event("session_paid", payment), moment)
        got.append((await seen(database, payment)).invoice)
    assert got == ["2026-0001", "2026-0002", "2027-0001"]


# --- reading ---


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"\xff", b'{"id": "evt_1", "type": "charge.refunded"}',
        b'{"id": 1, "type": "charge.refunded", "data": {"object": {}}}',
        event("charge_refunded_part", amount_refunded="5"),
        event("charge_refunded_part", amount_refunded=-1),
        event("charge_refunded_part", amount_refunded=2**60),
        event("session_paid", metadata=5),
        event("session_paid", event=""),
    ],
)  # fmt: skip
def test_what_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(EventError):
        events.read(body)


def test_an_event_of_another_kind_is_not_read() -> None:
    assert events.read(event("customer_created")) is None
    tree = msgspec.json.decode(event("customer_created"))
    tree["data"]["object"] = 5
    assert events.read(msgspec.json.encode(tree)) is None

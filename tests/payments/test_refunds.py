"""Refunds that fail and are made again, and plans that a payment may not take away."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.store import balance, periods
from relay.store.database import Database
from relay.store.payment_events import open_notes
from relay.store.payments import Payment, open_payment
from relay.store.periods import NewPeriod, Present
from relay.store.users import User, set_plan, user_by_id
from tests.payments.conftest import NOW, OFFERED, Opens
from tests.payments.recorded import event
from tests.payments.taking import CREDIT, moved, seen, take

# --- plans ---

OTHER = NewPeriod("max", 86_400, "free", "test")


async def test_a_plan_without_an_end_is_not_shortened(database: Database, opens: Opens) -> None:
    payment = await opens("pro-month")
    await set_plan(database, payment.email, "pro")
    assert await take(database, event("session_paid", payment)) == "noted"
    [note] = await open_notes(database)
    assert (note.note, note.plan) == ("other_plan", "pro")
    user = await user_by_id(database, payment.user_id)
    assert user is not None
    assert (user.plan, user.plan_until) == ("pro", None)
    assert (await seen(database, payment)).fulfilled_at is None


@pytest.mark.parametrize("until", [None, NOW + 50.0, NOW + 86_400.0, NOW + 90_000.0])
async def test_another_plan_ends_only_by_agreement(
    database: Database, user: User, until: float | None
) -> None:
    """A period that has become longer than the one that was agreed to be given up stays."""
    await periods.start_now(database, user, OTHER, NOW)
    purchase, agreed = OFFERED.purchases["pro-month"], Present("max", until)
    payment = await open_payment(database, user, purchase, NOW, agreed)
    outcome = await take(database, event("session_paid", payment), NOW + 10)
    after = await user_by_id(database, user.id)
    assert after is not None
    if until == NOW + 50.0:
        assert (outcome, after.plan, after.plan_until) == ("noted", "max", NOW + 86_400)
    else:
        assert (outcome, after.plan, after.plan_until) == ("applied", "pro", NOW + 10 + 30 * 86_400)


async def test_an_extension_keeps_the_plan_that_follows(
    database: Database, user: User, opens: Opens
) -> None:
    await periods.start_now(database, user, NewPeriod("pro", 86_400, "paid", "test"), NOW)
    await take(database, event("session_paid", await opens("pro-month")))
    after = await user_by_id(database, user.id)
    assert after is not None
    assert (after.plan_until, after.plan_then) == (NOW + 31 * 86_400, "paid")


# --- refunds that fail ---


def refunds(payment: Payment) -> list[bytes]:
    """A refund, its failure in the three events that may report it, the refund again."""
    again = {"event": f"evt_again_{payment.id}", "created": 1_796_500_000}
    failures = [
        event("refund_failed", payment, event=f"evt_{kind}_{payment.id}", type=kind)
        for kind in ("refund.failed", "refund.updated", "charge.refund.updated")
    ]
    return [
        event("session_paid", payment),
        event("charge_refunded_part", payment),
        *failures,
        event("charge_refunded_part", payment, **again),
    ]


async def test_a_refund_that_fails_is_taken_back_once(database: Database, opens: Opens) -> None:
    payment = await opens()
    share = CREDIT * 333 // 2000
    expected = [CREDIT, CREDIT - share, CREDIT, CREDIT, CREDIT, CREDIT - share]
    for body, balanced in zip(refunds(payment), expected, strict=True):
        await take(database, body)
        assert sum(await moved(database, payment.user_id)) == balanced
    assert (await seen(database, payment)).shown == "partly_refunded"
    assert [one.note for one in await open_notes(database)] == ["refund_failed"]
    assert await moved(database, payment.user_id) == [CREDIT, -share, share, -share]


@pytest.mark.parametrize("last", ["succeeded", "pending"])
async def test_a_refund_that_goes_well_is_no_failure(
    database: Database, opens: Opens, last: str
) -> None:
    payment = await opens()
    body = event("refund_failed", payment, type="refund.updated", status=last)
    assert await take(database, body) == "none"


@pytest.mark.parametrize("offer", ["credit-odd", "pro-month"])
@settings(
    max_examples=max(30, settings().max_examples // 4),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
async def test_refunds_end_alike_in_any_order(
    database: Database, user: User, data: Any, offer: str
) -> None:
    """Refunds, failures, a dispute, all of them any number of times."""
    await set_plan(database, user.email, "free")
    payment = await open_payment(database, user, OFFERED.purchases[offer], NOW)
    before = await balance.balance_of(database, user.id)
    bodies = [*refunds(payment), event("dispute_created", payment)]
    more = data.draw(st.lists(st.sampled_from(bodies), max_size=6))
    for body in data.draw(st.permutations(bodies + more)):
        await take(database, body)
    after = await seen(database, payment)
    assert (after.refunded, after.shown) == (333, "disputed")
    credit = await balance.balance_of(database, user.id) - before
    assert credit == after.credit_micro - after.credit_micro * 333 // 2000
    notes = [one.note for one in await open_notes(database, 10**6) if one.payment == after.id]
    goes_on = ["plan_goes_on"] * 2 if after.plan else []
    assert sorted(notes) == ["disputed", *goes_on, "refund_failed"]
    person = await user_by_id(database, user.id)
    assert person is not None
    assert person.plan_until == (NOW + 30 * 86_400 if after.plan else None)

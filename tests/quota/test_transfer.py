"""A ledger that is handed over goes on as if one process had counted all along."""

from typing import Any

import pytest

from relay.quota.ledger import Ledger
from relay.quota.plans import Plan
from relay.quota.state import Reservation
from relay.quota.transfer import (
    RemoteReservation,
    Share,
    close,
    describe,
    hold,
    join,
    state_of,
)

from .plans import FREE, START, plan
from .rows import all_rows, balance_of

LATER = START + 30
ENDS: dict[str, tuple[int | None, int | None] | None] = {
    "nothing used": None,
    "as held": (None, None),
    "less": (40, 70),
    "more": (900, 5000),
}
PLANS: dict[str, Plan] = {
    "limits": plan(*FREE),
    "per-token": plan(*FREE, billing="per-token"),
}


def reserved(one: Plan, times: int = 1) -> tuple[Ledger, list[Reservation]]:
    ledger = Ledger()
    ledger.fund("a", 1_000_000)
    cost = 300 if one.prepaid else 0
    made = [ledger.reserve("a", "k", one, START, tokens=100, cost=cost) for _ in range(times)]
    return ledger, made


def taken_over(old: Ledger, one: Plan, *others: Share) -> Ledger:
    """A new process's ledger; its database has the credit."""
    new = Ledger()
    new.fund("a", 1_000_000)
    join(new, state_of(old, others))
    new.key_state("a", "k", one, START)
    return new


def seen(ledger: Ledger, one: Plan) -> list[Any]:
    views = ledger.view("a", "k", one, LATER)
    in_flight = [(state.key, state.in_flight) for state in ledger.key_states()]
    held = [(each.account, each.amount, each.held) for each in ledger.balances()]
    return [views, in_flight, dict(ledger.inherited), held, sorted(map(repr, all_rows(ledger)))]


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("end", ENDS)
def test_a_request_ends_alike_here_and_in_another_process(name: str, end: str) -> None:
    one, use = PLANS[name], ENDS[end]
    old, [reservation, _] = reserved(one, times=2)
    new = taken_over(old, one)
    assert seen(new, one) == seen(old, one)
    close(new, describe(reservation), LATER, use)
    if use is None:
        old.refund(reservation, LATER)
    else:
        old.settle(reservation, LATER, *use)
    assert seen(new, one) == seen(old, one)


def test_a_description_describes_itself() -> None:
    _, [reservation] = reserved(PLANS["limits"])
    held = describe(reservation)
    assert held.requests
    assert held.tokens
    remote = RemoteReservation.__new__(RemoteReservation)
    remote.held = held
    assert describe(remote) is held


def test_an_older_process_keeps_its_own_share() -> None:
    one = PLANS["per-token"]
    old, [first, second] = reserved(one, times=2)
    share = Share()
    share.add(describe(first))
    both = Share()
    both.include(share)
    both.add(describe(second))
    assert both == state_of(old, []).share
    new = taken_over(old, one, share)  # of the older process, which reports it itself
    assert [each.held for each in new.balances()] == [300]
    hold(new, share)
    assert [each.held for each in new.balances()] == [600]
    hold(new, share, -1)
    both.subtract(share)
    both.add(describe(second), -1)
    assert both == Share()
    assert balance_of(new, "a") == balance_of(old, "a")


def test_a_key_that_is_not_known_yet_counts_once_it_is() -> None:
    one = PLANS["limits"]
    old, [reservation] = reserved(one)
    new = Ledger()
    join(new, state_of(old, []))
    assert new.inherited == {"k": 1}
    assert state_of(new, []).share.keys == {"k": 1}
    assert new.key_state("a", "k", one, START).in_flight == 1
    assert new.inherited == {}
    close(new, describe(reservation), LATER, None)
    assert [state.in_flight for state in new.key_states()] == [0]


def test_a_limit_that_is_gone_is_left_out() -> None:
    one = PLANS["limits"]
    old, [reservation] = reserved(one)
    new = Ledger()
    fewer = plan({"requests": 40, "per": "5h"})
    new.key_state("a", "k", fewer, START)
    join(new, state_of(old, []))
    for use in ENDS.values():
        close(new, describe(reservation), LATER, use)
    [view] = new.view("a", "k", fewer, LATER)
    assert view.remaining == 40


def test_the_end_of_each_request_is_reported() -> None:
    ended: list[Any] = []
    ledger, [first, second] = reserved(PLANS["limits"], times=2)
    ledger.on_close = lambda reservation, use: ended.append((reservation, use))
    assert ledger.settle(first, LATER, 5, 6)
    assert ledger.refund(second, LATER)
    assert not ledger.refund(first, LATER)
    assert ended == [(first, (5, 6)), (second, None)]

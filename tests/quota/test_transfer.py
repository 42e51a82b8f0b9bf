"""A ledger that takes over another's state goes on as that one would have."""

from collections.abc import Sequence
from typing import TypeAlias, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.quota.exceeded import QuotaExceeded
from relay.quota.held import HeldQuota, Share, State
from relay.quota.holdings import Use
from relay.quota.ledger import Ledger
from relay.quota.state import Reservation
from relay.quota.transfer import RemoteReservation, close, describe, hold, join, state_of

from .plans import START, plan
from .rows import all_rows, balance_of

LIMITS = [
    {"requests": 6, "per": "5h"},
    {"requests": 20, "per": "1m"},
    {"tokens": 1000, "per": "1m"},
    {"tokens": 3000, "per": "1d"},
]
PLANS = {
    "own limits": plan(*LIMITS, max_concurrency=3),
    "shared limits": plan(*LIMITS, enforce="account"),
    "paid": plan(*LIMITS[2:], billing="per-token", max_concurrency=3),
}
CREDIT = 1000
KEYS = ["k1", "k2"]
USES: list[Use] = [
    None,
    (0, 0),
    (100, 50),
    (120, 70),  # more than the estimate
    (250, None),
    (None, 30),
    (None, None),
]
Struct = TypeVar("Struct", HeldQuota, Share, State)


def sent(value: Struct) -> Struct:
    """The value as the other process reads it."""
    return msgspec.json.decode(msgspec.json.encode(value), type=type(value))


def funded() -> Ledger:
    ledger = Ledger()
    ledger.fund("a", CREDIT)
    return ledger


def in_flight(ledger: Ledger) -> dict[str, int]:
    """The requests in flight by owner of limits and by key, where there are any."""
    numbers = {f"{one.scope}/{one.owner}": one.in_flight for one in ledger.counters()}
    numbers |= {state.key: state.in_flight for state in ledger.key_states()}
    return {name: number for name, number in (numbers | ledger.inherited).items() if number}


def held_money(ledger: Ledger) -> int:
    return sum(balance.held for balance in ledger.balances())


def end(ledger: Ledger, reservation: Reservation, use: Use, now: float) -> None:
    if use is None:
        assert ledger.refund(reservation, now)
    else:
        assert ledger.settle(reservation, now, *use)


def same(one: Ledger, other: Ledger) -> bool:
    """Whether both know the same use, money and requests in flight."""
    return (
        sorted(all_rows(one)) == sorted(all_rows(other))
        and balance_of(one, "a") == balance_of(other, "a")
        and in_flight(one) == in_flight(other)
        and held_money(one) == held_money(other)
    )


Step: TypeAlias = tuple[str, int, int]  # key, estimated tokens, seconds until then
End: TypeAlias = tuple[int, Use, int]  # number of the request, its use, seconds until then
STEPS = st.lists(
    st.tuples(st.sampled_from(KEYS), st.integers(0, 300), st.integers(0, 40)), max_size=8
)
ENDS = st.lists(st.tuples(st.integers(0, 7), st.sampled_from(USES), st.integers(0, 40)), max_size=8)


class Pair:
    """One ledger that serves alone, and beside it two, of which the second takes over."""

    def __init__(self, name: str) -> None:
        self.plan = PLANS[name]
        self.alone, self.old, self.new = funded(), funded(), funded()
        self.now = START
        self.open: list[tuple[Reservation, Reservation]] = []  # alone, and with the other two
        self.closed: list[tuple[HeldQuota, Use]] = []

    def reserve(self, ledger: Ledger, steps: Sequence[Step]) -> None:
        for key, tokens, seconds in steps:
            self.now += seconds
            both = [self._reserved(one, key, tokens) for one in (self.alone, ledger)]
            assert (both[0] is None) == (both[1] is None)
            if both[0] is not None and both[1] is not None:
                self.open.append((both[0], both[1]))

    def _reserved(self, ledger: Ledger, key: str, tokens: int) -> Reservation | None:
        try:
            return ledger.reserve("a", key, self.plan, self.now, tokens, cost=tokens)
        except QuotaExceeded:
            return None

    def write(self) -> None:
        """The journal writes the changes, so the database has them for the new ledger."""
        self.new.restore(self.old.changes())

    def hand_over(self) -> None:
        join(self.new, sent(state_of(self.old, [])))
        self.old.on_close = lambda one, use: self.closed.append((sent(describe(one)), use))

    def end(self, ends: Sequence[End], of_old: int) -> None:
        """End requests; the first `of_old` began before the hand-over."""
        for number, use, seconds in ends:
            if number >= len(self.open) or not self.open[number][0].open:
                continue
            self.now += seconds
            expected, reservation = self.open[number]
            end(self.alone, expected, use, self.now)
            if number >= of_old:
                end(self.new, reservation, use, self.now)
                continue
            end(self.old, reservation, use, self.now)
            held, closed_use = self.closed.pop()
            close(self.new, held, self.now, closed_use)


@pytest.mark.parametrize("name", PLANS)
@given(STEPS, STEPS, ENDS, STEPS, ENDS)
def test_a_ledger_that_takes_over_goes_on_as_the_one_before(
    name: str,
    written: list[Step],
    unwritten: list[Step],
    first_ends: list[End],
    later: list[Step],
    ends: list[End],
) -> None:
    pair = Pair(name)
    pair.reserve(pair.old, written)
    pair.write()
    pair.reserve(pair.old, unwritten)
    pair.hand_over()
    assert same(pair.alone, pair.new)
    of_old = len(pair.open)
    pair.end(first_ends, of_old)
    assert same(pair.alone, pair.new)
    pair.reserve(pair.new, later)
    pair.end(ends, of_old)
    assert same(pair.alone, pair.new)
    pair.end([(number, None, 0) for number in range(len(pair.open))], of_old)
    assert (in_flight(pair.new), held_money(pair.new)) == ({}, 0)
    assert same(pair.alone, pair.new)


@pytest.mark.parametrize("name", PLANS)
def test_a_process_that_dies_holds_nothing_any_more(name: str) -> None:
    pair = Pair(name)
    pair.reserve(pair.old, [("k1", 100, 0), ("k2", 100, 0)])
    state = sent(state_of(pair.old, []))
    join(pair.new, state)
    before = sorted(all_rows(pair.new))
    assert (in_flight(pair.new), held_money(pair.new)) == (
        in_flight(pair.old),
        held_money(pair.old),
    )
    hold(pair.new, state.share, -1)
    assert (in_flight(pair.new), held_money(pair.new)) == ({}, 0)
    assert sorted(all_rows(pair.new)) == before  # what was used stays used


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("used", [False, True], ids=["unseen-key", "key-in-use"])
def test_a_third_process_counts_the_requests_of_both_before(name: str, used: bool) -> None:
    first, second, third = funded(), funded(), funded()
    oldest = first.reserve("a", "k1", PLANS[name], START, 100, 100)
    state = sent(state_of(first, []))
    join(second, state)
    keys = ["k1", "k2"] if used else ["k2"]
    newer = [second.reserve("a", key, PLANS[name], START, 100, 100) for key in keys]
    own = sent(state_of(second, [state.share]))
    assert sum(own.share.keys.values()) == len(keys)
    third.restore(state.rows)  # the second has them in its database
    join(third, own)
    hold(third, state.share)
    assert same(second, third)
    for reservation in (oldest, *newer):
        close(third, describe(reservation), START, (100, 100))
    assert (in_flight(third), held_money(third)) == ({}, 0)
    paid = 100 * (1 + len(keys)) if PLANS[name].prepaid else 0
    assert balance_of(third, "a") == CREDIT - paid


def reserved(ledger: Ledger, name: str = "paid") -> Reservation:
    return ledger.reserve("a", "k1", PLANS[name], START, 100, 100)


def test_shares_add_up_and_leave_nothing_when_subtracted() -> None:
    one, other, both = Share(), Share(), Share()
    first, second = describe(reserved(funded())), describe(reserved(funded(), "own limits"))
    one.add(first)
    other.add(second)
    other.add(second)
    both.include(one)
    both.include(other)
    assert both == Share({"k1": 3}, {"key/k1": 3}, {"a": 100})
    both.subtract(other)
    assert both == one
    both.add(first, -1)
    assert both == Share()


@pytest.mark.parametrize("name", PLANS)
def test_the_share_of_one_reservation_is_that_of_its_ledger(name: str) -> None:
    ledger, share = funded(), Share()
    share.add(describe(reserved(ledger, name)))
    assert state_of(ledger, []).share == share


def test_a_reservation_of_another_process_is_described_as_there() -> None:
    ledger, there = funded(), funded()
    held = describe(reserved(there))
    state = ledger.key_state("a", "k1", PLANS["paid"], START)
    remote = RemoteReservation(state, state.counters, [], [], state.balance, 0)
    remote.held = held
    assert describe(remote) is held


@pytest.mark.parametrize("use", USES, ids=repr)
def test_a_request_ends_where_its_limits_are_unknown(use: Use) -> None:
    old, new = funded(), funded()
    held = describe(reserved(old, "own limits"))
    state = state_of(old, [])
    state.rows.clear()  # the database has lost them
    join(new, sent(state))
    assert in_flight(new) == in_flight(old)
    close(new, held, START, use)
    assert in_flight(new) == {}
    assert [row for row in all_rows(new) if row[2] != "money"] == []


def test_a_limit_that_refills_otherwise_now_is_left_out() -> None:
    ledger = funded()
    reservation = reserved(ledger, "own limits")
    smooth = plan(*[limit | {"refill": "smooth"} for limit in LIMITS])
    ledger.key_state("a", "k1", smooth, START)
    held = describe(reservation)
    assert held.requests == []
    assert [(kind, per, amount) for kind, per, amount, _ in held.tokens] == [("tokens", 60, 100)]
    assert state_of(ledger, []).share == Share({"k1": 1}, {"key/k1": 1})


def test_unwritten_rows_are_written_by_the_new_process() -> None:
    """As where the old one's journal could not write at the end."""
    old = funded()
    ended = old.reserve("a", "k1", PLANS["paid"], START, 100, 50)
    assert old.settle(ended, START, 100, 50)
    new = funded()
    state = sent(state_of(old, []))
    assert state.rows
    join(new, state)
    assert sorted(new.changes()) == sorted(state.rows)
    assert new.changes() == []

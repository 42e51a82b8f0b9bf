"""Resets, bonuses and the ends of periods."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.quota import adjustments
from relay.quota.bucket import FixedWindow, new_bucket
from relay.quota.exceeded import QuotaExceeded
from relay.quota.ledger import Ledger
from relay.quota.state import Row

from .plans import START, plan
from .rows import all_rows

HOURS, WEEK = ("requests", 18_000), ("requests", 604_800)
PLAN = plan({"requests": 4, "per": "5h"}, {"requests": 9, "per": "7d"}, enforce="account")
OWNERS = adjustments.owners_of("a", ["k"])
OWNER = ("account", "a")
DAY = 86_400.0


def used(ledger: Ledger, count: int, now: float) -> None:
    for _ in range(count):
        ledger.settle(ledger.reserve("a", "k", PLAN, now), now)


def left(ledger: Ledger, now: float) -> list[tuple[int, float]]:
    """Remaining and reset of each limit."""
    return [(one.remaining, one.reset) for one in ledger.view("a", "k", PLAN, now)]


def windows(ledger: Ledger, now: float, count: int) -> list[int]:
    """How many requests each of the next windows of five hours takes."""
    sizes = []
    for _ in range(count):
        taken = 0
        while True:
            try:
                ledger.refund(ledger.reserve("a", "k", PLAN, now), now)
                used(ledger, 1, now)
            except QuotaExceeded:
                break
            adjustments.reset(ledger, OWNERS, WEEK, now)
            taken += 1
        sizes.append(taken)
        now += 18_000
    return sizes


def copied(ledger: Ledger) -> Ledger:
    """The ledger of a process that starts with this one's rows."""
    other = Ledger()
    rows: list[Row] = all_rows(ledger)
    other.restore(rows)
    return other


def test_a_reset_fills_one_window_and_keeps_its_anchor() -> None:
    ledger = Ledger()
    used(ledger, 4, START)
    before = left(ledger, START + 60)
    assert adjustments.reset(ledger, OWNERS, HOURS, START + 60) == 1
    assert left(ledger, START + 60) == [(4, before[0][1]), before[1]]
    assert left(copied(ledger), START + 60) == left(ledger, START + 60)


def test_what_was_in_flight_at_a_reset_is_given_back_nowhere() -> None:
    ledger = Ledger()
    held = ledger.reserve("a", "k", PLAN, START)
    adjustments.reset(ledger, OWNERS, HOURS, START)
    used(ledger, 1, START)
    ledger.refund(held, START)
    assert left(ledger, START)[0][0] == 3


def test_a_reset_of_a_limit_that_nobody_used_changes_nothing() -> None:
    assert adjustments.reset(Ledger(), OWNERS, HOURS, START) == 0


@given(
    amount=st.integers(1, 5),
    count=st.integers(1, 4),
    opened=st.booleans(),
    restarts=st.booleans(),
)
def test_a_bonus_is_for_so_many_windows(
    amount: int, count: int, opened: bool, restarts: bool
) -> None:
    ledger = Ledger()
    if opened:
        used(ledger, 1, START)
    bonus = (*HOURS, amount, count)
    assert adjustments.give_bonus(ledger, OWNER, PLAN, bonus, START)
    if restarts:
        ledger = copied(ledger)
    sizes = windows(ledger, START, count + 2)
    first = 4 + amount - opened
    assert sizes == [first, *([4 + amount] * (count - 1)), 4, 4]


def test_a_bonus_outlasts_restarts_in_every_window() -> None:
    ledger, now, sizes = Ledger(), START, []
    adjustments.give_bonus(ledger, OWNER, PLAN, (*HOURS, 2, 3), now)
    for _ in range(5):
        sizes += windows(ledger, now, 1)
        now += 18_000
        ledger = copied(ledger)
    assert sizes == [6, 6, 6, 4, 4]


def test_a_window_that_was_not_used_after_all_uses_no_bonus() -> None:
    ledger = Ledger()
    adjustments.give_bonus(ledger, OWNER, PLAN, (*HOURS, 2, 1), START)
    ledger.refund(ledger.reserve("a", "k", PLAN, START), START)
    assert windows(ledger, START + 18_000, 2) == [6, 4]


def test_a_bonus_is_replaced_and_ended() -> None:
    ledger = Ledger()
    adjustments.give_bonus(ledger, OWNER, PLAN, (*HOURS, 2, 9), START)
    adjustments.give_bonus(ledger, OWNER, PLAN, (*HOURS, 5, 1), START)
    assert windows(ledger, START, 2) == [9, 4]
    adjustments.give_bonus(ledger, OWNER, PLAN, (*HOURS, 5, 9), START + DAY)
    adjustments.give_bonus(ledger, OWNER, PLAN, (*HOURS, 0, 0), START + DAY)
    assert windows(ledger, START + DAY, 2) == [4, 4]


def test_a_limit_that_refills_all_the_time_has_no_bonus() -> None:
    smooth = plan({"requests": 4, "per": "1m"}, enforce="account")
    bonus = ("requests", 60, 2, 1)
    assert not adjustments.give_bonus(Ledger(), OWNER, smooth, bonus, START)
    assert not adjustments.give_bonus(Ledger(), OWNER, smooth, (*HOURS, 2, 1), START)


def test_a_pending_bonus_is_not_swept() -> None:
    ledger = Ledger()
    ledger.key_state("a", "k", PLAN, START)
    adjustments.give_bonus(ledger, OWNER, PLAN, (*HOURS, 2, 1), START)
    ledger.changes()
    ledger.sweep(START + 30 * DAY)
    assert windows(ledger, START + 30 * DAY, 1) == [6]


def test_a_renewal_ends_all_windows() -> None:
    ledger = Ledger()
    used(ledger, 4, START)
    adjustments.renew(ledger, OWNERS, START + 60)
    assert left(ledger, START + 60) == [(4, START + 60), (9, START + 60)]


@given(ends=st.integers(1, 700_000), begins=st.integers(-700_000, 700_000))
def test_no_window_outlasts_its_period(ends: int, begins: int) -> None:
    """A window that opens before the end of a period ends with it at the latest."""
    until = int(START) + ends
    ledger = Ledger()
    ledger.end_periods({"a": until * 1000})
    now = float(int(START) + begins)
    used(ledger, 1, now)
    for (_, reset), per in zip(left(ledger, now), (18_000, 604_800), strict=True):
        expected = now + per
        if now < until:
            expected = min(expected, until)
        assert reset == expected


def test_the_end_of_a_period_may_move() -> None:
    ledger = Ledger()
    ledger.key_state("a", "k", PLAN, START)
    ledger.end_periods({"a": int(START + 60) * 1000})
    ledger.end_periods({})
    used(ledger, 1, START)
    assert left(ledger, START)[0][1] == START + 18_000


@pytest.mark.parametrize(
    ("unit", "now", "end"),
    [
        ("day", 1_775_649_660, 1_775_692_800),
        ("week", 1_775_649_660, 1_776_038_400),  # Monday 2026-04-13
        ("month", 1_775_649_660, 1_777_593_600),
        ("month", 1_798_675_200, 1_798_761_600),  # 2026-12-31
    ],
)
def test_a_calendar_window_ends_with_its_unit(unit: str, now: int, end: int) -> None:
    bucket = new_bucket(unit, 5, 2_678_400_000)
    assert isinstance(bucket, FixedWindow)
    assert bucket.take(1, now * 1000)
    assert bucket.end == end * 1000


SMOOTH = plan({"requests": 4, "per": "5h", "refill": "smooth"}, enforce="account")


def test_a_limit_that_refills_all_the_time_is_reset_too() -> None:
    ledger = Ledger()
    held = ledger.reserve("a", "k", SMOOTH, START)
    ledger.settle(ledger.reserve("a", "k", SMOOTH, START), START)
    assert adjustments.reset(ledger, OWNERS, HOURS, START) == 1
    ledger.refund(held, START)
    assert [one.remaining for one in ledger.view("a", "k", SMOOTH, START)] == [4]
    assert adjustments.reset(ledger, OWNERS, WEEK, START) == 0


def test_a_renewal_leaves_what_refills_all_the_time() -> None:
    ledger = Ledger()
    ledger.settle(ledger.reserve("a", "k", SMOOTH, START), START)
    adjustments.renew(ledger, OWNERS, START)
    assert [one.remaining for one in ledger.view("a", "k", SMOOTH, START)] == [3]
    ledger.end_periods({"a": int(START * 1000) + 1})
    assert [one.remaining for one in ledger.view("a", "k", SMOOTH, START)] == [3]


def test_a_bonus_ends_with_its_window_limit() -> None:
    """The plan's limit refills all the time from then on, here and in the next process."""
    ledger = Ledger()
    assert adjustments.give_bonus(ledger, OWNER, PLAN, (*HOURS, 2, 3), START)
    rows = all_rows(ledger)
    ledger.settle(ledger.reserve("a", "k", SMOOTH, START), START)
    assert not [row for row in all_rows(ledger) if row[2].startswith("bonus")]
    other = Ledger()
    other.restore([row for row in rows if row[2].startswith("bonus")])
    assert [one.remaining for one in other.view("a", "k", SMOOTH, START)] == [4]

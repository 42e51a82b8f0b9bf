"""A balance is held for the dearest end of a request, and never twice."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.quota.exceeded import QuotaExceeded
from relay.quota.ledger import Ledger

from .plans import START, plan
from .rows import balance_of

PREPAID = plan(billing="per-token")
DOLLAR = 1_000_000
MICRO_DOLLARS = st.integers(0, 2 * DOLLAR)


def funded(amount: int) -> Ledger:
    ledger = Ledger()
    ledger.fund("a", amount)
    return ledger


def room(ledger: Ledger) -> int:
    """The dearest request that is admitted now."""
    low, high = 0, 4 * DOLLAR
    while low < high:
        middle = (low + high + 1) // 2
        try:
            ledger.refund(ledger.reserve("a", "k", PREPAID, START, cost=middle), START)
        except QuotaExceeded:
            high = middle - 1
        else:
            low = middle
    return low


@given(st.integers(1, 2 * DOLLAR), st.lists(st.tuples(MICRO_DOLLARS, MICRO_DOLLARS), max_size=6))
def test_what_is_held_leaves_the_rest_to_other_requests(
    amount: int, requests: list[tuple[int, int]]
) -> None:
    ledger = funded(amount)
    held, admitted = 0, []
    for estimate, dearest in requests:
        try:
            reservation = ledger.reserve("a", "k", PREPAID, START, cost=estimate)
        except QuotaExceeded:
            assert estimate > amount - held or held >= amount
            continue
        held += estimate
        ledger.hold_more(reservation, dearest)
        held += min(max(0, dearest - estimate), amount - held)
        assert reservation.cost == max(estimate, min(dearest, reservation.cost))
        assert held <= amount
        assert room(ledger) == amount - held
        admitted.append(reservation)
    for reservation in admitted:
        assert ledger.settle(reservation, START, cost=0)
    assert (room(ledger), balance_of(ledger, "a")) == (amount, amount)


@pytest.mark.parametrize(
    ("amount", "estimate", "dearest", "left"),
    [
        (10, 3, 8, 2),
        (10, 3, 10, 0),
        (10, 3, 500, 0),
        (10, 3, 3, 7),
        (10, 3, 0, 7),
    ],
)
def test_holding_more_takes_up_to_all_that_is_left(
    amount: int, estimate: int, dearest: int, left: int
) -> None:
    ledger = funded(amount)
    reservation = ledger.reserve("a", "k", PREPAID, START, cost=estimate)
    ledger.hold_more(reservation, dearest)
    assert room(ledger) == left
    ledger.settle(reservation, START, cost=4)  # the actual cost alone is charged
    assert balance_of(ledger, "a") == amount - 4


def test_an_overdrawn_balance_holds_no_more() -> None:
    ledger = funded(10)
    first = ledger.reserve("a", "k", PREPAID, START, cost=2)
    second = ledger.reserve("a", "k", PREPAID, START, cost=2)
    ledger.settle(first, START, cost=20)
    ledger.hold_more(second, 50)
    assert second.cost == 2


def test_without_a_balance_nothing_is_held() -> None:
    ledger = Ledger()
    one = plan({"requests": 5, "per": "1m"})
    reservation = ledger.reserve("a", "k", one, START)
    ledger.hold_more(reservation, DOLLAR)
    assert reservation.cost == 0


LIMITS: list[list[dict[str, Any]]] = [
    [{"requests": 2, "per": "1m"}],
    [{"requests": 9, "per": "1m"}, {"requests": 2, "per": "1h"}],
    [{"requests": 1, "per": "5h"}, {"requests": 2, "per": "1m"}],
]


@pytest.mark.parametrize("limits", LIMITS, ids=lambda limits: str(len(limits)))
def test_refused_counts_are_limited_by_the_short_limits(limits: list[dict[str, Any]]) -> None:
    one, ledger = plan(*limits), Ledger()
    ledger.check("a", "k", one, START, counting=True)
    state = ledger.key_state("a", "k", one, START)
    for _ in range(2):
        ledger.check("a", "k", one, START, counting=True)
        ledger.count_refusal(state, START)
    with pytest.raises(QuotaExceeded):
        ledger.check("a", "k", one, START, counting=True)


def test_a_check_of_a_count_needs_the_limit_on_counting() -> None:
    one, ledger = plan(*LIMITS[2]), Ledger()

    def count() -> None:
        for _ in range(10_000):
            ledger.check("a", "k", one, START, counting=True)
            ledger.admit_count("a", "k", one, START)

    with pytest.raises(QuotaExceeded) as refused:
        count()
    assert (refused.value.retry_after or 0) >= 1


def test_a_check_refuses_while_a_token_limit_is_in_debt() -> None:
    one, ledger = plan({"tokens": 600, "per": "1m"}), Ledger()
    ledger.settle(ledger.reserve("a", "k", one, START, 1), START, tokens=1200)
    for check in (ledger.check, ledger.reserve):
        with pytest.raises(QuotaExceeded):
            check("a", "k", one, START)
    ledger.check("a", "k", one, START + 61)

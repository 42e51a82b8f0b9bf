"""The ledger reports its limits without taking from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.quota.exceeded import QuotaExceeded
from relay.quota.ledger import Ledger, LimitView
from relay.quota.plans import Plan

from .plans import FREE, START, plan
from .rows import all_rows

LIMITS = [{"requests": 3, "per": "5h"}, {"requests": 5, "per": "1m"}, {"tokens": 1000, "per": "1m"}]


def test_a_new_key_has_room_now_and_full_limits() -> None:
    one, ledger = plan(*FREE), Ledger()
    assert ledger.ready_at("a", "k", one, START + 0.0005, 900_000) == START + 0.0005
    assert ledger.view("a", "k", one, START) == [
        LimitView("40 requests per 5 hours", 40, START),
        LimitView("200 requests per week", 200, START),
        LimitView("60 requests per minute", 60, START),
        LimitView("800,000 tokens per minute", 800_000, START),
    ]


def test_each_limit_is_shown_in_the_order_of_the_plan() -> None:
    one, ledger = plan(*LIMITS), Ledger()
    ledger.reserve("a", "k", one, START, tokens=250)
    assert ledger.view("a", "k", one, START) == [
        LimitView("3 requests per 5 hours", 2, START + 5 * 3600),
        LimitView("5 requests per minute", 4, START + 12),
        LimitView("1,000 tokens per minute", 750, START + 15),
    ]


def test_a_plan_without_limits_always_has_room() -> None:
    one, ledger = plan(), Ledger()
    assert ledger.ready_at("a", "k", one, START, 10**9) == START
    assert ledger.view("a", "k", one, START) == []


@pytest.mark.parametrize(
    ("requests", "tokens", "wait"),
    [
        pytest.param(1, 250, 0.0, id="room in all"),
        pytest.param(1, 800, 3.0, id="tokens refill"),
        pytest.param(1, 10**9, 15.0, id="an estimate above the limit needs all of it"),
        pytest.param(3, 0, 5 * 3600.0, id="the window is used up"),
    ],
)
def test_room_comes_with_the_last_limit_to_have_it(requests: int, tokens: int, wait: float) -> None:
    one, ledger = plan(*LIMITS), Ledger()
    for _ in range(requests):
        ledger.reserve("a", "k", one, START, tokens=250)
    assert ledger.ready_at("a", "k", one, START, tokens) == START + wait


def admits(ledger: Ledger, one: Plan, now: float, tokens: int) -> bool:
    try:
        ledger.refund(ledger.reserve("a", "k", one, now, tokens), now)
    except QuotaExceeded:
        return False
    return True


@given(
    st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 1200)), max_size=12),
    st.integers(0, 1200),
)
def test_a_request_is_admitted_from_its_ready_time_on(
    earlier: list[tuple[int, int]], tokens: int
) -> None:
    one, ledger, now = plan(*LIMITS), Ledger(), START
    for wait, used in earlier:
        now += wait / 1000
        try:
            ledger.settle(ledger.reserve("a", "k", one, now, used), now, used)
        except QuotaExceeded:
            continue
    before = ledger.view("a", "k", one, now), all_rows(ledger)
    ready = ledger.ready_at("a", "k", one, now, tokens)
    assert (ledger.view("a", "k", one, now), all_rows(ledger)) == before, "looking takes nothing"
    if ready > now:
        assert not admits(ledger, one, ready - 0.002, tokens)
    assert admits(ledger, one, ready + 0.001, tokens)

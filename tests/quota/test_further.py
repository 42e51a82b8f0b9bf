"""Limits beside those of a plan: a request takes from all of them, or from none."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.quota.exceeded import QuotaExceeded
from relay.quota.further import begin_spent
from relay.quota.held import Share
from relay.quota.ledger import Ledger
from relay.quota.plans import Limit, Plan, further_limits
from relay.quota.state import LimitCounters, Reservation
from relay.quota.transfer import close, describe

from .plans import START, plan
from .rows import all_rows
from .test_transfer import sent

PLAN = plan({"requests": 20, "per": "5h"}, {"tokens": 2000, "per": "1d"})
OWN = further_limits(
    "key",
    "this key",
    [
        Limit("requests", 6, 86_400, "window"),
        Limit("requests", 4, 60, "smooth"),
        Limit("tokens", 900, 86_400, "window"),
        Limit("money", 500, 86_400, "window"),
    ],
    3,
)
SPENDING = further_limits("spending", "this account", [Limit("money", 800, 2_678_400, "month")])
USES = st.one_of(st.none(), st.tuples(st.none() | st.integers(0, 400), st.integers(0, 300)))


def limited(own: Plan | None = OWN, spending: Plan | None = SPENDING) -> Ledger:
    ledger = Ledger()
    ledger.limit_further(
        {} if own is None else {"k": own}, {} if spending is None else {"a": spending}, START
    )
    return ledger


def use_of(ledger: Ledger) -> dict[tuple[str, str, int], int]:
    """What is used of each limit at START."""
    now = int(START * 1000)
    return {
        (one.scope, kind, per): bucket.used_units(now)
        for one in ledger.counters()
        for (kind, per), bucket in one.all_buckets.items()
    }


def buckets_of(ledger: Ledger) -> Iterator[LimitCounters]:
    yield from ledger.counters()


@given(
    requests=st.lists(
        st.tuples(st.integers(0, 500), st.integers(0, 400), USES, st.booleans()), max_size=12
    )
)
def test_all_limits_agree_with_the_sum_of_reservations(
    requests: list[tuple[int, int, tuple[int | None, int] | None, bool]],
) -> None:
    """A refused request changes nothing, an open one has its estimate, a closed one its use."""
    ledger = limited()
    expected = {"requests": 0, "tokens": 0, "money": 0, "pace": 0}
    in_flight = 0
    for tokens, cost, use, ends in requests:
        before = use_of(ledger)
        try:
            held = ledger.reserve("a", "k", PLAN, START, tokens, cost)
        except QuotaExceeded:
            after = use_of(ledger)
            assert {name: after.get(name, 0) for name in before} == before
            assert not any(after[name] for name in after.keys() - before.keys())
            continue
        expected["pace"] += 1
        if not ends:
            in_flight += 1
            expected["requests"] += 1
            expected["tokens"] += min(tokens, 900)
            expected["money"] += min(cost, 500)
        elif use is None:
            assert ledger.refund(held, START)
        else:
            assert ledger.settle(held, START, *use)
            expected["requests"] += 1
            expected["tokens"] += min(tokens, 900) if use[0] is None else use[0]
            expected["money"] += min(cost, 500) if use[0] is None else use[1]
        found = use_of(ledger)
        assert found["own", "requests", 86_400] == expected["requests"]
        assert found["own", "requests", 60] == expected["pace"]
        assert found["own", "tokens", 86_400] == expected["tokens"]
        assert found["own", "money", 86_400] == expected["money"]
        assert found["key", "requests", 18_000] == expected["requests"]
        assert ledger.counters_of("own", "k").in_flight == in_flight <= 3


def test_an_error_names_the_limit_that_ends_last() -> None:
    ledger = limited(spending=None)
    for _ in range(4):
        ledger.settle(ledger.reserve("a", "k", PLAN, START, 1, 1), START, 1, 1)
    with pytest.raises(QuotaExceeded, match=r"This key allows 4 requests per minute\. Please"):
        ledger.reserve("a", "k", PLAN, START, 1, 1)
    ledger.settle(ledger.reserve("a", "k", PLAN, START + 60, 1, 1), START + 60, 1, 700)
    with pytest.raises(QuotaExceeded, match=r"limit of this key is reached: \$0.0005 per day"):
        ledger.check("a", "k", PLAN, START + 120)


def test_spending_is_by_the_calendar() -> None:
    ledger = limited(own=None)
    ledger.settle(ledger.reserve("a", "k", PLAN, START, 1, 800), START, 1, 800)
    with pytest.raises(QuotaExceeded, match=r"this account is reached: \$0.0008 per month"):
        ledger.reserve("a", "k2", PLAN, START, 1, 1)  # all keys of the account share it
    may = 1_777_593_600.0  # 2026-05-01
    with pytest.raises(QuotaExceeded, match="resets at 2026-05-01 00:00:00"):
        ledger.reserve("a", "k", PLAN, may - 61, 1, 1)
    with pytest.raises(QuotaExceeded, match="try again in 1s"):
        ledger.reserve("a", "k", PLAN, may - 0.001, 1, 1)
    assert ledger.reserve("a", "k", PLAN, may, 1, 1)


def test_concurrency_of_a_key_counts_earlier_requests_too() -> None:
    ledger = Ledger()
    held = [ledger.reserve("a", "k", PLAN, START) for _ in range(3)]
    ledger.limit_further({"k": OWN}, {}, START)
    with pytest.raises(QuotaExceeded, match="This key allows 3 requests at once"):
        ledger.reserve("a", "k", PLAN, START)
    ledger.refund(held[0], START)
    assert ledger.reserve("a", "k", PLAN, START)


def test_limits_that_change_keep_their_use_and_end_when_removed() -> None:
    ledger = limited(spending=None)
    ledger.settle(ledger.reserve("a", "k", PLAN, START, 1, 1), START, 1, 1)
    tighter = further_limits("key", "this key", [Limit("requests", 1, 86_400, "window")])
    ledger.limit_further({"k": tighter}, {}, START)
    with pytest.raises(QuotaExceeded, match="1 request per day"):
        ledger.reserve("a", "k", PLAN, START)
    ledger.limit_further({}, {}, START)
    assert ledger.reserve("a", "k", PLAN, START).further == ()


def test_own_limits_are_restored_and_swept() -> None:
    ledger = limited()
    ledger.settle(ledger.reserve("a", "k", PLAN, START, 100, 90), START, 120, 80)
    rows = ledger.changes()
    other = limited()
    other.restore(rows)
    other.reserve("a", "k", PLAN, START, 0, 0)
    assert use_of(other)["own", "tokens", 86_400] == 120
    assert use_of(other)["spending", "money", 2_678_400] == 80
    later = START + 90 * 86_400
    ledger.changes()
    while ledger.sweep(later):
        pass
    ledger.limit_further({}, {}, later)
    while ledger.sweep(later):
        pass
    assert all_rows(ledger) == []


@given(use=USES, tokens=st.integers(0, 500), cost=st.integers(0, 400))
def test_a_reservation_closes_elsewhere_as_it_does_here(
    use: tuple[int | None, int] | None, tokens: int, cost: int
) -> None:
    here, there = limited(), limited()
    held: Reservation = here.reserve("a", "k", PLAN, START, tokens, cost)
    described = sent(describe(there.reserve("a", "k", PLAN, START, tokens, cost)))
    if use is None:
        here.refund(held, START)
    else:
        here.settle(held, START, *use)
    close(there, described, START, use)
    assert use_of(here) == use_of(there)
    assert [one.in_flight for one in buckets_of(here)] == [
        one.in_flight for one in buckets_of(there)
    ]


def test_a_check_looks_at_own_limits_before_a_request_does() -> None:
    """It refuses exactly where the smallest request would be refused, and takes nothing."""
    ledger = limited()
    ledger.reserve("a", "k", PLAN, START)
    before = use_of(ledger)
    ledger.check("a", "k", PLAN, START)
    assert use_of(ledger) == before
    held = [ledger.reserve("a", "k", PLAN, START) for _ in range(2)]
    with pytest.raises(QuotaExceeded, match="This key allows 3 requests at once"):
        ledger.check("a", "k", PLAN, START)
    for one in held:
        ledger.settle(one, START)
    ledger.settle(ledger.reserve("a", "k", PLAN, START), START)
    with pytest.raises(QuotaExceeded, match="4 requests per minute"):
        ledger.check("a", "k", PLAN, START)


def test_spending_before_its_limit_counts() -> None:
    ledger = limited(own=None)
    counters = ledger.counters_of("spending", "a")
    counters.adopt(SPENDING, int(START * 1000))
    assert begin_spent(counters, {"month": 700, "day": 5}, int(START * 1000))
    assert not begin_spent(counters, {"month": 900}, int(START * 1000))  # its window is open
    with pytest.raises(QuotaExceeded, match="resets at 2026-05-01"):
        ledger.reserve("a", "k", PLAN, START, 1, 101)
    assert ledger.reserve("a", "k", PLAN, START, 1, 100)
    assert not begin_spent(ledger.counters_of("spending", "b"), {"month": 1}, 0)


def test_what_another_process_holds_counts_in_own_limits() -> None:
    """Even where this process has removed the limit by the time the request ends there."""
    old, new = limited(), limited()
    reservation = old.reserve("a", "k", PLAN, START, 10, 10)
    held = sent(describe(reservation))
    share = Share()
    share.add(held)
    assert share.counters == {"key/k": 1, "own/k": 1, "spending/a": 1}
    share.add(held, -1)
    assert not share.counters
    unlimited = limited(own=None, spending=None)
    close(unlimited, held, START, (10, 10))
    close(new, held, START, None)
    assert not any(used for name, used in use_of(unlimited).items() if name[0] != "key")

"""The ledger admits exactly, and settles or refunds each reservation once."""

from collections.abc import Callable
from typing import Any

import pytest

from relay.quota.exceeded import QuotaExceeded
from relay.quota.ledger import Ledger
from relay.quota.plans import Plan
from relay.quota.state import Reservation

from .plans import FREE, STACKED, START, plan
from .rows import all_rows, balance_of

HOUR = 3600.0


def admitted(ledger: Ledger, one: Plan, times: int, key: str = "k", now: float = START) -> int:
    done = 0
    for _ in range(times):
        try:
            ledger.reserve("a", key, one, now)
        except QuotaExceeded:
            continue
        done += 1
    return done


def left(ledger: Ledger, one: Plan, now: float = START, key: str = "k") -> list[int]:
    counters = ledger.key_state("a", key, one, now).counters
    return [bucket.remaining(int(now * 1000)) for bucket in counters.buckets]


def test_a_thousand_requests_on_forty_left_admit_exactly_forty() -> None:
    one = plan(*STACKED)
    for _ in range(20):
        ledger = Ledger()
        errors = []
        for _ in range(1000):
            try:
                ledger.reserve("a", "k", one, START)
            except QuotaExceeded as refused:
                errors.append(refused)
        assert len(errors) == 960
        assert {error.resets_at for error in errors} == {int(START + 5 * HOUR)}
        assert left(ledger, one) == [0, 160]


def test_the_second_limit_holds_when_the_first_is_full_again() -> None:
    one, ledger = plan(*STACKED), Ledger()
    got = [admitted(ledger, one, 100, now=START + number * 5 * HOUR) for number in range(8)]
    assert got == [40, 40, 40, 40, 40, 0, 0, 0]
    assert admitted(ledger, one, 100, now=START + 7 * 24 * HOUR) == 40


def test_the_exceeded_limit_that_resets_last_is_named() -> None:
    one, ledger = plan({"requests": 40, "per": "5h"}, {"requests": 40, "per": "7d"}), Ledger()
    admitted(ledger, one, 40)
    with pytest.raises(QuotaExceeded) as refused:
        ledger.reserve("a", "k", one, START + 60)
    assert refused.value.limit == one.limits[1]
    assert refused.value.resets_at == int(START + 7 * 24 * HOUR)


def test_a_refused_request_takes_nothing_from_any_limit() -> None:
    one, ledger = plan(*FREE, {"tokens": 1000, "per": "5h"}), Ledger()
    ledger.reserve("a", "k", one, START, tokens=900)
    before = left(ledger, one), all_rows(ledger)
    for _ in range(100):
        with pytest.raises(QuotaExceeded):
            ledger.reserve("a", "k", one, START, tokens=101)
    assert (left(ledger, one), all_rows(ledger)) == before


def test_limits_belong_to_each_key_or_to_the_account_by_plan() -> None:
    own, ledger = plan(*STACKED), Ledger()
    assert [admitted(ledger, own, 100, key) for key in ("k1", "k2", "k3")] == [40, 40, 40]
    shared, ledger = plan(*STACKED, enforce="account"), Ledger()
    assert [admitted(ledger, shared, 15, key) for key in ("k1", "k2", "k3")] == [15, 15, 10]


def test_a_refunded_request_still_counts_per_minute() -> None:
    one, ledger = plan(*FREE), Ledger()
    for _ in range(6):
        ledger.refund(ledger.reserve("a", "k", one, START, tokens=5000), START)
    assert left(ledger, one) == [40, 200, 54, 800_000]


def test_a_refund_after_its_window_leaves_the_next_one_alone() -> None:
    one, ledger = plan({"requests": 2, "per": "5h"}), Ledger()
    slow = ledger.reserve("a", "k", one, START)
    assert admitted(ledger, one, 5, now=START + 5 * HOUR) == 2
    ledger.refund(slow, START + 5 * HOUR + 1)
    assert left(ledger, one, START + 5 * HOUR + 1) == [0]


def test_tokens_are_settled_by_their_actual_use() -> None:
    one, ledger = plan({"tokens": 1000, "per": "7d"}, {"tokens": 100, "per": "1m"}), Ledger()
    ledger.settle(ledger.reserve("a", "k", one, START, tokens=90), START, tokens=30)
    assert left(ledger, one) == [970, 70]
    ledger.settle(ledger.reserve("a", "k", one, START, tokens=10), START, tokens=300)
    assert left(ledger, one) == [670, 0]
    with pytest.raises(QuotaExceeded) as refused:
        ledger.reserve("a", "k", one, START, tokens=1)
    assert refused.value.retry_after == 139, "230 of debt and 1 more, at 100 a minute"


def test_an_unknown_use_is_settled_by_the_estimate() -> None:
    one, ledger = plan({"tokens": 1000, "per": "7d"}, billing="per-token"), Ledger()
    ledger.fund("a", 1000)
    ledger.settle(ledger.reserve("a", "k", one, START, tokens=90, cost=80), START)
    assert left(ledger, one) == [910]
    assert balance_of(ledger, "a") == 920


def test_an_estimate_above_a_limit_takes_all_of_it_and_no_more() -> None:
    one, ledger = plan({"tokens": 1000, "per": "1m"}), Ledger()
    ledger.refund(ledger.reserve("a", "k", one, START, tokens=50_000), START)
    assert left(ledger, one) == [1000]


def test_a_reservation_ends_once() -> None:
    one, ledger = plan(*STACKED, max_concurrency=1), Ledger()
    held = ledger.reserve("a", "k", one, START)
    assert ledger.settle(held, START, tokens=5)
    assert not ledger.refund(held, START)
    assert not ledger.settle(held, START)
    assert left(ledger, one) == [39, 199]
    assert ledger.key_state("a", "k", one, START).in_flight == 0


def test_a_key_has_no_more_requests_at_once_than_its_plan_allows() -> None:
    one, ledger = plan(*STACKED, max_concurrency=2, enforce="account"), Ledger()
    first, _ = (ledger.reserve("a", "k", one, START) for _ in range(2))
    with pytest.raises(QuotaExceeded) as refused:
        ledger.reserve("a", "k", one, START)
    assert refused.value.retry_after == 5
    assert refused.value.limit is None
    ledger.reserve("a", "other", one, START)
    ledger.settle(first, START)
    ledger.reserve("a", "k", one, START)
    assert ledger.key_state("a", "k", one, START).in_flight == 2
    assert left(ledger, one) == [36, 196]


def test_concurrent_requests_cannot_overdraw_a_balance() -> None:
    one, ledger = plan(billing="per-token"), Ledger()
    ledger.fund("a", 1000)
    held: list[Reservation] = []
    statuses = set()
    for number in range(100):
        try:
            held.append(ledger.reserve("a", f"k{number % 3}", one, START, cost=300))
        except QuotaExceeded as refused:
            statuses.add(refused.kind.status)
    assert len(held) == 3
    assert statuses == {429}, "the money is there, but held"
    ledger.settle(held[0], START, cost=100)
    ledger.refund(held[1], START)
    assert balance_of(ledger, "a") == 900
    ledger.settle(held[2], START, cost=950)
    assert balance_of(ledger, "a") == -50, "below zero by no more than its estimate fell short"
    with pytest.raises(QuotaExceeded) as empty:
        ledger.reserve("a", "k0", one, START)
    assert empty.value.kind.status == 402
    ledger.fund("a", 1100)
    ledger.reserve("a", "k0", one, START, cost=50)


def test_an_account_without_credit_is_refused() -> None:
    with pytest.raises(QuotaExceeded) as refused:
        Ledger().reserve("a", "k", plan(billing="per-token"), START)
    assert refused.value.kind.status == 402


def test_use_stays_when_the_plan_changes() -> None:
    free, pro = plan(*STACKED), plan({"requests": 400, "per": "5h"}, {"requests": 9, "per": "30d"})
    ledger = Ledger()
    held = ledger.reserve("a", "k", free, START)
    admitted(ledger, free, 29)
    assert left(ledger, pro) == [370, 9]
    ledger.refund(held, START)
    assert left(ledger, pro) == [371, 9]
    assert left(ledger, free) == [11, 171], "and in a limit that the other plan does not have"


def test_use_stays_when_the_plan_refills_in_another_way() -> None:
    window = plan({"requests": 10, "per": "1h", "refill": "window"})
    smooth = plan({"requests": 20, "per": "1h", "refill": "smooth"})
    ledger = Ledger()
    admitted(ledger, window, 4)
    assert left(ledger, smooth) == [16]
    assert left(ledger, smooth, START + 0.1 * HOUR) == [18]
    assert left(ledger, window, START + 0.1 * HOUR) == [8]


def test_a_revoked_key_leaves_the_use_of_its_account() -> None:
    shared, ledger = plan(*STACKED, enforce="account"), Ledger()
    held = ledger.reserve("a", "old", shared, START)
    admitted(ledger, shared, 9, "old")
    assert admitted(ledger, shared, 100, "new") == 30
    ledger.refund(held, START)
    assert left(ledger, shared, key="new") == [1, 161]


def test_a_restart_forgets_nothing() -> None:
    one = plan(*FREE, billing="per-token")
    ledger, rows = Ledger(), {}
    ledger.fund("a", 10_000)
    for number in range(10):
        held = ledger.reserve("a", "k", one, START + number, tokens=1000, cost=700)
        if number != 9:
            ledger.settle(held, START + number, tokens=4000, cost=500)
        rows.update({row[:4]: row for row in ledger.changes()})
    assert ledger.changes() == []
    other = Ledger()
    other.restore(rows.values())
    other.fund("a", 10_000)
    assert sorted(all_rows(other)) == sorted(all_rows(ledger))
    assert left(other, one, START + 9) == left(ledger, one, START + 9)
    assert balance_of(other, "a") == 5500, "what was in flight has not been charged"
    assert left(other, one, START + 6 * HOUR) == [40, 190, 60, 800_000]


def test_state_that_is_full_again_is_swept() -> None:
    one, ledger = plan(*STACKED), Ledger()
    for number in range(1000):
        ledger.settle(ledger.reserve(f"a{number}", f"k{number}", one, START), START)
    running = ledger.reserve("a", "k", plan({"requests": 9, "per": "1m"}), START)
    restored = Ledger()
    restored.restore(all_rows(ledger))
    assert len(ledger.changes()) == 2001
    for either, remaining in ((ledger, 1), (restored, 0)):
        for _ in range(20):
            either.sweep(START + 5 * HOUR)
        assert len(all_rows(either)) >= 2000, "the week is not over"
        for _ in range(20):
            either.sweep(START + 7 * 24 * HOUR)
        assert len(all_rows(either)) == remaining
    ledger.settle(running, START + 7 * 24 * HOUR)
    ledger.sweep(START + 7 * 24 * HOUR)
    assert len(all_rows(ledger)) == 1, "not before it was written"
    assert ledger.changes() == all_rows(ledger)
    assert ledger.sweep(START + 7 * 24 * HOUR) == [("key", "k")]
    assert all_rows(ledger) == []


def test_counting_tokens_is_free_but_has_its_own_limit() -> None:
    one, ledger = plan(*FREE), Ledger()
    for _ in range(600):
        ledger.admit_count("a", "k", one, START)
    with pytest.raises(QuotaExceeded) as refused:
        ledger.admit_count("a", "k", one, START)
    assert refused.value.retry_after == 1
    assert left(ledger, one) == [40, 200, 60, 800_000]
    ledger.admit_count("a", "k", one, START + 1)


# --- before a request is read -----------------------------------------------------------

PER_MINUTE = {"requests": 3, "per": "1m"}


def refusal(check: Callable[[], object]) -> tuple[str, int | None] | None:
    try:
        check()
    except QuotaExceeded as refused:
        return refused.message, refused.resets_at
    return None


@pytest.mark.parametrize("limits", [[PER_MINUTE], STACKED, [PER_MINUTE, *STACKED]])
def test_a_check_refuses_as_a_reservation_would(limits: list[dict[str, Any]]) -> None:
    one, ledger = plan(*limits), Ledger()
    for number in range(300):
        now = START + number * 7
        checked = refusal(lambda now=now: ledger.check("a", "k", one, now))  # type: ignore[misc]
        before = left(ledger, one, now)
        ledger.check("a", "k2", one, now)
        assert left(ledger, one, now) == before
        assert checked == refusal(lambda now=now: ledger.reserve("a", "k", one, now))  # type: ignore[misc]


def test_a_check_refuses_without_balance_or_places() -> None:
    prepaid, ledger = plan(billing="per-token"), Ledger()
    assert refusal(lambda: ledger.check("a", "k", prepaid, START)) is not None
    ledger.fund("a", 5)
    ledger.check("a", "k", prepaid, START)
    single = plan(max_concurrency=1)
    ledger.reserve("a", "k2", single, START)
    assert refusal(lambda: ledger.check("a", "k2", single, START)) is not None


def test_after_a_refusal_or_the_last_of_a_window_a_check_is_due() -> None:
    one, ledger = plan(*STACKED), Ledger()
    counters = ledger.key_state("a", "k", one, START).counters
    assert admitted(ledger, one, 39) == 39
    assert not counters.must_check
    assert admitted(ledger, one, 1) == 1  # the last of five hours
    assert counters.must_check
    assert refusal(lambda: ledger.check("a", "k", one, START)) is not None
    assert counters.must_check
    ledger.check("a", "k", one, START + 5 * 3600)
    assert not counters.must_check
    ledger.count_refusal(ledger.key_state("a", "k", one, START), START)
    assert counters.must_check


@pytest.mark.parametrize(
    "settings",
    [{"limits": [{"tokens": 10, "per": "1m"}]}, {"max_concurrency": 1}, {"billing": "per-token"}],
    ids=["tokens", "places", "money"],
)
def test_whatever_refuses_a_reservation_makes_a_check_due(settings: dict[str, Any]) -> None:
    one, ledger = plan(*settings.pop("limits", ()), **settings), Ledger()
    refused = None
    for _ in range(3):
        refused = refused or refusal(lambda: ledger.reserve("a", "k", one, START, 9))
    assert refused is not None
    assert ledger.key_state("a", "k", one, START).counters.must_check


def test_refusals_count_in_limits_of_up_to_an_hour_alone() -> None:
    one, ledger = plan(PER_MINUTE, *STACKED), Ledger()
    key_state = ledger.key_state("a", "k", one, START)
    for _ in range(5):
        ledger.count_refusal(key_state, START)
    assert left(ledger, one) == [0, 40, 200]
    refused = refusal(lambda: ledger.check("a", "k", one, START))
    assert refused is not None
    assert "3 requests per minute" in refused[0]
    assert refused == refusal(lambda: ledger.check("a", "k", one, START, counting=True))
    ledger.check("a", "k", one, START + 20)


def test_a_count_needs_nothing_of_the_longer_limits() -> None:
    one, ledger = plan(*STACKED), Ledger()
    assert admitted(ledger, one, 100) == 40
    ledger.check("a", "k", one, START, counting=True)
    for _ in range(600):
        ledger.admit_count("a", "k", one, START)
    assert refusal(lambda: ledger.check("a", "k", one, START, counting=True)) is not None


def test_a_superseded_plan_stands_for_its_latest_successor() -> None:
    first, second, third = [plan({"requests": size, "per": "5h"}) for size in (2, 4, 3)]
    ledger = Ledger()
    assert admitted(ledger, first, 1) == 1
    ledger.supersede({first: second})
    assert left(ledger, second) == left(ledger, first) == [4 - 1]
    ledger.supersede({second: third})
    assert left(ledger, third) == left(ledger, second) == left(ledger, first) == [3 - 1]
    assert admitted(ledger, first, 5) == 2
    ledger.supersede({plan(): plan()})  # another plan than these
    assert left(ledger, third) == left(ledger, second) == left(ledger, first) == [0]

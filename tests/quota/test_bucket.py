"""Buckets are exact, and safe when the clock jumps."""

from hypothesis import given
from hypothesis import strategies as st

from relay.quota.bucket import Bucket, FixedWindow, TokenBucket, convert_bucket, new_bucket

T = 1_775_649_660_000
HOUR = 3_600_000
MINUTE = 60_000

kinds = st.sampled_from(["window", "smooth"])
steps = st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 7)), max_size=60)


def used_up(refill: str, size: int, per: int, now: int) -> Bucket:
    bucket = new_bucket(refill, size, per)
    assert bucket.take(size, now)
    return bucket


def test_the_first_request_opens_a_window_that_ends_full() -> None:
    window = FixedWindow(2, 5 * HOUR)
    assert window.remaining_and_reset(T) == (2, T)
    assert window.take(1, T + 7)
    assert window.take(1, T + HOUR)
    assert not window.take(1, T + 7 + 5 * HOUR - 1)
    assert window.remaining_and_reset(T + HOUR) == (0, T + 7 + 5 * HOUR)
    assert window.ready_at(1, T + HOUR) == T + 7 + 5 * HOUR
    assert window.remaining_and_reset(T + 7 + 5 * HOUR) == (2, T + 7 + 5 * HOUR)
    assert window.take(2, T + 7 + 5 * HOUR)


def test_a_closed_window_refuses_more_than_its_size() -> None:
    window = FixedWindow(2, HOUR)
    assert not window.take(3, T)
    assert window.state() == (0, 0)
    assert window.take(2, T)


def test_a_charge_after_its_window_is_dropped() -> None:
    window = FixedWindow(5, HOUR)
    window.take(1, T)
    window.charge(3, window.mark, T + HOUR)
    assert window.used_units(T + HOUR - 1) == 1
    assert window.remaining_and_reset(T + HOUR) == (5, T + HOUR)


def test_a_window_closes_when_all_use_is_refunded() -> None:
    window = FixedWindow(2, HOUR)
    window.take(1, T)
    window.give_back(1, window.mark, T + 5)
    assert window.remaining_and_reset(T + 6) == (2, T + 6)
    assert window.state() == (0, 0)


def test_a_refund_counts_in_its_own_window_only() -> None:
    window = FixedWindow(2, HOUR)
    window.take(2, T)
    old = window.mark
    window.take(2, T + HOUR)
    window.give_back(2, old, T + HOUR + 1)
    window.charge(5, old, T + HOUR + 1)
    assert window.remaining_and_reset(T + HOUR + 1) == (0, T + 2 * HOUR)
    window.give_back(1, window.mark, T + 3 * HOUR)  # its own, but over
    assert window.remaining(T + 2 * HOUR - 1) == 0


def test_a_charge_reopens_a_window_that_others_left_empty() -> None:
    window = FixedWindow(10, HOUR)
    window.take(0, T)
    mine = window.mark
    window.take(3, T + 1)
    window.give_back(3, window.mark, T + 2)
    window.charge(4, mine, T + 3)
    assert window.remaining_and_reset(T + 3) == (6, T + 3 + HOUR)


def test_a_token_bucket_refills_by_the_millisecond() -> None:
    smooth = used_up("smooth", 60, MINUTE, T)
    assert smooth.remaining_and_reset(T) == (0, T + MINUTE)
    assert smooth.ready_at(1, T) == T + 1000
    assert not smooth.take(1, T + 999)
    assert smooth.take(1, T + 1000)
    assert smooth.remaining_and_reset(T + 30_000) == (29, T + MINUTE + 1000)
    assert smooth.remaining_and_reset(T + HOUR) == (60, T + HOUR)


def test_an_uneven_pace_loses_nothing_to_rounding() -> None:
    smooth = used_up("smooth", 7, MINUTE, T)
    for moment in range(T + 1, T + MINUTE):
        smooth.take(0, moment)  # looks at the clock each millisecond
    assert smooth.remaining(T + MINUTE - 1) == 6
    assert smooth.remaining(T + MINUTE) == 7


def test_a_debt_is_paid_before_anything_is_available() -> None:
    smooth = used_up("smooth", 60, MINUTE, T)
    smooth.charge(30, smooth.mark, T)
    assert smooth.remaining(T + 30_000) == 0
    assert smooth.ready_at(1, T) == T + 31_000
    assert smooth.reset_at(T) == T + 90_000


def test_an_estimate_cannot_be_used_twice_by_holding_it() -> None:
    smooth = TokenBucket(100, MINUTE)
    smooth.take(100, T)
    held = smooth.mark
    assert smooth.take(100, T + MINUTE)
    smooth.give_back(100, held, T + MINUTE)
    assert smooth.remaining(T + MINUTE) == 0


def test_unrefilled_use_is_refunded_in_any_order_of_ends() -> None:
    for order in ([0, 1], [1, 0]):
        smooth = TokenBucket(100, MINUTE)
        marks = []
        for _ in range(2):
            assert smooth.take(50, T)
            marks.append(smooth.mark)
        for number in order:
            smooth.give_back(50, marks[number], T + 30_000)
        assert smooth.remaining(T + 30_000) >= 99  # to the last 1/60000 of one
        assert smooth.used_units(T + 30_000) <= 1


@given(kinds, steps)
def test_no_period_admits_more_than_the_limit_and_its_refill(
    refill: str, moves: list[tuple[int, int]]
) -> None:
    size, per = 10, MINUTE
    bucket = new_bucket(refill, size, per)
    now, taken = T, []
    for passed, amount in moves:
        now += passed
        if bucket.take(amount, now):
            taken.append((now, amount))
    for number, (begin, _) in enumerate(taken):
        total = 0
        for end, amount in taken[number:]:
            total += amount
            stretch = end - begin
            assert total * per <= size * per + size * stretch + (
                size * per if refill == "window" else 0
            )


@given(kinds, steps, st.integers(1, 10**10), st.integers(1, 10))
def test_a_backward_step_grants_nothing_and_waits_at_most_per(
    refill: str, moves: list[tuple[int, int]], back: int, amount: int
) -> None:
    bucket = new_bucket(refill, 10, MINUTE)
    now = T + 10**10
    for passed, taken in moves:
        now += passed
        bucket.take(taken, now)
    if isinstance(bucket, FixedWindow) and now >= bucket.end:
        bucket.take(10, now)
    before = bucket.remaining(now)
    assert bucket.remaining(now - back) <= before
    granted = 0
    while bucket.take(1, now - back):
        granted += 1
    assert granted <= before
    assert bucket.ready_at(amount, now - back) - (now - back) <= 2 * MINUTE
    assert bucket.reset_at(now - back) - (now - back) <= 2 * MINUTE
    assert bucket.take(amount, bucket.ready_at(amount, now - back))


@given(kinds, st.integers(1, 10**12))
def test_a_leap_forward_grants_at_most_one_window(refill: str, leap: int) -> None:
    bucket = used_up(refill, 10, MINUTE, T)
    for moment in (T + leap, T, T + leap):
        granted = 0
        while bucket.take(1, moment):
            granted += 1
        assert granted <= (10 if moment > T else 0)


@given(kinds, steps, st.integers(1, 10))
def test_remaining_ready_and_reset_are_true(
    refill: str, moves: list[tuple[int, int]], amount: int
) -> None:
    bucket = new_bucket(refill, 10, MINUTE)
    now = T
    for passed, taken in moves:
        now += passed
        left = bucket.remaining(now)
        assert bucket.take(taken, now) == (taken <= left)
    ready = bucket.ready_at(amount, now)
    assert bucket.remaining(ready) >= amount
    assert ready == now or bucket.remaining(ready - 1) < amount
    assert bucket.remaining(bucket.reset_at(now)) == 10
    assert bucket.remaining_and_reset(now) == (bucket.remaining(now), bucket.reset_at(now))


@given(kinds, steps)
def test_a_bucket_goes_on_from_its_state(refill: str, moves: list[tuple[int, int]]) -> None:
    one = new_bucket(refill, 10, MINUTE)
    now = T
    for passed, taken in moves:
        now += passed
        one.take(taken, now)
        other = new_bucket(refill, 10, MINUTE, *one.state())
        assert other.remaining_and_reset(now) == one.remaining_and_reset(now)
        assert other.remaining_and_reset(now + 20_000) == one.remaining_and_reset(now + 20_000)


def test_another_size_keeps_the_use() -> None:
    for refill in ("window", "smooth"):
        bucket = used_up(refill, 10, MINUTE, T)
        bucket.resize(25, T)
        assert bucket.remaining(T) == 15
        bucket.resize(4, T)
        assert bucket.remaining(T) == 0


def test_another_kind_of_refill_keeps_the_use() -> None:
    smooth = convert_bucket(used_up("window", 10, MINUTE, T), "smooth", 12, T)
    assert smooth.remaining_and_reset(T) == (2, T + 50_000)
    window = convert_bucket(smooth, "window", 12, T + 25_000)
    assert window.remaining_and_reset(T + 25_000) == (7, T + 85_000)
    assert convert_bucket(TokenBucket(5, MINUTE), "window", 5, T).remaining_and_reset(T) == (5, T)


def test_a_window_in_debt_says_when_it_ends() -> None:
    window = FixedWindow(10, 1000)
    assert window.take(10, 0)
    window.charge(5, window.mark, 0)
    assert not window.has_room(0, 1)
    assert window.ready_at(0, 1) == 1000

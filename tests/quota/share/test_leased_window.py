"""A node's lease: when it has room, how much it asks for, and what it does with late answers."""

from relay.quota.share.leased_window import LeasedWindow
from relay.quota.share.shared_window import LEASE_TIME, SharedWindow, acquire

PER = 18_000_000
NOW = 1_775_649_660_000


def granted(
    window: LeasedWindow, shared: SharedWindow, now: int, need: int = 0, nodes: int = 1
) -> None:
    """Claim, and take the answer."""
    window.granted(acquire([(shared, window.claim(now, need))], NOW + now, nodes)[0])


def test_a_claim_is_for_the_target_and_no_more_each_time() -> None:
    shared, window = SharedWindow(1_000, PER), LeasedWindow("a/1", 1_000)
    assert window.claim(0, need=1).want == 10 + 1  # a hundredth, beside the request
    granted(window, shared, 0, need=1)
    assert window.take(1, 0)
    for now in range(1_000, 60_000, 1_000):  # its renewals do not add up
        granted(window, shared, now)
        assert window.left(now) == 10
    for _ in range(200):  # the demand grows: a twentieth at most
        window.take(1, 60_000)
    assert window.claim(60_000).want == 50


def test_it_asks_when_a_fifth_is_left_or_half_its_time_is_over() -> None:
    shared, window = SharedWindow(1_000, PER), LeasedWindow("a/1", 1_000)
    granted(window, shared, 0, need=1)
    assert not window.is_low(0)  # nobody wants anything
    assert window.take(8, 0)
    assert not window.is_low(0)
    assert window.take(1, 0)
    assert window.is_low(0)
    number = window.claim(0).number
    assert not window.is_low(0)  # an answer has yet to come
    window.lost(number - 1)
    assert not window.is_low(0)
    window.lost(number)
    assert window.is_low(0)
    granted(window, shared, 0)
    assert not window.is_low(LEASE_TIME // 3)
    assert window.is_low(LEASE_TIME // 2)


def test_refunds_and_charges_count_in_their_own_window_only() -> None:
    shared, window = SharedWindow(1_000, PER), LeasedWindow("a/1", 1_000)
    granted(window, shared, 0, need=5)
    assert window.take(5, 0)
    epoch = window.epoch
    window.charge(3, epoch)
    window.give_back(1, epoch)
    assert window.used == 7
    window.charge(3, epoch + 1)
    window.give_back(1, epoch + 1)
    assert window.used == 7


def test_what_remains_is_a_lower_bound() -> None:
    shared, window = SharedWindow(1_000, PER), LeasedWindow("a/1", 1_000)
    assert (window.remaining(0), window.reset_in(0)) == (1_000, 0)
    granted(window, shared, 0, need=1)
    assert window.take(1, 0)
    assert (window.remaining(0), window.reset_in(0)) == (999, PER)
    assert (window.remaining(LEASE_TIME), window.left(LEASE_TIME)) == (989, 0)  # the lease is over
    assert (window.remaining(PER), window.reset_in(PER)) == (1_000, 0)


def test_a_lease_is_idle_once_nobody_wants_it() -> None:
    shared, window = SharedWindow(1_000, PER), LeasedWindow("a/1", 1_000)
    granted(window, shared, 0, need=1)
    assert window.take(1, 0)
    assert not window.is_idle(0)
    granted(window, shared, 19_000)
    assert not window.is_idle(19_000)
    assert window.is_idle(20_000)


def test_an_answer_to_an_earlier_claim_changes_nothing() -> None:
    shared, window = SharedWindow(1_000, PER), LeasedWindow("a/1", 1_000)
    late = acquire([(shared, window.claim(0, need=5))], NOW, 1)[0]
    window.claim(0, need=1)
    window.granted(late)
    assert window.left(0) == 0


def test_an_owner_that_lost_a_window_goes_on_from_its_lease() -> None:
    window = LeasedWindow("a/1", 1_000)
    granted(window, SharedWindow(1_000, PER), 0, need=30)
    assert window.take(30, 0)
    restored = SharedWindow(1_000, PER)
    granted(window, restored, 60_000)
    assert (restored.used, window.used) == (30, 30)
    assert window.reset_in(60_000) == PER - 60_000

"""What is left of each limit, for people to read."""

from relay.quota import adjustments
from relay.quota.ledger import Ledger
from relay.quota.windows import WindowView, windows

from .plans import START, plan

HOURS = {"requests": 4, "per": "5h"}
PLAN = plan(HOURS, {"tokens": 600, "per": "1m"}, enforce="account")


def used(ledger: Ledger, count: int, now: float = START) -> None:
    for _ in range(count):
        ledger.settle(ledger.reserve("a", "k", PLAN, now, 100), now, 100)


def test_a_plan_that_nobody_has_used_is_full() -> None:
    ledger = Ledger()
    assert windows(ledger, "a", PLAN, START) == [
        WindowView("requests", 18_000, 4, 0, 4, None, is_smooth=False),
        WindowView("tokens", 60, 600, 0, 600, None, is_smooth=True),
    ]
    assert not [*ledger.counters()]


def test_windows_agree_with_what_requests_see() -> None:
    ledger = Ledger()
    used(ledger, 3)
    for now in (START, START + 10, START + 17_999, START + 18_000, START + 90_000):
        shown = windows(ledger, "a", PLAN, now)
        seen = ledger.view("a", "k", PLAN, now)
        assert [one.remaining for one in shown] == [one.remaining for one in seen]
        for one, other in zip(shown, seen, strict=True):
            assert one.used + one.remaining == one.size
            assert one.reset == (other.reset if one.used else None)


def test_limits_of_each_key_are_those_of_a_key() -> None:
    ledger = Ledger()
    own = plan(HOURS)
    ledger.settle(ledger.reserve("a", "k", own, START), START)
    assert [one.used for one in windows(ledger, "k", own, START)] == [1]
    assert [one.used for one in windows(ledger, "a", own, START)] == [0]


def test_a_limit_is_shown_by_the_plan_of_now() -> None:
    """Before a request has put the new plan into force."""
    ledger = Ledger()
    used(ledger, 3)
    smaller = plan({"requests": 2, "per": "5h"}, enforce="account")
    larger = plan({"requests": 9, "per": "5h"}, enforce="account")
    smooth = plan({**HOURS, "refill": "smooth"}, enforce="account")
    for one, left in ((smaller, 0), (larger, 6), (smooth, 1)):
        (view,) = windows(ledger, "a", one, START)
        assert (view.size, view.used, view.remaining) == (one.limits[0].size, 3, left)


def test_a_bonus_is_part_of_its_windows() -> None:
    ledger = Ledger()
    bonus = ("requests", 18_000, 5, 1)
    assert adjustments.give_bonus(ledger, ("account", "a"), PLAN, bonus, START)
    assert windows(ledger, "a", PLAN, START)[0].size == 9
    used(ledger, 5)
    view = windows(ledger, "a", PLAN, START)[0]
    assert (view.size, view.used, view.remaining) == (9, 5, 4)
    view = windows(ledger, "a", PLAN, START + 18_000)[0]
    assert (view.size, view.used, view.remaining) == (4, 0, 4)

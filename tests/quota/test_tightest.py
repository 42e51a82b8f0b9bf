"""The operator sees which keys have used most of a limit."""

from relay.config import Duration, LimitSettings, PlanSettings
from relay.quota.ledger import Ledger
from relay.quota.plans import compile_plan

PLAN = compile_plan(
    PlanSettings(
        id="free",
        limits=[
            LimitSettings(per=Duration("5h"), requests=4),
            LimitSettings(per=Duration("7d"), requests=100),
        ],
    )
)
NOW = 1_800_000_000.0


def test_the_most_used_limits_come_first() -> None:
    ledger = Ledger()
    for key, requests in (("a", 1), ("b", 3), ("c", 0), ("d", 2)):
        ledger.key_state("ada", key, PLAN, NOW)
        for _ in range(requests):
            ledger.settle(ledger.reserve("ada", key, PLAN, NOW), NOW)
    rows = [(state.key, view.remaining, share) for state, view, share in ledger.tightest(NOW, 3)]
    assert rows == [("b", 1, 0.75), ("d", 2, 0.5), ("a", 3, 0.25)]


def test_no_key_is_shown_that_has_used_nothing() -> None:
    ledger = Ledger()
    ledger.key_state("ada", "a", PLAN, NOW)
    assert ledger.tightest(NOW, 3) == []

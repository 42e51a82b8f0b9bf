"""Plans, compiled."""

import pytest

from relay import config
from relay.config import ConfigError
from relay.quota.plans import compile_changed, compile_plans, period_text

from .plans import FREE, plan


def test_every_shipped_plan_feeds_every_group_of_headers() -> None:
    shipped = compile_plans(config.load("relay.toml").plan)
    assert set(shipped) == {"free", "pro", "max-5x", "max-20x"}
    for one in shipped.values():
        assert (one.primary, one.secondary, one.request_pace, one.token_pace) == (0, 1, 2, 3)
        assert (one.five_hours, one.week) == (0, 1)
        assert [limit.refill for limit in one.limits] == ["window", "window", "smooth", "smooth"]


def test_refunded_requests_count_in_limits_of_up_to_an_hour() -> None:
    limits = plan(*FREE, {"requests": 9, "per": "1h", "refill": "window"}).limits
    assert [limit.counts_when_refunded for limit in limits] == [False, False, True, False, True]


def test_a_group_without_a_fixed_period_takes_the_nearest_limit() -> None:
    odd = plan(
        {"requests": 9, "per": "10s"},
        {"requests": 90, "per": "30m"},
        {"requests": 100, "per": "1d"},
        {"requests": 900, "per": "30d"},
        {"tokens": 5, "per": "1d"},
    )
    assert (odd.primary, odd.secondary, odd.request_pace, odd.token_pace) == (2, 3, 0, 4)
    assert (odd.five_hours, odd.week) == (None, None)
    bare = plan()
    assert (bare.primary, bare.secondary, bare.request_pace, bare.token_pace) == (
        None,
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ([{"requests": 40, "per": "5h"}], 0),
        ([{"requests": 200, "per": "7d"}, {"requests": 40, "per": "5h"}], 1),
        ([{"requests": 100, "per": "1d"}, {"requests": 50, "per": "7d"}], 1),
        ([{"requests": 9, "per": "5h"}, {"requests": 9, "per": "1d"}], 0),
        ([{"requests": 9, "per": "5h"}, {"requests": 90, "per": "30m"}], 0),
        ([{"requests": 9, "per": "5h"}, {"requests": 90, "per": "1m"}], 1),
        ([{"tokens": 9, "per": "1m"}, {"requests": 90, "per": "30d"}], 1),
        ([{"tokens": 9, "per": "1m"}], None),
    ],
)
def test_the_pace_is_the_limit_per_minute_or_the_tightest(
    limits: list[dict[str, object]], shown: int | None
) -> None:
    assert plan(*limits).request_pace == shown


def test_two_limits_of_one_kind_and_period_are_refused() -> None:
    twice = config.PlanSettings(
        id="p",
        limits=[
            config.LimitSettings(per=config.Duration("60m"), requests=5),
            config.LimitSettings(per=config.Duration("1h"), requests=6),
        ],
    )
    with pytest.raises(ConfigError) as refused:
        compile_plans([config.PlanSettings(id="a"), twice])
    assert refused.value.path == "plan[1].limits[1]"
    assert "requests per hour twice" in refused.value.reason


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "second"), (90, "90 seconds"), (60, "minute"), (3600, "hour"), (18_000, "5 hours"),
        (86_400, "day"), (604_800, "week"), (1_209_600, "14 days"),
    ],
)  # fmt: skip
def test_periods_read_well_after_per(seconds: int, words: str) -> None:
    assert period_text(seconds) == words


def test_a_plan_that_stays_as_it_was_is_the_same_object() -> None:
    one, two, three = [config.PlanSettings(id=name) for name in ("a", "b", "c")]
    compiled = compile_plans([one, two])
    dearer = config.PlanSettings(id="b", billing="per-token")
    changed = compile_changed([dearer, three, one], [one, two], compiled)
    assert list(changed) == ["b", "c", "a"]
    assert changed["a"] is compiled["a"]
    assert changed["b"] is not compiled["b"]
    assert changed["b"].prepaid

"""Rate limit fields: present, true, and left out where there is nothing to report."""

import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.quota import rate_limit_fields
from relay.quota.exceeded import QuotaExceeded
from relay.quota.ledger import Ledger
from relay.quota.plans import Plan
from relay.quota.rate_limit_fields import codex_lines, limit_lines, lines, unified_lines

from .plans import FREE, STACKED, START, plan


def fields(lines: bytes) -> dict[str, str]:
    assert lines == b"" or lines.endswith(b"\r\n")
    pairs = [line.split(": ") for line in lines.decode().split("\r\n")[:-1]]
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def after(one: Plan, requests: int, tokens: int = 0) -> tuple[Ledger, Any]:
    ledger = Ledger()
    for _ in range(requests):
        ledger.reserve("a", "k", one, START, tokens)
    return ledger, ledger.key_state("a", "k", one, START)


def test_every_group_reports_its_limit() -> None:
    _, key_state = after(plan(*FREE), 3, 2000)
    assert fields(limit_lines(key_state, START + 0.25)) == {
        "x-ratelimit-limit": "40",
        "x-ratelimit-remaining": "37",
        "x-ratelimit-reset": "2026-04-08T17:01:00.000Z",
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "57",
        "anthropic-ratelimit-requests-reset": "2026-04-08T12:01:03.000Z",
        "anthropic-ratelimit-tokens-limit": "800000",
        "anthropic-ratelimit-tokens-remaining": "797333",
        "anthropic-ratelimit-tokens-reset": "2026-04-08T12:01:00.450Z",
    }


def test_a_full_limit_resets_now() -> None:
    _, key_state = after(plan(*FREE), 0)
    shown = fields(limit_lines(key_state, START + 0.125))
    resets = {value for name, value in shown.items() if name.endswith("reset")}
    assert resets == {"2026-04-08T12:01:00.125Z"}
    assert all(datetime.fromisoformat(reset).tzinfo is UTC for reset in resets)


@pytest.mark.parametrize(
    ("limits", "groups"),
    [
        ([], set()),
        ([{"requests": 5, "per": "5h"}], {"x-ratelimit", "anthropic-ratelimit-requests"}),
        ([{"requests": 5, "per": "1m"}], {"anthropic-ratelimit-requests"}),
        ([{"tokens": 5, "per": "1d"}], {"anthropic-ratelimit-tokens"}),
        (STACKED, {"x-ratelimit", "anthropic-ratelimit-requests"}),
    ],
)
def test_a_group_without_a_limit_is_left_out(
    limits: list[dict[str, Any]], groups: set[str]
) -> None:
    _, key_state = after(plan(*limits), 0)
    assert {name.rpartition("-")[0] for name in fields(limit_lines(key_state, START))} == groups


def test_the_unified_group_names_the_limit_used_most() -> None:
    _, key_state = after(plan({"requests": 40, "per": "5h"}, {"requests": 31, "per": "7d"}), 30)
    unified = "anthropic-ratelimit-unified"
    assert fields(unified_lines(key_state, START)) == {
        f"{unified}-status": "allowed_warning",
        f"{unified}-representative-claim": "seven_day",
        f"{unified}-reset": str(int(START) + 604_800),
        f"{unified}-5h-status": "allowed_warning",
        f"{unified}-5h-utilization": "0.75",
        f"{unified}-5h-reset": str(int(START) + 18_000),
        f"{unified}-7d-status": "allowed_warning",
        f"{unified}-7d-utilization": "0.967",
        f"{unified}-7d-reset": str(int(START) + 604_800),
    }


@pytest.mark.parametrize(
    ("limits", "names"),
    [([], 0), ([FREE[0]], 6), ([FREE[1]], 6), ([{"requests": 9, "per": "1d"}], 0), (STACKED, 9)],
)
def test_the_unified_group_reports_only_its_two_periods(
    limits: list[dict[str, Any]], names: int
) -> None:
    _, key_state = after(plan(*limits), 0)
    assert len(fields(unified_lines(key_state, START))) == names


def test_only_a_limit_longer_than_an_hour_rejects() -> None:
    for limits, claim in (
        ([{"requests": 3, "per": "5h"}, {"requests": 9, "per": "7d"}], "five_hour"),
        ([{"requests": 9, "per": "5h"}, {"requests": 3, "per": "7d"}], "seven_day"),
        ([{"requests": 3, "per": "1d"}], "seven_day"),
        ([{"requests": 9, "per": "5h"}, {"requests": 3, "per": "1m"}], None),
    ):
        one = plan(*limits)
        ledger, key_state = after(one, 3)
        with pytest.raises(QuotaExceeded) as refused:
            ledger.reserve("a", "k", one, START)
        shown = fields(unified_lines(key_state, START, refused.value))
        if claim is None:
            assert shown["anthropic-ratelimit-unified-status"] == "allowed"
            continue
        assert shown["anthropic-ratelimit-unified-status"] == "rejected"
        assert shown["anthropic-ratelimit-unified-representative-claim"] == claim
        assert shown["anthropic-ratelimit-unified-reset"] == str(refused.value.resets_at)
        rejected = [name for name, value in shown.items() if value == "rejected"]
        assert len(rejected) == (1 if len(shown) == 3 else 2)


def test_codex_gets_both_meters() -> None:
    _, key_state = after(plan(*FREE), 1)
    assert fields(codex_lines(key_state, START)) == {
        "x-codex-primary-used-percent": "2.5",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": str(int(START) + 18_000),
        "x-codex-secondary-used-percent": "0.5",
        "x-codex-secondary-window-minutes": "10080",
        "x-codex-secondary-reset-at": str(int(START) + 604_800),
    }
    assert codex_lines(after(plan(), 0)[1], START) == b""


def test_more_timestamps_than_the_cache_holds_are_right() -> None:
    _, key_state = after(plan(*FREE), 1)
    for number in range(5000):
        now = START + 20_000 + number
        reset = fields(limit_lines(key_state, now))["x-ratelimit-reset"]
        assert datetime.fromisoformat(reset).timestamp() == now


def test_more_keys_than_the_cache_holds_get_their_own_lines() -> None:
    one, ledger = plan(*FREE), Ledger()
    keys = [(f"k{number}", number % 30) for number in range(5000)]
    for key, requests in keys[:30]:
        for _ in range(requests):
            ledger.reserve("a", key, one, START)
    for key, _ in (*keys, *keys[:30]):
        key_state = ledger.key_state("a", key, one, START)
        shown = fields(lines(key_state, START))
        assert shown == fields(limit_lines(key_state, START) + unified_lines(key_state, START))
        assert len(rate_limit_fields._lines_of) <= 4096
    assert shown["x-ratelimit-remaining"] == "11"


PLANS = [plan(*FREE), plan(*FREE[:3], {"tokens": 900, "per": "1m"}), plan(*STACKED)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(PLANS),
            st.sampled_from([0.0, 0.001, 1.0, 59.5, 3 * 3600.0, 90_000.0]),
            st.integers(0, 9),
        ),
        max_size=30,
    )
)
def test_cached_lines_are_never_out_of_date(
    steps: list[tuple[Plan, float, int]],
) -> None:
    """`lines` caches some; `limit_lines` and `unified_lines` cache none."""
    ledger, now = Ledger(), START
    for one, passed, requests in steps:
        now += passed
        for _ in range(requests):
            with contextlib.suppress(QuotaExceeded):
                ledger.reserve("a", "k", one, now, 50)
        key_state = ledger.key_state("a", "k", one, now)
        assert fields(lines(key_state, now)) == fields(
            limit_lines(key_state, now) + unified_lines(key_state, now)
        )

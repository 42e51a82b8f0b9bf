"""The error of a refused caller, and the fields that make its client stop or wait."""

import contextlib
import json

import pytest

from relay.errors import ErrorShape
from relay.quota.exceeded import QuotaExceeded
from relay.quota.ledger import Ledger
from relay.quota.plans import Plan

from .plans import START, plan


def refusal(one: Plan, now: float = START, tokens: int = 0, cost: int = 0) -> QuotaExceeded:
    ledger = Ledger()
    ledger.fund("a", 1_500_000)
    with contextlib.suppress(QuotaExceeded):
        for _ in range(1000):
            ledger.reserve("a", "k", one, START, tokens, cost)
    with pytest.raises(QuotaExceeded) as refused:
        ledger.reserve("a", "k", one, now, tokens, cost)
    return refused.value


def test_a_used_up_window_stops_every_client_until_its_reset() -> None:
    refused = refusal(plan({"requests": 40, "per": "5h"}), START + 0.5)
    assert refused.headers == ((b"retry-after", b"18000"), (b"x-should-retry", b"false"))
    assert refused.message == (
        "The limit of plan Test is reached: 40 requests per 5 hours. "
        "It resets at 2026-04-08 17:01:00 UTC, in 5 h."
    )
    error = json.loads(refused.body(ErrorShape.MESSAGES, "req_1"))
    assert error["error"]["type"] == "rate_limit_error"
    assert json.loads(refused.body(ErrorShape.OPENAI))["error"]["type"] == "insufficient_quota"
    codex = json.loads(refused.body(ErrorShape.RESPONSES))["error"]
    assert (codex["type"], codex["resets_at"]) == ("usage_limit_reached", int(START) + 18_000)


def test_a_rate_limit_asks_to_wait_full_seconds() -> None:
    refused = refusal(plan({"requests": 40, "per": "1m"}, enforce="account"), START + 0.6)
    assert refused.headers == ((b"retry-after", b"1"),)
    assert refused.message == (
        "Plan Test allows 40 requests per minute, shared by all keys of this account. "
        "Please try again in 1s."
    )
    assert json.loads(refused.body(ErrorShape.OPENAI))["error"]["type"] == "rate_limit_exceeded"
    assert json.loads(refused.body(ErrorShape.RESPONSES))["error"]["code"] == "rate_limit_exceeded"


def test_a_minute_is_worth_waiting_for_but_no_second_more() -> None:
    limit = plan({"requests": 1, "per": "2h"})
    at_sixty = refusal(limit, START + 7200 - 60)
    assert at_sixty.headers == ((b"retry-after", b"60"),)
    above = refusal(limit, START + 7200 - 60.001)
    assert above.headers == ((b"retry-after", b"61"), (b"x-should-retry", b"false"))
    assert above.message.endswith("in 2 min.")


def test_a_request_is_admitted_after_retry_after() -> None:
    for limit in ({"requests": 7, "per": "1m"}, {"requests": 7, "per": "3h"}):
        for part in range(50):
            one, ledger = plan(limit), Ledger()
            for _ in range(7):
                ledger.reserve("a", "k", one, START)
            now = START + part * 0.0173
            with pytest.raises(QuotaExceeded) as refused:
                ledger.reserve("a", "k", one, now)
            assert refused.value.retry_after is not None
            ledger.reserve("a", "k", one, now + refused.value.retry_after)


def test_a_balance_that_is_too_small_is_402_and_final() -> None:
    refused = refusal(plan(billing="per-token"), cost=2_000_000)
    assert refused.kind.status == 402
    assert refused.headers == ((b"x-should-retry", b"false"),)
    assert refused.message == (
        "The balance of this account, $1.5, does not cover this request, which may cost $2; a "
        "lower max_tokens makes it less. Ask the operator of this relay for credit."
    )
    assert json.loads(refused.body(ErrorShape.MESSAGES))["error"]["type"] == "billing_error"
    assert json.loads(refused.body(ErrorShape.RESPONSES))["error"]["type"] == "insufficient_quota"
    statuses = {shape: refused.status(shape) for shape in ErrorShape}
    assert statuses == {
        ErrorShape.MESSAGES: 402,
        ErrorShape.OPENAI: 402,
        ErrorShape.RESPONSES: 429,  # Codex repeats a 402 and stops at a 429
        ErrorShape.GEMINI: 402,
    }


def test_a_balance_held_by_others_is_worth_a_retry() -> None:
    refused = refusal(plan(billing="per-token"), cost=1_000_000)
    assert (refused.kind.status, refused.retry_after) == (429, 5)


def test_the_obstacle_that_lasts_longest_is_named() -> None:
    one = plan({"requests": 2, "per": "5h"}, max_concurrency=2)
    assert refusal(one).limit == one.limits[0]
    one = plan({"requests": 2, "per": "5h"}, {"requests": 2, "per": "1m"})
    assert refusal(one).limit == one.limits[0]
    one = plan({"requests": 2, "per": "1m"}, {"requests": 2, "per": "5h"})
    assert refusal(one).limit == one.limits[1]
    assert "1 request at once per key" in refusal(plan(max_concurrency=1)).message

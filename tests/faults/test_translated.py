"""The faults of an upstream in translated dialects: a small table of its own.

A row is an `x-simulate` script, and the `openai` SDK's view of it without and with `stream`.
Translation differs from the full table (`outcomes`) in two ways: an error event can always
follow, and nothing unreadable is passed on.
"""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import openai
import pytest

from relay.simulator.app import Simulator
from tests.clients.conftest import openai_client
from tests.fakes.live import RelayWith
from tests.faults.conftest import PLAN, QUOTA
from tests.faults.test_elsewhere import open_pair

ALONE = "claude-haiku-4-5"  # served only by the faulty upstream
BOTH = "claude-sonnet-4-7"
SERVED = [
    {"id": ALONE, "routes": [{"upstream": "faulty"}]},
    {"id": BOTH, "routes": [{"upstream": "faulty"}, {"upstream": "healthy"}]},
]
DEADLINE = 0.2  # seconds; `quick_clock` ticks every 20 ms


@dataclass(frozen=True)
class Seen:
    """The SDK's error, and the settlement of the request.

    `status` None: raised within a stream. `error` None: the answer is complete. `final`: not
    retried at another upstream.
    """

    error: type[openai.APIError] | None
    status: int | None = None
    code: str | None = None
    message: str = ""
    rule: str = "refunded"
    final: bool = False

    @property
    def elsewhere(self) -> bool:
        return self.error is not None and not self.final


def error_event(code: str, message: str, rule: str = "partial") -> Seen:
    """An error event after content."""
    return Seen(openai.APIError, None, code, message, rule, final=True)


COMPLETE: Final = Seen(None, rule="reported")
BAD: Final = Seen(openai.BadRequestError, 400, None, final=True)
LIMITED: Final = Seen(openai.RateLimitError, 429, "rate_limit_exceeded", "rate limit")
OVERLOADED: Final = Seen(openai.InternalServerError, 503, "overloaded", "Overloaded")
OPERATORS: Final = Seen(openai.InternalServerError, 503, "overloaded", "operator")
HTML: Final = Seen(openai.InternalServerError, 500, "internal_error", "answered 500")
LATE: Final = Seen(openai.InternalServerError, 500, "internal_error", "KV cache is full")
LATE_EVENT: Final = error_event("internal_error", "KV cache is full", "reported")
BROKE_OFF: Final = Seen(openai.InternalServerError, 502, "bad_upstream", "broke off")
UNREADABLE: Final = Seen(openai.InternalServerError, 502, "bad_upstream", "cannot be read")
TIMED_OUT: Final = Seen(openai.InternalServerError, 504, "upstream_timeout", "in time", final=True)
BREAKS: Final = error_event("bad_upstream", "broke off")
GARBLED: Final = error_event("bad_upstream", "cannot be read")
FALLS_SILENT: Final = error_event("upstream_timeout", "in time")
ENDS: Final = error_event("overloaded", "Overloaded", "reported")

SEEN: Final[dict[str, tuple[Seen, Seen]]] = {
    "status=400": (BAD, BAD),
    "status=401": (OPERATORS, OPERATORS),
    "status=429": (LIMITED, LIMITED),
    "status=529": (OVERLOADED, OVERLOADED),
    "fault=html": (HTML, HTML),
    "fault=garbage": (UNREADABLE, UNREADABLE),
    "fault=close": (BROKE_OFF, BROKE_OFF),
    "fault=gzip": (COMPLETE, COMPLETE),
    "fault=zstd": (COMPLETE, COMPLETE),
    "fault=deflate": (COMPLETE, COMPLETE),
    "fault=other-form": (COMPLETE, COMPLETE),
    "fault=label": (COMPLETE, COMPLETE),
    "fault=no-stop": (COMPLETE, COMPLETE),
    "fault=envelope": (LATE, LATE),
    "fault=nothing": (UNREADABLE, UNREADABLE),
    "fault=page": (UNREADABLE, UNREADABLE),
    "fault=error-object;at=3": (LATE, LATE),
    "fault=error-object": (LATE, LATE_EVENT),
    "fault=error;at=3": (OVERLOADED, OVERLOADED),  # message_start, an empty text, a ping
    "fault=error": (OVERLOADED, ENDS),
    "fault=cut;at=3": (BROKE_OFF, BROKE_OFF),
    "fault=cut": (BROKE_OFF, BREAKS),
    "fault=clean-end": (BROKE_OFF, BREAKS),
    "fault=truncated-chunk": (BROKE_OFF, BREAKS),
    "fault=stall;at=3": (TIMED_OUT, TIMED_OUT),
    "fault=stall": (TIMED_OUT, FALLS_SILENT),
    "fault=garbage-sse;at=7;pace=100": (BROKE_OFF, GARBLED),  # the text before it is sent first
    "fault=extra": (COMPLETE, COMPLETE),
}


Ask = Callable[..., Awaitable[Any]]


@pytest.fixture(autouse=True)
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at deadlines every 20 ms instead of four times a second, for short tests."""
    monkeypatch.setattr("relay.net.deadlines.TICK", 0.02)


class FailedError(Exception):
    """The error of a `response.failed` event."""

    def __init__(self, error: Any) -> None:
        super().__init__(error.message)
        self.code, self.message = error.code, error.message


async def ask_responses(
    sdk: openai.AsyncOpenAI, model: str, streamed: bool, script: str = ""
) -> Any:
    """The text of a complete response, or the error."""
    asked: Any = {
        "model": model,
        "input": "by sdk",
        "max_output_tokens": 200,
        "extra_headers": {"x-simulate": script} if script else {},
    }
    try:
        if not streamed:
            response = await sdk.responses.create(**asked)
        else:
            async for event in await sdk.responses.create(**asked, stream=True):
                last: Any = event
            response = last.response
            if last.type == "response.failed":
                raise FailedError(response.error)
            assert last.type == "response.completed"
    except Exception as error:
        return error
    assert response.status == "completed"
    return response.output_text


async def ask_chat(sdk: openai.AsyncOpenAI, model: str, streamed: bool, script: str = "") -> Any:
    """The text of a complete answer, or the error."""
    asked: Any = {
        "model": model,
        "messages": [{"role": "user", "content": "by sdk"}],
        "max_tokens": 200,
        "extra_headers": {"x-simulate": script} if script else {},
    }
    try:
        if not streamed:
            answer = await sdk.chat.completions.create(**asked)
        else:
            async with sdk.chat.completions.stream(**asked) as stream:
                answer = await stream.get_final_completion()
    except Exception as error:
        return error
    assert answer.choices[0].finish_reason == "stop"
    return answer.choices[0].message.content


def check(error: Any, seen: Seen) -> None:
    if seen.error is None:
        assert "“by sdk”" in error
        return
    if isinstance(error, FailedError):  # clients retry all of these
        assert seen.status is None
        assert error.code == "server_error"
        assert seen.message in error.message
        return
    assert type(error) is seen.error, repr(error)
    assert getattr(error, "status_code", None) == seen.status
    assert error.code == seen.code
    assert seen.message in error.message
    assert error.type


def asked_for_messages(simulator: Simulator) -> int:
    """The number of its requests that are no probes."""
    came = simulator.journal.report()["requests"]
    return sum(entry["target"] == "/v1/messages" for entry in came)


@pytest.mark.matrix(share=4)
@pytest.mark.parametrize("script", SEEN)
@pytest.mark.parametrize("streamed", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("ask", [ask_chat, ask_responses], ids=["chat", "responses"])
async def test_a_fault_is_an_sdk_error_or_another_upstreams_answer(
    stack: contextlib.AsyncExitStack, relay_with: RelayWith, script: str, streamed: bool, ask: Ask
) -> None:
    seen = SEEN[script][streamed]
    pair = await open_pair(stack, relay_with, DEADLINE, model=SERVED, plan=PLAN)
    async with openai_client(pair.relay) as sdk:
        check(await ask(sdk, ALONE, streamed, script), seen)
        line = await pair.log_line(0)
        assert (line["rule"], line["status"]) == (seen.rule, seen.status or 200)

        pair.spoil(script)
        check(await ask(sdk, BOTH, streamed), COMPLETE if seen.elsewhere else seen)
        line = await pair.log_line(1)
        assert line["upstream"] == ("healthy" if seen.elsewhere else "faulty")
        assert line["rule"] == ("reported" if seen.elsewhere else seen.rule)
        # Never twice at the same upstream; a silent one may be probed.
        assert [asked_for_messages(one) for one in (pair.faulty, pair.healthy)] == [
            1,
            int(seen.elsewhere),
        ]

        pair.relay.app.upstreams[0].health.clear()
        last = await sdk.chat.completions.with_raw_response.create(
            model=ALONE, messages=[{"role": "user", "content": "quota"}]
        )
        counted = sum(line["rule"] != "refunded" for line in pair.relay.log()[:2])
        assert int(last.headers["x-ratelimit-remaining"]) == QUOTA - counted - 1

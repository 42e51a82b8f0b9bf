"""The token counts of an answer, read from an event or a document.

Decides which counts apply (Anthropic API reference, Streaming messages and Usage; some vendors
differ). Counts are cumulative, so a count never falls: a later 0 or null erases nothing. Zero input
tokens in `message_start` mean unknown. A count may be a text or have a fraction, which is rounded
up; a count that is none of these is ignored and costs nothing else of its event. Must not
know prices or plans.
"""

import re
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import msgspec

_MAX_TOKENS: Final = 10**9  # in one answer; sums and prices must not overflow
_MAX_NAME: Final = 128  # characters of a model's name
_NUMBER: Final = re.compile(r"[ ]*([0-9]{1,18})(\.[0-9]{0,18})?[ ]*", re.ASCII)


@dataclass(slots=True)
class Iteration:
    """The token counts of one run of a model within an answer (`usage.iterations`).

    `model` is None where it is the model that was asked for. `cache_write_1h` is the part of
    `cache_write` that is kept for an hour.
    """

    model: str | None = None
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0


@dataclass(slots=True)
class Usage:
    """The token counts of one answer; None for a count that the upstream did not state.

    `complete`: the answer has ended properly. A document decodes; a stream has a `message_stop`,
    or an `error` event, which ends it as well. `iterations`: the runs that the answer is billed
    by, where it states them; the counts beside them are those of the last one.
    """

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    model: str | None = None
    stop_reason: str | None = None
    complete: bool = False
    error: bool = False  # the answer is a stream, and an error event ended it
    thinking: int | None = None  # the part of `output` that is thinking
    cache_write_1h: int = 0  # the part of `cache_write` that is kept for an hour
    web_searches: int = 0
    web_fetches: int = 0
    code_executions: int = 0
    speed: str | None = None
    geography: str | None = None
    tier: str | None = None
    iterations: tuple[Iteration, ...] = ()
    passed: int = 0  # octets of text in the deltas of a stream that has not reported its output

    @property
    def stated(self) -> bool:
        """Whether the answer has stated any tokens."""
        return self.input is not None or self.output is not None or bool(self.iterations)

    def billed(self) -> tuple[Iteration, ...]:
        """All runs that are billed: the iterations, and the counts that exceed their sum."""
        total = Iteration(
            None,
            self.input or 0,
            self.output or 0,
            self.cache_read or 0,
            self.cache_write or 0,
            self.cache_write_1h,
        )
        for part in self.iterations:
            total.input -= part.input
            total.output -= part.output
            total.cache_read -= part.cache_read
            total.cache_write -= part.cache_write
            total.cache_write_1h -= part.cache_write_1h
        total.input = max(total.input, 0)
        total.output = max(total.output, 0)
        total.cache_read = max(total.cache_read, 0)
        total.cache_write = max(total.cache_write, 0)
        total.cache_write_1h = min(max(total.cache_write_1h, 0), total.cache_write)
        return (*self.iterations, total)


class _Counts(msgspec.Struct):
    input_tokens: Any = None
    output_tokens: Any = None
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None
    cache_creation: Any = None
    output_tokens_details: Any = None
    server_tool_use: Any = None
    iterations: Any = None
    speed: Any = None
    inference_geo: Any = None
    service_tier: Any = None


class _Message(msgspec.Struct):
    model: Any = None
    stop_reason: Any = None
    usage: _Counts | None = None


class _StreamEvent(msgspec.Struct):
    type: Any = ""
    message: _Message | None = None
    usage: _Counts | None = None
    delta: Any = None


class _OddMessage(msgspec.Struct):
    """A message whose usage is no object; its other members still count."""

    model: Any = None
    stop_reason: Any = None
    usage: msgspec.Raw = msgspec.Raw()


class _OddEvent(msgspec.Struct):
    type: Any = ""
    message: Any = None
    usage: msgspec.Raw = msgspec.Raw()
    delta: Any = None


_decode_message: Final = msgspec.json.Decoder(_Message).decode
_decode_odd_message: Final = msgspec.json.Decoder(_OddMessage).decode
_decode_event: Final = msgspec.json.Decoder(_StreamEvent).decode
_decode_odd_event: Final = msgspec.json.Decoder(_OddEvent).decode
_decode_counts: Final = msgspec.json.Decoder(_Counts).decode


def _count(value: Any) -> int | None:
    """A count of tokens; None if it is none, or impossible."""
    if type(value) is float and 0 <= value <= _MAX_TOKENS:
        value = ceil(value)
    elif isinstance(value, str) and (number := _NUMBER.fullmatch(value)) is not None:
        value = int(number[1]) + bool((number[2] or "").strip(".0"))
    if type(value) is int and 0 <= value <= _MAX_TOKENS:  # a bool is an int, too
        return value
    return None


def _word(value: Any) -> str | None:
    return value[:_MAX_NAME] if isinstance(value, str) else None


def _higher(known: int | None, value: Any) -> int | None:
    """The higher of a count that is known and one that is stated."""
    count = _count(value)
    if count is None or (known is not None and known > count):
        return known
    return count


def _record_counts(usage: Usage, counts: _Counts | None, *, start: bool = False) -> None:
    """Record the counts that are stated; an impossible count is ignored."""
    if counts is None:
        return
    if not start or _count(counts.input_tokens):
        usage.input = _higher(usage.input, counts.input_tokens)
    usage.output = _higher(usage.output, counts.output_tokens)
    usage.cache_read = _higher(usage.cache_read, counts.cache_read_input_tokens)
    usage.cache_write = _higher(usage.cache_write, counts.cache_creation_input_tokens)
    if isinstance(counts.cache_creation, dict):
        hour, both = _cache_writes(counts.cache_creation)
        if both:
            usage.cache_write_1h = max(usage.cache_write_1h, hour)
            usage.cache_write = _higher(usage.cache_write, both)
    if isinstance(counts.output_tokens_details, dict):
        usage.thinking = _higher(
            usage.thinking, counts.output_tokens_details.get("thinking_tokens")
        )
    if isinstance(counts.server_tool_use, dict):
        number = counts.server_tool_use.get
        usage.web_searches = max(usage.web_searches, _count(number("web_search_requests")) or 0)
        usage.web_fetches = max(usage.web_fetches, _count(number("web_fetch_requests")) or 0)
        usage.code_executions = max(
            usage.code_executions, _count(number("code_execution_requests")) or 0
        )
    usage.speed = _word(counts.speed) or usage.speed
    usage.geography = _word(counts.inference_geo) or usage.geography
    usage.tier = _word(counts.service_tier) or usage.tier
    if isinstance(counts.iterations, list) and len(counts.iterations) >= len(usage.iterations):
        entries = counts.iterations
        usage.iterations = tuple([_iteration(part) for part in entries if isinstance(part, dict)])


def _cache_writes(stated: dict[str, Any]) -> tuple[int, int]:
    """Tokens written to the cache for an hour, and in all."""
    hour = _count(stated.get("ephemeral_1h_input_tokens")) or 0
    return hour, hour + (_count(stated.get("ephemeral_5m_input_tokens")) or 0)


def _iteration(stated: dict[str, Any]) -> Iteration:
    hour = both = 0
    if isinstance(stated.get("cache_creation"), dict):
        hour, both = _cache_writes(stated["cache_creation"])
    return Iteration(
        _word(stated.get("model")),
        _count(stated.get("input_tokens")) or 0,
        _count(stated.get("output_tokens")) or 0,
        _count(stated.get("cache_read_input_tokens")) or 0,
        max(_count(stated.get("cache_creation_input_tokens")) or 0, both),
        hour,
    )


def record_event(usage: Usage, data: bytes) -> bool:
    """Record the usage in the data of an event; whether the event is a `message_delta`."""
    event: _StreamEvent | _OddEvent
    try:
        event = _decode_event(data)
    except msgspec.ValidationError:
        return _record_odd_event(usage, data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    if event.type == "message_start" and event.message is not None:
        usage.model = _word(event.message.model)
        _record_counts(usage, event.message.usage, start=True)
    elif event.type == "message_delta":
        _record_counts(usage, event.usage)
        _record_stop_reason(usage, event.delta)
        return True
    return False


def _record_odd_event(usage: Usage, data: bytes) -> bool:
    """Record an event of which a member has the wrong type: that one says nothing."""
    try:
        event = _decode_odd_event(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    if event.type == "message_start" and isinstance(event.message, dict):
        usage.model = _word(event.message.get("model"))
    elif event.type == "message_delta":
        _record_stop_reason(usage, event.delta)
        try:
            _record_counts(usage, _decode_counts(event.usage))
        except msgspec.MsgspecError:
            pass
        return True
    return False


def _record_stop_reason(usage: Usage, delta: Any) -> None:
    if isinstance(delta, dict):
        usage.stop_reason = _word(delta.get("stop_reason")) or usage.stop_reason


def message_usage(body: bytes) -> Usage:
    """The usage of a complete JSON document."""
    usage = Usage(complete=True)
    try:
        message = _decode_message(body)
    except msgspec.ValidationError:
        return _odd_message_usage(body)
    except (UnicodeDecodeError, RecursionError):
        return usage  # it is complete; the caller can check its shape
    except msgspec.DecodeError:
        usage.complete = False
        return usage
    usage.model = _word(message.model)
    usage.stop_reason = _word(message.stop_reason)
    _record_counts(usage, message.usage)
    return usage


def _odd_message_usage(body: bytes) -> Usage:
    """What can be read of a document whose usage is no object, or that is no object itself."""
    usage = Usage(complete=True)
    try:
        message = _decode_odd_message(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return usage
    usage.model = _word(message.model)
    usage.stop_reason = _word(message.stop_reason)
    return usage

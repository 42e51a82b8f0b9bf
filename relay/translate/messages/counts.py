"""The token counts of an answer, read from an event or a document.

Decides which counts apply (Anthropic API reference, Streaming messages and Usage; some vendors
differ). Counts are cumulative, so a count never falls: a later 0 or null erases nothing. Zero input
tokens in `message_start` mean unknown. A count may be a text or have a fraction, which is rounded
up; a count that is none of these is ignored and costs nothing else of its event. Must not
know prices or plans.
"""

import json
import re
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import msgspec

from relay.translate.messages.counts_fields import (
    CacheWrites,
    CountFields,
    EventFields,
    MessageFields,
    OddCounts,
    OddEvent,
    OddMessage,
    OutputDetails,
    ServerTools,
)

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


class Usage:  # no dataclass: a compiled one has an interpreted __init__, per request
    """The token counts of one answer; None for a count that the upstream did not state.

    `complete`: the answer has ended properly. A document decodes; a stream has a `message_stop`,
    or an `error` event, which ends it as well. `iterations`: the runs that the answer is billed
    by, where it states them; the counts beside them are those of the last one.
    """

    __slots__ = (
        "cache_read",
        "cache_write",
        "cache_write_1h",
        "code_executions",
        "complete",
        "error",
        "geography",
        "input",
        "iterations",
        "model",
        "output",
        "passed",
        "speed",
        "stop_reason",
        "thinking",
        "tier",
        "web_fetches",
        "web_searches",
    )

    def __init__(
        self,
        input: int | None = None,
        output: int | None = None,
        cache_read: int | None = None,
        cache_write: int | None = None,
        complete: bool = False,
    ) -> None:
        self.input = input
        self.output = output
        self.cache_read = cache_read
        self.cache_write = cache_write
        self.model: str | None = None
        self.stop_reason: str | None = None
        self.complete = complete
        self.error = False  # the answer is a stream, and an error event ended it
        self.thinking: int | None = None  # the part of `output` that is thinking
        self.cache_write_1h = 0  # the part of `cache_write` that is kept for an hour
        self.web_searches = 0
        self.web_fetches = 0
        self.code_executions = 0
        self.speed: str | None = None
        self.geography: str | None = None
        self.tier: str | None = None
        self.iterations: tuple[Iteration, ...] = ()
        # Octets of text in the deltas of a stream that has not reported its output.
        self.passed = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Usage) and self._values() == other._values()

    def _values(self) -> tuple[object, ...]:
        return (
            self.input, self.output, self.cache_read, self.cache_write, self.model,
            self.stop_reason, self.complete, self.error, self.thinking, self.cache_write_1h,
            self.web_searches, self.web_fetches, self.code_executions, self.speed, self.geography,
            self.tier, self.iterations, self.passed,
        )  # fmt: skip

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


# The same where a member has another type than it should. Such a member says nothing, or is read
# as well as it can be.


_decode_message: Final = msgspec.json.Decoder(MessageFields).decode
_decode_event: Final = msgspec.json.Decoder(EventFields).decode
_decode_odd_message: Final = msgspec.json.Decoder(OddMessage).decode
_decode_odd_event: Final = msgspec.json.Decoder(OddEvent).decode
_decode_odd_counts: Final = msgspec.json.Decoder(OddCounts).decode


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


def _record_counts(usage: Usage, counts: CountFields | None, *, start: bool = False) -> None:
    """Record the counts that are stated, where they are higher; an impossible one is ignored."""
    if counts is None:
        return
    count = counts.input_tokens
    if count is not None and (usage.input or -1) < count <= _MAX_TOKENS and (count or not start):
        usage.input = count
    count = counts.output_tokens
    if count is not None and (usage.output or -1) < count <= _MAX_TOKENS:
        usage.output = count
    count = counts.cache_read_input_tokens
    if count is not None and (usage.cache_read or -1) < count <= _MAX_TOKENS:
        usage.cache_read = count
    count = counts.cache_creation_input_tokens
    if count is not None and (usage.cache_write or -1) < count <= _MAX_TOKENS:
        usage.cache_write = count
    writes = counts.cache_creation
    if writes is not None:
        hour = _possible(writes.ephemeral_1h_input_tokens)
        both = hour + _possible(writes.ephemeral_5m_input_tokens)
        if hour > usage.cache_write_1h:
            usage.cache_write_1h = hour
        if both > (usage.cache_write or 0):
            usage.cache_write = both
    if counts.output_tokens_details is not None:
        count = counts.output_tokens_details.thinking_tokens
        if count is not None and (usage.thinking or -1) < count <= _MAX_TOKENS:
            usage.thinking = count
    tools = counts.server_tool_use
    if tools is not None:
        usage.web_searches = max(usage.web_searches, _possible(tools.web_search_requests))
        usage.web_fetches = max(usage.web_fetches, _possible(tools.web_fetch_requests))
        executions = _possible(tools.code_execution_requests)
        usage.code_executions = max(usage.code_executions, executions)
    if counts.speed is not None:
        usage.speed = counts.speed
    if counts.inference_geo is not None:
        usage.geography = counts.inference_geo
    if counts.service_tier is not None:
        usage.tier = counts.service_tier
    if counts.iterations is not None and len(counts.iterations) >= len(usage.iterations):
        entries = counts.iterations
        usage.iterations = tuple([_iteration(part) for part in entries if isinstance(part, dict)])


def _possible(count: int) -> int:
    """A count; 0 for an impossible one."""
    return count if 0 <= count <= _MAX_TOKENS else 0


def _readable_counts(raw: msgspec.Raw) -> CountFields | None:
    """Counts of which some have the wrong type, as well as they can be read."""
    try:
        odd = _decode_odd_counts(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    counts = CountFields(
        _count(odd.input_tokens),
        _count(odd.output_tokens),
        _count(odd.cache_read_input_tokens),
        _count(odd.cache_creation_input_tokens),
        speed=_word(odd.speed),
        inference_geo=_word(odd.inference_geo),
        service_tier=_word(odd.service_tier),
    )
    if isinstance(odd.cache_creation, dict):
        counts.cache_creation = CacheWrites(*_cache_writes(odd.cache_creation))
    if isinstance(odd.output_tokens_details, dict):
        thinking = _count(odd.output_tokens_details.get("thinking_tokens"))
        counts.output_tokens_details = OutputDetails(thinking)
    if isinstance(odd.server_tool_use, dict):
        stated = odd.server_tool_use.get
        counts.server_tool_use = ServerTools(
            _count(stated("web_search_requests")) or 0,
            _count(stated("web_fetch_requests")) or 0,
            _count(stated("code_execution_requests")) or 0,
        )
    if isinstance(odd.iterations, list):
        counts.iterations = odd.iterations
    return counts


def _cache_writes(stated: dict[str, Any]) -> tuple[int, int]:
    """Tokens written to the cache for an hour, and for five minutes."""
    hour = _count(stated.get("ephemeral_1h_input_tokens")) or 0
    return hour, _count(stated.get("ephemeral_5m_input_tokens")) or 0


def _iteration(stated: dict[str, Any]) -> Iteration:
    hour = minutes = 0
    if isinstance(stated.get("cache_creation"), dict):
        hour, minutes = _cache_writes(stated["cache_creation"])
    return Iteration(
        _word(stated.get("model")),
        _count(stated.get("input_tokens")) or 0,
        _count(stated.get("output_tokens")) or 0,
        _count(stated.get("cache_read_input_tokens")) or 0,
        max(_count(stated.get("cache_creation_input_tokens")) or 0, hour + minutes),
        hour,
    )


def record_event(usage: Usage, data: bytes) -> bool:
    """Record the usage in the data of an event; whether the event is a `message_delta`."""
    try:
        event = _decode_event(data)
    except msgspec.ValidationError:
        return _record_odd_event(usage, data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    if event.type == "message_start" and event.message is not None:
        usage.model = event.message.model
        _record_counts(usage, event.message.usage, start=True)
    elif event.type == "message_delta":
        _record_counts(usage, event.usage)
        _record_stop_reason(usage, event.delta)
        return True
    return False


def _record_odd_event(usage: Usage, data: bytes) -> bool:
    try:
        event = _decode_odd_event(data)
        if event.type == "message_start":
            message = _decode_odd_message(event.message)
            usage.model = _word(message.model)
            _record_counts(usage, _readable_counts(message.usage), start=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    if event.type == "message_delta":
        _record_counts(usage, _readable_counts(event.usage))
        _record_stop_reason(usage, event.delta)
        return True
    return False


def _record_stop_reason(usage: Usage, delta: Any) -> None:
    if isinstance(delta, dict):
        reason = delta.get("stop_reason")
        usage.stop_reason = reason if isinstance(reason, str) else usage.stop_reason


def message_usage(body: bytes) -> Usage:
    """The usage of a complete JSON document."""
    usage = Usage(complete=True)
    try:
        try:
            message = _decode_message(body)
        except msgspec.ValidationError:
            _record_odd_message(usage, _decode_odd_message(body))
            return usage
    except (msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return usage  # it is complete; the caller can check its shape
    except msgspec.DecodeError:
        if b"\\ud" in body.lower():  # half a character, perhaps
            return _usage_by_json(body)
        usage.complete = False
        return usage
    usage.model = message.model
    usage.stop_reason = message.stop_reason
    _record_counts(usage, message.usage)
    return usage


def _usage_by_json(body: bytes) -> Usage:
    """The usage of a document that only the standard library reads: with a lone surrogate."""
    try:
        members = json.loads(body)
        known = {name: members.get(name) for name in ("model", "stop_reason", "usage")}
    except (AttributeError, ValueError, RecursionError):
        return Usage()
    return message_usage(json.dumps(known, ensure_ascii=False).encode(errors="replace"))


def event_type(data: bytes) -> str:
    """The `type` of an event's data; "" if it has none or cannot be read."""
    try:
        return _decode_event(data).type
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _record_odd_message(usage: Usage, message: OddMessage) -> None:
    usage.model = _word(message.model)
    usage.stop_reason = _word(message.stop_reason)
    _record_counts(usage, _readable_counts(message.usage))

"""Usage is read as vendors bill it, whole and streamed, and in every dialect."""

import json
from typing import Any

import pytest

from relay.translate.chat.answer import AnswerMetadata as ChatMetadata
from relay.translate.chat.answer import ChatStream
from relay.translate.messages.usage import JsonTap, StreamTap, Usage, message_usage
from relay.wire.chunked import ChunkReader, ChunkScanner
from tests.fakes import answers
from tests.fakes.answers import LAST, chunk
from tests.translate.messages.test_usage import MESSAGE, read


def all_ways(start: dict[str, Any], end: dict[str, Any]) -> list[Usage]:
    """The usage of one answer: whole, and streamed in two framings and translated."""
    events = answers.stream(start=start, end=end)
    document = json.dumps({**MESSAGE, "usage": {**start, **end}}).encode()
    translator = ChatStream(ChatMetadata("id", 0, "m", "anthropic"), include_usage=True)
    for piece in events:
        translator.feed(piece)
    return [
        read(JsonTap(), [document], framed=False),
        read(StreamTap(), events, framed=False),
        read(StreamTap(), [*map(chunk, events), LAST], framed=True),
        translator.usage,
    ]


def test_a_later_zero_erases_nothing() -> None:
    start = {
        "input_tokens": 1000,
        "cache_read_input_tokens": 5000,
        "cache_creation_input_tokens": 2000,
        "output_tokens": 1,
    }
    end = {**dict.fromkeys(start, 0), "output_tokens": 100}
    for usage in all_ways(start, end)[1:]:
        assert (usage.input, usage.cache_read, usage.cache_write, usage.output) == (
            1000, 5000, 2000, 100,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("stated", "count"),
    [
        ("5", 5), (" 5 ", 5), ("5.0", 5), ("5.5", 6), (5.5, 6), (5.0, 5), (0.1, 1), ("0", 0),
        ("five", None), ("", None), ("-5", None), (-5, None), (True, None), ([5], None),
        ({"n": 5}, None), ("9" * 40, None), (1e300, None), (10**30, None), ("٥", None),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize(
    "name",
    [
        "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
    ],
)  # fmt: skip
def test_a_count_is_read_from_a_text_or_a_fraction(
    name: str, stated: object, count: int | None
) -> None:
    fields = {
        "input_tokens": "input",
        "output_tokens": "output",
        "cache_read_input_tokens": "cache_read",
        "cache_creation_input_tokens": "cache_write",
    }
    for usage in all_ways({}, {name: stated}):
        assert getattr(usage, fields[name]) == count
        assert usage.stop_reason == "end_turn"
        assert usage.complete


@pytest.mark.parametrize("odd", ["5", 5.5, "x", [], None, True, {"a": 1}], ids=repr)
@pytest.mark.parametrize(
    "member",
    [
        "usage", "output_tokens", "cache_creation", "server_tool_use", "iterations", "speed",
        "output_tokens_details",
    ],
)  # fmt: skip
def test_an_odd_member_never_costs_the_stop_reason(member: str, odd: object) -> None:
    usage = odd if member == "usage" else {member: odd}
    delta = answers.event("message_delta", delta={"stop_reason": "max_tokens"}, usage=usage)
    events = [*answers.stream()[:5], delta, answers.event("message_stop")]
    assert read(StreamTap(), events, framed=False).stop_reason == "max_tokens"
    translator = ChatStream(ChatMetadata("id", 0, "m", "anthropic"), include_usage=True)
    for piece in events:
        translator.feed(piece)
    assert b'"finish_reason":"length"' in translator.finish()
    read_whole = message_usage(json.dumps({**MESSAGE, "usage": usage}).encode())
    assert (read_whole.stop_reason, read_whole.model) == ("end_turn", "claude-sonnet-4-7")


def test_cache_writes_for_an_hour_are_told_apart() -> None:
    stated = {
        "cache_creation_input_tokens": 100,
        "cache_creation": {"ephemeral_1h_input_tokens": 60, "ephemeral_5m_input_tokens": 40},
    }
    for usage in all_ways(stated, stated):
        assert (usage.cache_write, usage.cache_write_1h) == (100, 60)
    del stated["cache_creation_input_tokens"]  # some vendors have only the parts
    for usage in all_ways(stated, {}):
        assert (usage.cache_write, usage.cache_write_1h) == (100, 60)


def test_server_tools_and_modes_are_read() -> None:
    stated = {
        "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": "2"},
        "speed": "fast",
        "inference_geo": "us",
        "service_tier": "priority",
    }
    for usage in all_ways({"service_tier": "standard"}, stated):
        assert (usage.web_searches, usage.web_fetches, usage.code_executions) == (3, 2, 0)
        assert (usage.speed, usage.geography, usage.tier) == ("fast", "us", "priority")


def test_iterations_are_billed_with_what_exceeds_them() -> None:
    iterations = [
        {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500},
        {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000, "model": "m"},
        "no iteration",
    ]
    stated = {"input_tokens": 23_000, "output_tokens": 1_000, "iterations": iterations}
    for usage in all_ways({"input_tokens": 23_000}, stated):
        billed = usage.billed()
        assert sum(part.input for part in billed) == 203_000
        assert sum(part.output for part in billed) == 4_500
        assert [part.model for part in billed] == [None, "m", None]
        assert usage.input == 23_000  # the context, which clients are shown
    more = {**stated, "output_tokens": 9_000}
    for usage in all_ways({}, more):
        assert sum(part.output for part in usage.billed()) == 9_000


def test_a_later_shorter_list_of_iterations_erases_nothing() -> None:
    one = {"input_tokens": 5, "output_tokens": 1}
    for usage in all_ways({"iterations": [one, one]}, {"iterations": [one]})[1:]:
        assert len(usage.iterations) == 2
    for usage in all_ways({"iterations": [one]}, {"iterations": None})[1:]:
        assert len(usage.iterations) == 1


# --- text that passed before its output was stated -----------------------------------------


def delta(text: str, *, spaced: bool = False) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    data = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": text},
    }
    return (
        b"event: content_block_delta\ndata: %b\n\n"
        % json.dumps(data, separators=separators).encode()
    )


@pytest.mark.parametrize("spaced", [False, True], ids=["compact", "spaced"])
@pytest.mark.parametrize("together", [1, 2, 7], ids=["alone", "pairs", "sevens"])
@pytest.mark.parametrize("framing", ["chunks", "one-chunk", "none"])
@pytest.mark.parametrize("size", [3, 20, 400], ids=["short", "usual", "long"])
def test_text_that_passed_is_known_by_its_length(
    size: int, framing: str, together: int, spaced: bool
) -> None:
    tap, passing = StreamTap(), Passing(framing)
    head = answers.stream()[:2]
    passing.begin(tap, b"".join(head))
    for _ in range(140 // together):
        passing.feed(tap, [delta("x" * size, spaced=spaced)] * together)
    passed, text = tap.finish().passed, 140 // together * together * size
    slack = 140 * (10 if spaced and framing == "none" else 2)
    assert text * 0.9 - 150 <= passed <= text * 1.1 + slack + 150


class Passing:
    """A body that a tap sees as a splice shows it."""

    def __init__(self, framing: str) -> None:
        self.framing = framing
        self.scanner = None if framing == "none" else ChunkScanner()

    def begin(self, tap: StreamTap, payload: bytes) -> None:
        tap.begin(payload, self.scanner, None if self.scanner is None else ChunkReader())

    def feed(self, tap: StreamTap, events: list[bytes]) -> None:
        if self.scanner is None:
            tap.feed(b"".join(events))
            return
        chunks = [b"".join(events)] if self.framing == "one-chunk" else events
        tap.feed(self.scanner.feed(b"".join(map(chunk, chunks))))


def test_text_is_not_estimated_once_its_output_is_stated() -> None:
    assert read(StreamTap(), answers.stream(["x" * 4000]), framed=False).passed == 0


def test_translated_text_is_known_by_its_length() -> None:
    translator = ChatStream(ChatMetadata("id", 0, "m", "anthropic"), include_usage=True)
    events = answers.stream(["word " * 20] * 50)
    for piece in events[:-3]:
        translator.feed(piece)
    assert abs(translator.usage.passed - 5000) < 250
    for piece in events[-3:]:
        translator.feed(piece)
    assert translator.usage.passed == 0

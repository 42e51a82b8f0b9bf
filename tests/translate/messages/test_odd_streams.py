"""Streams as some vendors write them become the same document, usage and end."""

import json
from typing import Any

import pytest

from relay.translate.chat.answer import AnswerMetadata, ChatStream
from relay.translate.messages.event_document import StreamDocument, document_events
from relay.translate.messages.usage import StreamTap, Usage, message_usage
from relay.wire.chunked import ChunkReader, ChunkScanner
from tests.fakes import answers
from tests.fakes.answers import LAST, chunk, event
from tests.translate.messages.test_usage import MESSAGE, read
from tests.translate.messages.test_usage_counts import all_ways

START, BLOCK, PING, *REST = answers.stream()


def document(*events: bytes) -> dict[str, Any]:
    stream = StreamDocument()
    for each in events:
        stream.feed(each)
    assert stream.complete
    found = json.loads(stream.octets())
    assert isinstance(found, dict)
    return found


def delta(**members: Any) -> bytes:
    return event("content_block_delta", index=0, delta=members)


END = [event("message_delta", delta={"stop_reason": "end_turn"}, usage={}), event("message_stop")]


# --- documents -------------------------------------------------------------------------


@pytest.mark.parametrize("last", [b"data: [DONE]\n\n", b"event: message_stop\ndata: [DONE]\n\n"])
def test_an_end_without_data_is_the_end(last: bytes) -> None:
    stream = StreamDocument()
    stream.feed(START + BLOCK + END[0] + last)
    assert (stream.complete, stream.stopped) == (True, b"stop" in last)
    if stream.stopped:
        stream.feed(b"data: {broken\n\n")  # no longer of interest


def test_a_delta_without_a_type_is_a_text() -> None:
    """Kimi's plan, at times."""
    found = document(START, BLOCK, delta(text="hi"), delta(text=None), *END)
    assert found["content"] == [{"type": "text", "text": "hi"}]


def test_a_delta_of_an_unknown_type_is_left_out() -> None:
    news = delta(type="news_delta", news=1)
    unseen = event("content_block_delta", index=7, delta={"type": "citations_delta"})
    found = document(START, BLOCK, delta(type="text_delta", text="hi"), news, unseen, *END)
    assert found["content"] == [{"type": "text", "text": "hi"}]


@pytest.mark.parametrize("given", [{}, {"citations": None}, {"citations": []}], ids=str)
def test_citations_are_collected_whatever_the_block_began_with(given: dict[str, Any]) -> None:
    start = event("content_block_start", index=0, content_block={"type": "text", **given})
    cited = [delta(type="citations_delta", citation={"n": number}) for number in range(2)]
    found = document(START, start, *cited, *END)
    assert found["content"][0]["citations"] == [{"n": 0}, {"n": 1}]


def test_an_error_that_says_only_so_ends_the_stream() -> None:
    stream = StreamDocument()
    stream.feed(START + b'data: {"type":"error"}\n\n' + b"".join(REST))
    assert (stream.error, stream.complete) == (b'{"type":"error"}', False)


@pytest.mark.parametrize("content", ["hi", [{"type": "text", "text": "hi"}]])
def test_content_that_is_a_text_is_streamed_as_a_block(content: object) -> None:
    events = document_events(json.dumps({**MESSAGE, "content": content}).encode())
    assert document(events)["content"] == [{"type": "text", "text": "hi"}]


def test_a_block_without_its_text_is_streamed_as_an_empty_one() -> None:
    blocks = [{"type": "text"}, {"type": "thinking", "thinking": None}]
    events = document_events(json.dumps({**MESSAGE, "content": blocks}).encode())
    assert document(events)["content"] == [
        {"type": "text", "text": ""},
        {"type": "thinking", "thinking": "", "signature": ""},
    ]


# --- usage -----------------------------------------------------------------------------


def test_parts_of_an_odd_usage_are_read_as_those_of_a_proper_one() -> None:
    proper = {
        "input_tokens": 5,
        "output_tokens": 7,
        "cache_creation": {"ephemeral_1h_input_tokens": 60, "ephemeral_5m_input_tokens": 40},
        "output_tokens_details": {"thinking_tokens": 3},
        "server_tool_use": {"web_search_requests": 2},
        "iterations": [
            {
                "input_tokens": 9,
                "output_tokens": 1,
                "cache_creation_input_tokens": 4,
                "cache_creation": {"ephemeral_1h_input_tokens": 5},
            }
        ],
    }
    odd = {**proper, "input_tokens": "5"}
    for one, other in zip(all_ways({}, proper), all_ways({}, odd), strict=True):
        assert one == other
        assert (one.cache_write, one.cache_write_1h, one.thinking) == (100, 60, 3)
        assert one.iterations[0].cache_write == one.iterations[0].cache_write_1h == 5


@pytest.mark.parametrize(
    "start",
    [b'{"type":"message_start","message":[]}', b'{"type":"message_start","message":7,"usage":1}',
     b'{"type":"message_start","usage":{"input_tokens":[]}}', b'{"type":[],"message":{}}'],
)  # fmt: skip
def test_a_start_that_is_none_has_no_usage(start: bytes) -> None:
    data = start.replace(b"}", b',"x":{"usage":1}}', 1) if b"usage" not in start else start
    usage = read(StreamTap(), [b"event: message_start\ndata: %b\n\n" % data, *REST], framed=False)
    assert (usage.model, usage.input, usage.output, usage.complete) == (None, None, 9, True)


@pytest.mark.parametrize(
    "body", [b"[]", b'"x"', b"null", b'[{"usage":{}}]', b'{"usage":{"input_tokens":"5"},"x":'],
)  # fmt: skip
def test_a_document_that_is_none_has_no_usage(body: bytes) -> None:
    assert message_usage(body) == Usage(complete=body[-1:] != b":")


# --- ends ------------------------------------------------------------------------------


@pytest.mark.parametrize("framed", [True, False])
@pytest.mark.parametrize(
    ("stated", "after"),
    [
        (True, b": bye\n\n"),
        (True, b": by"),
        (False, b": by"),
        (False, b'event: x\ndata: {"usage":1}\n\n'),
    ],
    ids=["comment", "part", "part-without-usage", "event-without-usage"],
)
def test_octets_after_the_end_undo_nothing(after: bytes, framed: bool, stated: bool) -> None:
    tap = StreamTap()
    scanner = ChunkScanner() if framed else None
    tap.begin(b"", scanner, ChunkReader() if framed else None)
    events = answers.stream() if stated else [*answers.stream()[:-2], event("message_stop")]
    events.append(after)
    for each in events:
        tap.feed(each if scanner is None else scanner.feed(chunk(each)))
    if scanner is not None:
        tap.feed(scanner.feed(LAST))
    assert tap.finish().complete


@pytest.mark.parametrize(
    ("last", "complete"),
    [
        (b'data: {"type":"message_stop"}\n\n', True),
        (b'data: {"type":"news","about":"message_stop"}\n\n', False),
        (b'data: {"type":"message_stop"\n\n', False),
        (b'data: ["message_stop"]\n\n', False),
        (b'event: content_block_delta\ndata: {"x":"message_stop"}\n\n', False),
    ],
)
def test_only_the_last_event_is_the_end(last: bytes, complete: bool) -> None:
    usage = read(StreamTap(), [START, BLOCK, last], framed=False)
    assert usage.complete is complete


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (b'data: {"error":{"message":"KV cache is full"}}\n\n', True),
        (b'data: {"detail":"model is loading"}\n\n', True),
        (b'data: {"type":"ping"}\n\n', False),
        (REST[0], False),
    ],
)
def test_an_error_object_at_the_end_is_kept(last: bytes, error: bool) -> None:
    tap = StreamTap()
    tap.begin(START + BLOCK + last, None, None)
    tap.finish()
    assert tap.error == (last.partition(b"data: ")[2].strip() if error else b"")


def test_an_error_object_ends_a_translated_stream() -> None:
    data = b'{"error":{"type":"server_error","message":"KV cache is full"}}'
    stream = ChatStream(AnswerMetadata("id", 0, "m", "anthropic"), include_usage=True)
    shown = stream.feed(START + BLOCK + REST[0] + b"event: news\ndata: %b\n\n" % data)
    assert (stream.error, stream.usage.complete, stream.usage.error) == (data, True, True)
    assert b"KV cache is full" in shown


def test_text_is_estimated_until_its_output_is_stated() -> None:
    stream = ChatStream(AnswerMetadata("id", 0, "m", "anthropic"), include_usage=True)
    stream.feed(START + BLOCK + delta(type="text_delta", text="x" * 400))
    assert stream.usage.passed > 300
    stream.feed(event("message_delta", delta={"stop_reason": "end_turn"}))
    assert stream.usage.passed > 300
    stream.feed(event("message_delta", delta={}, usage={"output_tokens": 100}))
    assert stream.usage.passed == 0

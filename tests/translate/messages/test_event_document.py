"""A document and its events say the same, and each becomes the other."""

import json
from typing import Any

import pytest

from relay.translate.messages.event_document import StreamDocument, document_events
from relay.translate.messages.first_content import FirstContent, FirstEvent
from relay.translate.messages.usage import StreamTap
from tests.fakes import answers
from tests.wire.feeding import octet_by_octet

BLOCKS: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": "Grüße 🌍"},
    "no text": {"type": "text", "text": ""},
    "half a character": {"type": "text", "text": "caf\ud83d "},
    "cited": {"type": "text", "text": "x", "citations": [{"type": "char_location", "n": 1}]},
    "thinking": {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
    "hidden": {"type": "redacted_thinking", "data": "ZGF0YQ=="},
    "tool": {"type": "tool_use", "id": "t", "name": "message_stop", "input": {"a": [1, 2.5]}},
    "tool without input": {"type": "tool_use", "id": "t", "name": "n", "input": {}},
    "search": {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "x"}},
    "found": {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "u"}]},
}


def message(*blocks: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-7",
        "content": [*blocks],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
        **members,
    }


@pytest.mark.parametrize("names", [*([name] for name in BLOCKS), list(BLOCKS)], ids=str)
def test_a_document_becomes_events_and_the_same_document(names: list[str]) -> None:
    document = message(*(BLOCKS[name] for name in names))
    events = document_events(json.dumps(document).encode())
    for pieces in ([events], octet_by_octet(events)):
        stream = StreamDocument()
        for piece in pieces:
            stream.feed(piece)
        assert stream.complete
        assert json.loads(stream.octets()) == document
    tap = StreamTap()
    tap.begin(events, None, None)
    usage = tap.finish()
    assert (usage.complete, usage.error, usage.input, usage.output) == (True, False, 10, 5)
    first = FirstContent()
    assert first.feed(events)
    assert first.kind is FirstEvent.CONTENT


def test_further_members_of_an_answer_stay() -> None:
    document = message(
        stop_reason="refusal", stop_details={"explanation": "no"}, container={"id": 1}
    )
    stream = StreamDocument()
    stream.feed(document_events(json.dumps(document).encode()))
    assert json.loads(stream.octets()) == document


def test_a_surrogate_pair_in_two_pieces_is_one_character() -> None:
    stream = StreamDocument()
    halves = (b'"\\ud83d"', b'"\\ude00"')
    deltas = [
        b'event: content_block_delta\ndata: {"delta":{"type":"text_delta","text":%b}}\n\n' % half
        for half in halves
    ]
    stream.feed(b"".join([*deltas, *answers.stream([])[-2:]]))
    assert json.loads(stream.octets())["content"] == [{"type": "text", "text": "😀"}]


@pytest.mark.parametrize(
    "document",
    [
        b"null",
        b"[]",
        b'"x"',
        b'{"content":7}',
        b'{"content":[7]}',
        b'{"usage":[],"content":[]}',
        b"{",
    ],
)
def test_a_document_that_is_none_is_an_error(document: bytes) -> None:
    with pytest.raises(ValueError):
        document_events(document)


@pytest.mark.parametrize(
    "data",
    [
        '{"type":"content_block_start","index":-1,"content_block":{}}',
        '{"type":"content_block_start","index":20000,"content_block":{}}',
        '{"type":"content_block_start","index":"first","content_block":{}}',
        '{"type":"content_block_start","content_block":[]}',
        '{"type":"content_block_delta","delta":{"type":"text_delta","text":7}}',
        '{"type":"content_block_delta","del',
        "[]",
    ],
)
def test_an_event_that_is_none_is_an_error(data: str) -> None:
    with pytest.raises(ValueError):
        StreamDocument().feed(f"data: {data}\n\n".encode())


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"error","error":{"type":"overloaded_error"}}',
        b'{"object":"error","message":"KV cache is full"}',
        b'{"detail":"model is loading"}',
    ],
)
def test_an_error_ends_the_stream(data: bytes) -> None:
    stream = StreamDocument()
    stream.feed(b"data: %b\n\n" % data + b"".join(answers.stream()))
    assert (stream.error, stream.complete) == (data, False)


def test_a_reason_to_stop_completes_a_stream() -> None:
    events = answers.stream()
    stream = StreamDocument()
    stream.feed(b"".join(events[:-2]))
    assert not stream.complete
    stream.feed(events[-2])
    assert stream.complete

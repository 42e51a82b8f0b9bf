"""Pieces of text that are carried over undecoded are the same as those that are decoded."""

import json
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import BAD_UPSTREAM, RelayError
from relay.translate.chat.answer import ChatStream
from relay.translate.messages.event_stream import EventStream
from relay.translate.responses.stream import ResponsesStream
from tests.translate import chunks, replies
from tests.translate.chat.test_stream import START, STOP, delta, ended, one_by_one, started
from tests.translate.chunks import event

TOOL = {"id": "toolu_1", "name": "run", "input": {}}
KINDS = {
    "text_delta": ("text", started(0, type="text", text="")),
    "thinking_delta": ("thinking", started(0, type="thinking", thinking="", signature="")),
    "input_json_delta": ("partial_json", started(0, type="tool_use", **TOOL)),
}
NEW: list[Callable[[], EventStream]] = [
    lambda: ChatStream(chunks.METADATA, include_usage=True),
    lambda: ResponsesStream(replies.METADATA),
]
END = [event(ended("end_turn")), event(STOP)]
MARKS = ['"}}\n\n', "\\", '\\"', "你好", "\U0001f600", "}}", " "]
texts = st.text(max_size=12) | st.sampled_from(MARKS)


def outcome(stream: EventStream, pieces: Iterable[bytes]) -> tuple[bytes, int, str]:
    """The octets for the caller, the octets of text, and what could not be read."""
    shown = b""
    try:
        for piece in pieces:
            shown += stream.feed(piece)
    except ValueError:
        return shown, stream.usage.passed, "unreadable"
    return shown, stream.usage.passed, ""


def spelled(kind: str, text: str, *, ascii: bool, spaces: bool, padding: int) -> bytes:
    """An event in one of the spellings of upstreams."""
    document = {
        "type": "content_block_delta", "index": 0, "delta": {"type": kind, KINDS[kind][0]: text},
    }  # fmt: skip
    separators = (", ", ": ") if spaces else (",", ":")
    data = json.dumps(document, ensure_ascii=ascii, separators=separators)
    return event(data[:-1] + " " * padding + "}" + " " * padding)


@pytest.mark.parametrize("new", NEW, ids=["chat", "responses"])
@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(texts, max_size=5), st.booleans(), st.booleans(), st.integers(0, 3))
def test_pieces_are_the_same_read_by_event_or_by_octet(
    new: Callable[[], EventStream],
    kind: str,
    pieces: list[str],
    ascii: bool,
    spaces: bool,
    padding: int,
) -> None:
    events = [
        spelled(kind, text, ascii=ascii, spaces=spaces, padding=number % (padding + 1))
        for number, text in enumerate(pieces)
    ]
    events = [event(START), event(KINDS[kind][1]), *events, *END]
    octets = b"".join(events)
    expected = outcome(new(), one_by_one(octets))
    assert outcome(new(), events) == outcome(new(), [octets]) == expected
    assert expected[2] == ""


def test_nothing_follows_the_failure_of_a_stream() -> None:
    stream = ResponsesStream(replies.METADATA)
    text = event(delta(0, type="text_delta", text="Hi"))
    for piece in (event(START), event(KINDS["text_delta"][1]), text, text):
        stream.feed(piece)
    stream.fail(RelayError(BAD_UPSTREAM, "The model's upstream broke off its answer."))
    assert stream.feed(text) == b""


TEXT = event(delta(0, type="text_delta", text="Hi")).decode("latin-1")
ODD = {
    "a wrong escape": TEXT.replace("Hi", r"\x"),
    "half an escape": TEXT.replace("Hi", r"\u12"),
    "a control character": TEXT.replace("Hi", "a\tb"),
    "no UTF-8": TEXT.replace("Hi", "\xff"),
    "half a character": TEXT.replace("Hi", r"\ud83d"),
    "a second text": TEXT.replace('"Hi"', '"Hi", "text": "Ho"'),
    "another type": TEXT.replace('"Hi"', '"Hi", "type": "thinking_delta"'),
    "another index": TEXT.replace('"Hi"}', '"Hi"}, "index": 7'),
    "a number": TEXT.replace('"Hi"', "7"),
    "no end of the text": TEXT.replace('"Hi"', '"Hi'),
    "a bracket too many": TEXT.replace("}}", "}}}"),
    "a bracket too few": TEXT.replace("}}", "}"),
    "a second line of data": TEXT.replace("\n\n", "\ndata: \n\n"),
    "a space after its end": TEXT.replace("}}", "}} ").replace("\n\n", "\n \n\n"),
    "two events": TEXT + TEXT,
    "half an event more": TEXT + TEXT[:60],
    "no end": TEXT[:-1],
    "too long": TEXT.replace("Hi", "x" * (1024 * 1024)),
    "the next block": TEXT.replace('"index": 0', '"index": 1'),
}


@pytest.mark.parametrize("new", NEW, ids=["chat", "responses"])
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_piece_is_read_as_if_it_were_the_first(
    new: Callable[[], EventStream], odd: str
) -> None:
    text = TEXT.encode()
    before = [event(START), event(KINDS["text_delta"][1]), text, text]
    events = [*before, ODD[odd].encode("latin-1"), text, *END]
    assert outcome(new(), events) == outcome(new(), one_by_one(b"".join(events)))

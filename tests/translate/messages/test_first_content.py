"""The first event with content is found at any split, and no earlier event counts."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.translate.messages.first_content import FirstContent, FirstEvent, rename_model
from tests.fakes import answers
from tests.wire.feeding import octet_by_octet, split_at

START, TEXT, PING, *REST = answers.stream()
ERROR = answers.event("error", error={"type": "overloaded_error", "message": "Overloaded"})
COMMENT = b": still here\n\n"


def block(kind: str, **fields: object) -> bytes:
    """The start of a content block."""
    return answers.event("content_block_start", index=0, content_block={"type": kind, **fields})


def bare(event: bytes) -> bytes:
    """An event as those write it who leave the `event:` line out."""
    return event.partition(b"\n")[2]


# What promises nothing, and what is an answer already.
WITHOUT_CONTENT = [
    START,
    PING,
    TEXT,
    COMMENT,
    bare(START),
    bare(PING),
    bare(TEXT),
    bare(TEXT).replace(b":", b": "),  # as Python writes JSON
    START.replace(b"\n", b"\r\n"),
    b"event: ping\ndata: {}\n\n",
    block("thinking", thinking="", signature=""),
    b"event: ping\n\n",  # without data it is no event at all
    b"retry: 3000\n\n",
    b"\n\n",
    b"data: [DONE]\n\n",
    b"event: something_new\ndata: {}\n\n",
    b'data: {"type":"something_new","message":"of a vendor"}\n\n',
]
WITH_CONTENT = [
    REST[0],
    REST[-1],
    bare(REST[0]),
    block("thinking", thinking="Now", signature=""),
    block("redacted_thinking", data=""),
    block("tool_use", id="toolu_1", name="Read", input={}),
    block("text", text="no longer empty"),
    block("server_tool_use", id="s", name="web_search", input={"query": '"text":""'}),
    b"event: message_delta\r\ndata: {}\r\n\r\n",
    b"event: message\n" + bare(REST[0]),
]
UNREADABLE = [
    b"data: {no JSON\n\n",
    b"data: 7\n\n",
    b"data: []\n\n",
    b"data: {}\n\n",
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[]}\n\n',
    b"event: message_start\ndata: {no JSON\n\n",
    b"event: content_block_delta\ndata: \xff\xfe\x00{{{\n\n",
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"del\n\n',
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0}\n\n',
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0}\n\n',
    b'data: {"type":"content_block_delta","index":"first","delta":{"type":"text_delta"}}\n\n',
]


def found(pieces: list[bytes]) -> tuple[FirstEvent | None, bytes, int]:
    """The kind, the error, and the number of octets until they were known."""
    opening = FirstContent()
    fed = 0
    for piece in pieces:
        fed += len(piece)
        if opening.feed(piece):
            break
    return opening.kind, opening.error, fed


@pytest.mark.parametrize("octets", WITHOUT_CONTENT)
def test_an_event_without_content_is_passed_over(octets: bytes) -> None:
    assert found([octets]) == (None, b"", len(octets))
    assert found(octet_by_octet(octets))[0] is None


@pytest.mark.parametrize("octets", WITH_CONTENT)
def test_any_other_event_is_content(octets: bytes) -> None:
    assert found([octets])[0] is FirstEvent.CONTENT
    assert found(octet_by_octet(octets))[0] is FirstEvent.CONTENT


@pytest.mark.parametrize("octets", UNREADABLE)
def test_an_event_that_cannot_be_read_is_no_content(octets: bytes) -> None:
    assert found([octets])[0] is FirstEvent.UNREADABLE
    assert found(octet_by_octet(octets))[0] is FirstEvent.UNREADABLE


@pytest.mark.parametrize(
    "data",
    [
        b'{"object":"error","message":"KV cache is full","code":500}',
        b'{"detail":"model is loading"}',
        b'{"code":500,"msg":"404 NOT_FOUND","success":false}',
        b'{"error":"busy"}',
        b'{"base_resp":{"status_code":1008,"status_msg":"no balance"}}',
        b'{"error":{"type":"overloaded_error","message":"Overloaded"},"type":"error"}',
        b'{"error": {"message": "busy", "code": "1305"}}',
    ],
)
def test_an_error_needs_no_event_line_and_no_member_order(data: bytes) -> None:
    octets = b"data: %b\n\n" % data
    assert found([START, octets])[:2] == (FirstEvent.ERROR, data)
    assert found(octet_by_octet(octets))[:2] == (FirstEvent.ERROR, data)


@given(
    before=st.lists(st.sampled_from(WITHOUT_CONTENT), max_size=6),
    last=st.sampled_from([*WITH_CONTENT, ERROR, bare(ERROR), ERROR.replace(b"\n", b"\r\n")]),
    after=st.sampled_from([b"", REST[1], ERROR]),
    cuts=st.lists(st.integers(0, 2000), max_size=8),
)
@example(before=[START, TEXT], last=ERROR, after=REST[0], cuts=[])
@example(before=[START, TEXT], last=REST[0], after=ERROR, cuts=[])
def test_the_first_event_with_content_decides(
    before: list[bytes], last: bytes, after: bytes, cuts: list[int]
) -> None:
    octets = b"".join([*before, last, after])
    error = b'"overloaded_error"' in last
    kind = FirstEvent.ERROR if error else FirstEvent.CONTENT
    needed = len(b"".join([*before, last]))
    for pieces in ([octets], split_at(octets, cuts), octet_by_octet(octets)):
        actual, data, fed = found(pieces)
        assert actual is kind
        assert fed <= len(octets)
        assert bool(data) is error
        if error:
            assert json.loads(data)["error"]["type"] == "overloaded_error"
    assert needed - 1 <= fed <= needed  # a lone CR is an end of line, too


@given(
    st.lists(st.sampled_from(WITHOUT_CONTENT), max_size=8),
    st.lists(st.integers(0, 3000), max_size=8),
)
def test_a_stream_without_content_is_never_an_answer(events: list[bytes], cuts: list[int]) -> None:
    octets = b"".join(events)
    assert found(split_at(octets, cuts))[0] is None
    assert found(octet_by_octet(octets))[0] is None


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_any_octets_are_read_alike_at_any_split(octets: bytes, cuts: list[int]) -> None:
    assert found(split_at(octets, cuts))[0] is found([octets])[0]


# --- another name ---


def renamed(event: bytes) -> dict[str, str]:
    """The message of a `message_start` after `rename_model`."""
    octets = rename_model(event, b"asked")
    [data] = [line for line in octets.splitlines() if line.startswith(b"data:")]
    message: dict[str, str] = json.loads(data[5:])["message"]
    return message


def start(*, model: str = "served", spaced: bool = False, last: bool = False) -> bytes:
    """A `message_start` in the spelling of different programs."""
    message = {"content": [], "id": 'msg_"model":"x"', "model": model, "role": "assistant"}
    document: dict[str, object] = {"type": "message_start", "message": message}
    if last:  # Go sorts the names of a map
        document = dict(sorted(document.items()))
    separators = (", ", ": ") if spaced else (",", ":")
    return b"event: message_start\ndata: " + json.dumps(document, separators=separators).encode()


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("last", [False, True], ids=["type-first", "type-last"])
@pytest.mark.parametrize("named", [False, True], ids=["data-only", "event-line"])
@pytest.mark.parametrize("model", ["served", 'a"b\\c', "", "ü"])
def test_message_start_gets_the_name_and_nothing_else(
    model: str, named: bool, last: bool, spaced: bool
) -> None:
    event = start(model=model, spaced=spaced, last=last)
    if not named:
        event = event.partition(b"\n")[2]
    before = json.loads(event.partition(b"data: ")[2])["message"]
    assert renamed(event) == {**before, "model": "asked"}
    value = json.dumps(model).encode()
    assert len(rename_model(event, b"asked")) == len(event) - len(value) + len(b'"asked"')


@pytest.mark.parametrize("before", [b"", PING, COMMENT, b"\n\n"])
def test_only_message_start_is_renamed(before: bytes) -> None:
    deltas = answers.event(
        "content_block_delta", index=0, delta={"type": "text_delta", "text": '{"model": "served"}'}
    )
    tool = block("tool_use", id="t", name="n", input={"model": "served"})
    octets = rename_model(before + start() + b"\n\n" + deltas + tool, b"asked")
    assert octets == before + start(model="asked") + b"\n\n" + deltas + tool


@pytest.mark.parametrize("octets", [b"", PING, REST[0], block("tool_use", input={"model": "m"})])
def test_without_a_message_start_nothing_changes(octets: bytes) -> None:
    assert rename_model(octets, b"asked") == octets

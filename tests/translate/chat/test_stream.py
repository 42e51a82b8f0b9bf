"""A stream of chunks has the content of the answer, however the answer is cut."""

import gc
import itertools
import json
import tomllib
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.errors import ErrorShape
from relay.translate.chat.answer import AnswerMetadata, ChatStream, translate
from relay.translate.messages.error_document import stream_error
from relay.translate.messages.usage import StreamTap
from relay.wire.sse import MAX_EVENT
from tests.corpora import CORPORA
from tests.translate import chunks
from tests.translate.blocks import Answer, answers, cut_off, interrupted
from tests.translate.chunks import METADATA, event, feed, transcript

CASES = tomllib.loads((CORPORA / "streams.toml").read_text(encoding="utf-8"))["case"]
USAGE = "10 (0 read, 0 written), 9 (0 thought)"
START = (
    '{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant",'
    '"model":"claude-sonnet-4-7","content":[],"stop_reason":null,'
    '"usage":{"input_tokens":10,"output_tokens":1}}}'
)
STOP = '{"type":"message_stop"}'
TEXT = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}'
properties = settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])


def ended(reason: str) -> str:
    delta = f'"delta":{{"stop_reason":"{reason}","stop_sequence":null}}'
    return f'{{"type":"message_delta",{delta},"usage":{{"output_tokens":9}}}}'


def started(index: int, **block: Any) -> str:
    start = {"type": "content_block_start", "index": index, "content_block": block}
    return json.dumps(start, ensure_ascii=False)


def delta(index: int, *, ascii: bool = False, **members: Any) -> str:
    document = {"type": "content_block_delta", "index": index, "delta": members}
    return json.dumps(document, ensure_ascii=ascii)


# Deltas that fit neither a text nor a block that never started.
MISFITS: list[str] = [
    '{"type":"content_block_delta","index":0}',
    delta(0, type="thinking_delta", thinking="x"),
    delta(0, type="signature_delta", signature="x"),
    delta(0, type="input_json_delta", partial_json="x"),
    delta(0, type="citations_delta", citation={"type": "char_location"}),
    delta(0, type="news"),
]


def wire(case: dict[str, Any]) -> bytes:
    """The octets of a case in the corpus."""
    octets = b""
    for line in case.get("events", []):
        if line == "start":
            octets += event(START)
        elif line.startswith("end "):
            octets += event(ended(line.removeprefix("end "))) + event(STOP)
        else:
            octets += event(line)
    if not case.get("unread"):
        octets += case.get("wire", "").encode()
    return octets


def cut(octets: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(octets)) for place in places), len(octets)]
    return [octets[begin:end] for begin, end in itertools.pairwise(edges)]


def one_by_one(octets: bytes) -> list[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_an_event_stream_becomes_chunks(case: dict[str, Any]) -> None:
    octets = wire(case)
    metadata = AnswerMetadata(
        METADATA.id, METADATA.created, METADATA.model, case.get("family", METADATA.family)
    )
    expected = list(case["chat"])
    if is_complete := bool(expected) and expected[-1].startswith("finish"):
        expected += ["usage " + case.get("usage", USAGE), "done"]
    failed = bool(expected) and expected[-1].startswith("error")
    shown, stream = feed([octets], metadata=metadata)
    assert transcript(shown) == expected
    assert (stream.usage.complete, stream.usage.error) == (is_complete or failed, failed)
    assert (stream.error is not None) is failed
    if is_complete:
        chunks.check(shown)
        assert chunks.by_sdk(shown) == chunks.joined(shown)
    for pieces in (one_by_one(octets), one_by_one(octets.replace(b"\n", b"\r\n"))):
        assert feed(pieces, metadata=metadata)[0] == shown
    without = [line for line in expected if not line.startswith("usage")]
    assert transcript(feed([octets], include_usage=False, metadata=metadata)[0]) == without
    if case.get("unread"):
        with pytest.raises(ValueError):
            stream.feed(case["wire"].encode())


def test_the_octets_of_a_chunk() -> None:
    stream = ChatStream(AnswerMetadata("chatcmpl-1", 7, "m", "anthropic"), include_usage=False)
    assert stream.feed(event(START)) == b""
    begin = (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m",'
        b'"system_fingerprint":null,"choices":[{"index":0,"delta":{'
    )
    rest = b'},"logprobs":null,"finish_reason":null}]}\n\n'
    role = begin + b'"role":"assistant","content":"","refusal":null' + rest
    assert stream.feed(event(TEXT)) == role + begin + b'"content":"Hi"' + rest
    assert stream.feed(event(TEXT)) == begin + b'"content":"Hi"' + rest
    assert stream.feed(event(STOP)) == b""
    last = rest.replace(b'"finish_reason":null', b'"finish_reason":"stop"')
    assert stream.finish() == begin + last + b"data: [DONE]\n\n"


@properties
@given(st.data(), answers(), st.booleans())
def test_a_stream_is_the_same_however_it_is_cut(
    data: st.DataObject, answer: Answer, include_usage: bool
) -> None:
    octets = b"".join(answer.events)
    shown, stream = feed([octets], include_usage=include_usage)
    chunks.check(shown, include_usage=include_usage)
    places = data.draw(st.lists(st.integers(0, len(octets)), max_size=12))
    for pieces in (answer.events, one_by_one(octets), cut(octets, places)):
        again, another = feed(pieces, include_usage=include_usage)
        assert again == shown
        assert another.usage == stream.usage


@properties
@given(answers())
def test_a_stream_and_a_document_agree(answer: Answer) -> None:
    shown, _ = feed(answer.events)
    document = chunks.completion(translate(answer.document, METADATA))
    (choice,) = document["choices"]
    message = {**choice["message"], "content": choice["message"]["content"] or None}
    assert chunks.joined(shown) == message
    assert chunks.by_sdk(shown) == message
    finish, usage = [line for line in transcript(shown) if line[:6] in ("finish", "usage ")]
    assert finish == "finish " + choice["finish_reason"]
    assert usage == "usage " + chunks.usage(document["usage"])


@properties
@given(answers())
def test_thoughts_keep_their_places(answer: Answer) -> None:
    """A place is the number of characters and calls before the thought."""
    characters = calls = 0
    places = []
    for block in json.loads(answer.document)["content"]:
        thought = block.get("thinking") or block.get("signature") or block.get("data")
        if block["type"] in ("thinking", "redacted_thinking") and thought:
            places.append(f"thinking-{characters}-{calls}")
        elif block["type"] == "text":
            characters += len(block["text"])
        calls += block["type"] == "tool_use"
    message = chunks.joined(feed(answer.events)[0])
    assert [entry["id"] for entry in message.get("reasoning_details", [])] == places


@properties
@given(answers())
def test_usage_is_counted_as_a_tap_counts_it(answer: Answer) -> None:
    tap = StreamTap()
    for each in answer.events:
        tap.feed(each)
    assert feed(answer.events)[1].usage == tap.finish()


@properties
@given(cut_off())
def test_an_answer_that_is_cut_off_never_looks_complete(octets: bytes) -> None:
    shown, stream = feed([octets])
    assert not stream.usage.complete
    for line in transcript(shown):
        assert not line.startswith(("finish", "usage", "done", "error"))


@properties
@given(interrupted())
def test_nothing_follows_an_error(events: tuple[list[bytes], list[bytes]]) -> None:
    failure = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    before, after = events
    earlier, _ = feed(before)
    shown, stream = feed([b"".join([*before, event(failure.decode()), *after])])
    assert shown == earlier + stream_error(failure).event(ErrorShape.OPENAI)
    assert (stream.error, stream.usage.error, stream.usage.complete) == (failure, True, True)
    assert stream.feed(b"anything\n\n") == b""


@given(st.data())
def test_any_octets_are_read_or_refused(data: st.DataObject) -> None:
    """The output, or the ValueError, does not depend on how the input is cut."""
    lines = st.sampled_from(
        [
            TEXT,
            STOP,
            started(0, type="text", text=""),
            started(0, type="tool_use", id="t", name="n"),
            started(1, type="thinking", thinking="a"),
            '{"type":"content_block_stop","index":0}',
            '{"type":"content_block_stop","index":"a"}',
            '{"type":"content_block_delta","index":1,"delta":{"type":"signature_delta"}}',
            '{"type":"content_block_delta","index":0,"delta":[]}',
            '{"type":"message_delta","delta":null,"usage":7}',
            '{"type":"message_start"}',
            '{"type":null,"error":{}}',
            '{"type":"error"}',
            '{"type":{}}',
            "",
            "7",
            "[DONE]",
            "{",
            '"\\ud83d"',
        ]
    )
    starts = st.sampled_from(["", "data: ", "data:", "event: error\ndata: ", ":", "data: x\rdata:"])
    ends = st.sampled_from(["\n\n", "\n", "\r\n\r\n", "\r\r", "\n\n\n", "\r\n\n"])
    made = data.draw(st.lists(st.tuples(starts, lines, ends).map("".join), max_size=6))
    octets = "".join(made).encode()
    results: list[bytes | None] = []
    for pieces in ([octets], one_by_one(octets)):
        stream = ChatStream(METADATA, include_usage=True)
        shown = b""
        try:
            for piece in pieces:
                shown += stream.feed(piece)
            results.append(shown)
        except ValueError:
            results.append(None)
    assert results[0] == results[1]


@pytest.mark.parametrize("halves", [(r"\ud83c", r"\udf0d"), (r"a\uD83C", r"\uDF0Db")])
def test_a_character_cut_in_two_stays_in_two_pieces(halves: tuple[str, str]) -> None:
    """rakazo #416, openai-agents-js #1848: texts are cut where UTF-16 has half a character."""
    delta = '{"type":"content_block_delta","index":%d,"delta":{"type":"%s_delta","%s":"%s"}}'
    octets = event(started(0, type="text", text="")) + event(started(1, type="thinking"))
    for half in halves:
        octets += event(delta % (0, "text", "text", half))
    for half in halves:
        octets += event(delta % (1, "thinking", "thinking", half))
    octets += event(started(2, type="redacted_thinking", data="E")) + event(STOP)
    shown, _ = feed([octets])
    message = chunks.joined(shown)
    joined = message["content"].encode("utf-16", "surrogatepass").decode("utf-16")
    assert joined == "🌍" or joined == "a🌍b"
    assert message["reasoning_content"] == message["content"]
    where = message["reasoning_details"][1]["id"]
    assert where == f"thinking-{len(joined)}-0"


@pytest.mark.parametrize(
    "data",
    [
        started(0, type="text", text="")[:-1] + r',"x":"\ud83c"}',
        TEXT.replace('"Hi"', r'"\ud83c"').replace("_block_", "_blocks_"),
        TEXT.replace('"Hi"', r'"\ud83c"').replace('"index":0', '"index":[]'),
        r'["\ud83c"]',
    ],
)
def test_half_a_character_outside_a_text_is_refused(data: str) -> None:
    with pytest.raises(ValueError):
        ChatStream(METADATA, include_usage=True).feed(f"data: {data}\n\n".encode())


@pytest.mark.parametrize(
    ("kind", "name"),
    [("text", "text"), ("thinking", "thinking"), ("input_json", "partial_json")],
)
def test_octets_that_are_not_utf8_are_refused(kind: str, name: str) -> None:
    block = "tool_use" if kind == "input_json" else kind
    stream = ChatStream(METADATA, include_usage=True)
    stream.feed(event(started(0, type=block, id="t", name="n")))
    members: dict[str, Any] = {"type": f"{kind}_delta", name: "Hi"}
    octets = event(delta(0, **members))
    with pytest.raises(ValueError):
        stream.feed(octets.replace(b"Hi", b"\xff"))


def test_octets_after_the_end_are_not_read() -> None:
    shown, stream = feed([event(TEXT) + event(STOP) + b"x" * (2 * MAX_EVENT)])
    assert transcript(shown)[-1] == "done"
    assert stream.feed(b"\xff\n\n" + b"x" * (2 * MAX_EVENT)) == b""


def test_a_huge_text_and_huge_arguments_get_through() -> None:
    many = "x" * (MAX_EVENT - 1000)
    octets = (
        event(TEXT.replace("Hi", many))
        + event(started(1, type="tool_use", id="t", name="n", input={"x": many}))
        + event(STOP)
    )
    for pieces in ([octets], cut(octets, list(range(0, len(octets), 60_000)))):
        message = chunks.joined(feed(pieces)[0])
        assert message["content"] == many
        assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"x": many}


@pytest.mark.parametrize("over", [-1, 0, 1, 5000])
def test_an_event_that_is_too_long_is_refused(over: int) -> None:
    """However it is cut: to skip an event silently would falsify the answer."""
    frame = len(event(TEXT)) - 4
    octets = event(TEXT.replace("Hi", "x" * (MAX_EVENT - frame + over)))
    assert len(octets) == MAX_EVENT + 2 + over
    tail = len(octets) - 6
    for places in ([], [1000, MAX_EVENT // 2], [*range(tail, tail + 6)]):
        for pieces in (cut(octets, places), cut(octets + event(TEXT), places)):
            if over > 0:
                with pytest.raises(ValueError):
                    feed(pieces)
            else:
                assert feed(pieces)[0]


@pytest.mark.parametrize(
    "block",
    [{"type": "text"}, {"type": "news"}, {"type": "tool_use", "id": "t", "name": "n"}],
)
def test_blocks_that_never_end_are_bounded(block: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        feed(event(started(index, **block)) for index in range(1000))


def test_octets_that_wait_for_a_stop_are_bounded() -> None:
    call = {"type": "tool_use", "id": "t", "name": "n", "input": {"x": "y" * 1_000_000}}
    with pytest.raises(ValueError):
        feed(event(started(index, **call)) for index in range(5))
    one_after_another = ChatStream(METADATA, include_usage=True)
    for _ in range(6):
        assert one_after_another.feed(event(started(0, **call)))


def test_citations_are_bounded() -> None:
    stream = ChatStream(METADATA, include_usage=True)
    stream.feed(event(started(0, type="text", text="a")))
    cited = {"type": "web_search_result_location", "url": "u" * 100_000, "title": "T"}
    octets = event(delta(0, type="citations_delta", citation=cited))
    for _ in range(300):
        assert stream.feed(octets) == b""
    (chunk,) = chunks.read(stream.feed(event('{"type":"content_block_stop","index":0}')))
    assert 30 < len(chunk["choices"][0]["delta"]["annotations"]) <= 100


def test_the_stream_keeps_no_text() -> None:
    stream = ChatStream(METADATA, include_usage=True)
    stream.feed(event(started(0, type="text", text="")))
    stream.feed(event(started(1, type="tool_use", id="t", name="n", input={})))
    stream.feed(event(started(2, type="thinking", thinking="")))
    delta = '{"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":"%s"}}'
    octets = b"".join(
        event(delta % (index, kind, name, "x" * 1000))
        for index, kind, name in (
            (0, "text_delta", "text"),
            (1, "input_json_delta", "partial_json"),
            (2, "thinking_delta", "thinking"),
        )
    )
    stream.feed(octets)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(500):
        stream.feed(octets)
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept < 8192


def test_usage_can_be_corrected_before_the_end() -> None:
    """An upstream may count the cache as part of its input; the gateway corrects that."""
    stream = ChatStream(METADATA, include_usage=True)
    stream.feed(event(START) + event(STOP))
    stream.usage.input, stream.usage.cache_read = 4, 6
    lines = transcript(stream.finish())
    assert lines[2] == "usage 10 (6 read, 0 written), 1 (0 thought)"


def test_a_start_without_a_block_is_refused() -> None:
    with pytest.raises(ValueError):
        feed([event('{"type":"content_block_start","index":0}')])


def test_citations_may_come_with_the_start_of_a_text() -> None:
    cited = {"type": "web_search_result_location", "url": "u", "title": "T"}
    text = started(0, type="text", text="Hi", citations=[cited])
    lines = transcript(feed([event(text) + event(STOP)])[0])
    citation = '{"start_index":0,"end_index":2,"title":"T","url":"u"}'
    annotation = f'{{"index":0,"type":"url_citation","url_citation":{citation}}}'
    assert lines[:3] == ["role", '{"content":"Hi"}', f'{{"annotations":[{annotation}]}}']


def test_a_redacted_thought_without_data_is_not_shown() -> None:
    shown, _ = feed([event(started(0, type="redacted_thinking")) + event(STOP)])
    assert transcript(shown)[:2] == ["role", "finish stop"]


@pytest.mark.parametrize("data", MISFITS)
@pytest.mark.parametrize("start", ["", started(0, type="text", text="")], ids=["none", "text"])
def test_a_delta_that_fits_no_block_is_ignored(start: str, data: str) -> None:
    stream = ChatStream(METADATA, include_usage=True)
    if start:
        stream.feed(event(start))
    assert stream.feed(event(data)) == b""

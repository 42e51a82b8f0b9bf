"""A stream of the Responses API has the content of the answer, however the answer is cut."""

import itertools
import json
import re
import tomllib
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.errors import BAD_UPSTREAM, RelayError
from relay.translate.responses.answer import translate
from relay.translate.responses.stream import ResponsesStream
from tests.corpora import CORPORA
from tests.translate import replies
from tests.translate.blocks import Answer, answers, cut_off, interrupted
from tests.translate.chat.test_stream import CASES as STREAMS
from tests.translate.chat.test_stream import (
    MISFITS,
    STOP,
    TEXT,
    cut,
    delta,
    ended,
    one_by_one,
    started,
    wire,
)
from tests.translate.chunks import event
from tests.translate.replies import METADATA, NO_SUMMARY, SEAL, feed, read, transcript

OWN = CORPORA / "responses" / "streams.toml"
CASES = STREAMS + tomllib.loads(OWN.read_text(encoding="utf-8"))["case"]
USAGE = "10 (0 read), 9 (0 thought)"
BROKEN = RelayError(BAD_UPSTREAM, "The model's upstream broke off its answer. Try again.")
properties = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])


def final_items(octets: bytes) -> list[dict[str, Any]]:
    """The output of the last event, without ids."""
    return [
        {name: value for name, value in item.items() if name != "id"}
        for item in read(octets)[-1]["response"]["output"]
    ]


@pytest.mark.matrix(share=3)
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_an_event_stream_becomes_events(case: dict[str, Any]) -> None:
    octets = wire(case)
    metadata = NO_SUMMARY if case.get("hidden") else METADATA
    expected = list(case["responses"])
    if expected:
        expected = ["created", "in_progress", *expected]
    if is_complete := bool(expected) and expected[-1] in ("completed", "incomplete"):
        expected[-1] += " " + re.sub(r", \d+ written", "", case.get("usage", USAGE))
    failed = bool(expected) and expected[-1].startswith("failed")
    shown, stream = feed([octets], metadata, case.get("family", "anthropic"))
    assert transcript(shown) == expected
    assert (stream.usage.complete, stream.usage.error) == (is_complete or failed, failed)
    replies.check(shown, complete=is_complete or failed)
    for pieces in (one_by_one(octets), one_by_one(octets.replace(b"\n", b"\r\n"))):
        assert feed(pieces, metadata, case.get("family", "anthropic"))[0] == shown
    if case.get("unread"):
        with pytest.raises(ValueError):
            stream.feed(case["wire"].encode())


@properties
@given(st.data(), answers())
def test_a_stream_is_the_same_however_it_is_cut(data: st.DataObject, answer: Answer) -> None:
    octets = b"".join(answer.events)
    shown, stream = feed([octets])
    replies.check(shown)
    places = data.draw(st.lists(st.integers(0, len(octets)), max_size=12))
    for pieces in (answer.events, one_by_one(octets), cut(octets, places)):
        again, another = feed(pieces)
        assert again == shown
        assert another.usage == stream.usage


@properties
@given(answers())
def test_a_stream_and_a_document_agree(answer: Answer) -> None:
    shown, stream = feed(answer.events)
    document, output = translate(answer.document, METADATA, "anthropic")
    response = replies.response(document)
    assert json.loads(stream.answer) == read(shown)[-1]["response"]
    assert [json.loads(item) for item in output] == response["output"]
    # Calls may alternate in a stream; their ids depend on where they began.
    assert final_items(shown) == [
        {name: value for name, value in item.items() if name != "id"} for item in response["output"]
    ]
    for name in ("status", "usage", "incomplete_details", "error", "model"):
        assert json.loads(stream.answer)[name] == response[name]


@properties
@given(answers())
def test_the_sdk_assembles_the_same_response(answer: Answer) -> None:
    shown, stream = feed(answer.events)
    final = replies.by_sdk(shown)
    response = json.loads(stream.answer)
    assert final["id"] == response["id"]
    assert [item["id"] for item in final["output"]] == [item["id"] for item in response["output"]]


@properties
@given(answers(), st.sampled_from(["anthropic", "glm"]))
def test_sealed_thinking_opens_unchanged(answer: Answer, family: str) -> None:
    blocks = json.loads(answer.document)["content"]
    shown, _ = feed(answer.events, NO_SUMMARY, family)
    found = [item for item in final_items(shown) if item["type"] == "reasoning"]
    expected = []
    for block in blocks:
        if block["type"] == "redacted_thinking":
            expected.append({"data": block["data"]})
        elif block["type"] == "thinking" and (block["thinking"] or block["signature"]):
            signed = block["signature"] or family != "anthropic"
            expected.append({**block, "type": None} if signed else {})
    assert len(found) == len(expected)
    for item, block in zip(found, expected, strict=True):
        assert item["summary"] == []
        if not block:
            assert "encrypted_content" not in item
            continue
        sealed = msgspec.Raw(json.dumps(item["encrypted_content"]).encode())
        thought = SEAL.opened(sealed)
        assert thought is not None
        assert thought.family == family
        if "data" in block:
            assert json.loads(bytes(thought.data)) == block["data"]
        else:
            assert json.loads(bytes(thought.text)) == block["thinking"]
            assert json.loads(bytes(thought.signature)) == block["signature"]


@properties
@given(st.data(), answers())
def test_keep_alives_change_nothing_else(data: st.DataObject, answer: Answer) -> None:
    plain, _ = feed(answer.events)
    stream = ResponsesStream(METADATA)
    shown = b""
    for piece in answer.events:
        if data.draw(st.integers(0, 4)) == 0:
            shown += stream.keep_alive()
        shown += stream.feed(piece)
    if data.draw(st.booleans()):
        shown += stream.keep_alive()
    shown += stream.finish()
    replies.check(shown)
    progress = "in_progress"
    lines = [line for line in transcript(shown) if line != progress]
    assert lines == [line for line in transcript(plain) if line != progress]


@properties
@given(cut_off(), st.booleans())
def test_an_answer_that_is_cut_off_never_looks_complete(octets: bytes, kept_alive: bool) -> None:
    shown, stream = feed([octets])
    assert not stream.usage.complete
    if kept_alive:
        shown += stream.keep_alive()
    shown += stream.fail(BROKEN)
    events = replies.check(shown)
    names = [event["type"] for event in events]
    assert "response.completed" not in names
    assert "response.incomplete" not in names
    assert transcript(shown)[-1] == f"failed server_error: {BROKEN.message}"
    assert stream.feed(b"anything\n\n") == b""


@properties
@given(interrupted())
def test_nothing_follows_an_error(events: tuple[list[bytes], list[bytes]]) -> None:
    failure = '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    before, after = events
    earlier, _ = feed(before)
    shown, stream = feed([b"".join([*before, event(failure), *after])])
    assert shown.startswith(earlier)
    replies.check(shown)
    assert transcript(shown)[-1] == "failed server_error: Overloaded"
    assert (stream.usage.error, stream.usage.complete) == (True, True)
    assert stream.feed(b"anything\n\n") == b""


inner = st.text(st.sampled_from('ab "\\\n\r/üß日🌍{}:\u2028'), max_size=12)


@given(st.data(), inner, st.booleans())
def test_free_text_is_the_same_however_it_is_cut(
    data: st.DataObject, text: str, ascii: bool
) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=ascii)
    spaced = [arguments, f" {arguments} ", arguments.replace(":", " : ", 1)]
    arguments = data.draw(st.sampled_from(spaced))
    places = data.draw(st.lists(st.integers(0, len(arguments)), max_size=8))
    edges = [0, *sorted(places), len(arguments)]
    pieces = [arguments[begin:end] for begin, end in itertools.pairwise(edges)]
    octets = event(started(0, type="tool_use", id="t", name="apply_patch", input={}))
    for piece in pieces:
        octets += event(delta(0, ascii=ascii, type="input_json_delta", partial_json=piece))
    octets += event('{"type":"content_block_stop","index":0}') + event(STOP)
    shown, _ = feed([octets])
    replies.check(shown)
    [item] = final_items(shown)
    assert (item["name"], item["input"]) == ("apply_patch", text)


@pytest.mark.parametrize("arguments", ['{"patch":"x"}', "[1]", '"x"', "", '{"input":5}'])
def test_arguments_without_free_text_are_the_text(arguments: str) -> None:
    """The model got them wrong: the caller's tool sees them and can say so."""
    octets = (
        event(started(0, type="tool_use", id="t", name="apply_patch", input={}))
        + event(delta(0, type="input_json_delta", partial_json=arguments))
        + event('{"type":"content_block_stop","index":0}')
        + event(STOP)
    )
    shown, _ = feed([octets])
    [item] = final_items(shown)
    assert item["input"] == (arguments or "{}")


@pytest.mark.parametrize("wrong", ["\n\nevent: error\ndata: {}\n\n", "\\d+", "\x00"], ids=ascii)
def test_arguments_that_are_no_json_forge_no_event(wrong: str) -> None:
    octets = (
        event(started(0, type="tool_use", id="t", name="apply_patch", input={}))
        + event(delta(0, type="input_json_delta", partial_json='{"input":"a' + wrong))
        + event(delta(0, type="input_json_delta", partial_json='b"}'))
        + event('{"type":"content_block_stop","index":0}')
        + event(ended("tool_use"))
        + event(STOP)
    )
    shown, _ = feed([octets])
    replies.check(shown)
    [item] = final_items(shown)
    assert item["input"] == "a"


def test_free_text_that_is_cut_off_ends_as_it_was_shown() -> None:
    octets = (
        event(started(0, type="tool_use", id="t", name="apply_patch", input={}))
        + event(delta(0, type="input_json_delta", partial_json='{"input":"half'))
        + event(ended("max_tokens"))
        + event(STOP)
    )
    shown, _ = feed([octets])
    replies.check(shown)
    [item] = final_items(shown)
    assert (item["input"], item["status"]) == ("half", "incomplete")


def test_the_text_of_an_answer_is_bounded() -> None:
    stream = ResponsesStream(METADATA)
    stream.feed(event(started(0, type="text", text="")))
    octets = event(delta(0, type="text_delta", text="x" * 1_000_000))
    with pytest.raises(ValueError):
        list(map(stream.feed, [octets] * 40))


@pytest.mark.parametrize("block", [{"type": "text"}, {"type": "tool_use", "id": "t", "name": "n"}])
def test_blocks_that_never_end_are_bounded(block: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        feed(event(started(index, **block)) for index in range(1000))


@pytest.mark.parametrize("halves", [(r"\ud83c", r"\udf0d"), (r"a\uD83C", r"\uDF0Db")])
def test_a_character_cut_in_two_is_joined_at_the_end(halves: tuple[str, str]) -> None:
    delta = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}'
    octets = event(started(0, type="text", text=""))
    for half in halves:
        octets += event(delta % half)
    shown, _ = feed([octets + event(STOP)])
    [item] = final_items(shown)
    assert item["content"][0]["text"] in ("🌍", "a🌍b")


def test_usage_can_be_corrected_before_the_end() -> None:
    """An upstream may count the cache as part of its input; the gateway corrects that."""
    stream = ResponsesStream(METADATA)
    stream.feed(event(STOP))
    stream.usage.input, stream.usage.output, stream.usage.cache_read = 4, 1, 6
    assert transcript(stream.finish())[-1] == "completed 10 (6 read), 1 (0 thought)"


def test_a_refusal_is_a_text_for_clients_that_show_no_other() -> None:
    """Recorded: Codex CLI 0.169.0 drops a message with a refusal in it, and shows nothing."""
    metadata = replace(METADATA, refusal_as_text=True)
    octets = event(TEXT) + event(ended("refusal")) + event(STOP)
    shown, _ = feed([octets], metadata)
    replies.check(shown)
    texts = [item["content"][0]["text"] for item in final_items(shown)]
    assert texts == ["Hi", "The model declined to answer this request."]


CITED = {"type": "web_search_result_location", "url": "u", "title": "t"}
BLOCKS: list[dict[str, Any]] = [
    {"type": "text", "text": ""},
    {"type": "text", "text": "x", "citations": [CITED]},
    {"type": "thinking", "thinking": "a", "signature": "s"},
    {"type": "redacted_thinking", "data": "d"},
    {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    {"type": "tool_use", "id": "u", "name": "apply_patch", "input": {}},
    {"type": "tool_use", "id": "", "name": "local_shell", "input": {"command": ["a"]}},
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
    {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
    {"type": "news"},
]
DELTAS: list[dict[str, Any]] = [
    {"type": "text_delta", "text": "ab "},
    {"type": "thinking_delta", "thinking": "hm"},
    {"type": "signature_delta", "signature": "sig"},
    {"type": "input_json_delta", "partial_json": '{"input":"q'},
    {"type": "input_json_delta", "partial_json": '"}'},
    {"type": "citations_delta", "citation": CITED},
    {"type": "news"},
]
ORDERLESS = st.one_of(
    st.tuples(st.just("start"), st.integers(0, 2), st.sampled_from(BLOCKS)),
    st.tuples(st.just("delta"), st.integers(0, 2), st.sampled_from(DELTAS)),
    st.tuples(st.just("stop"), st.integers(0, 2), st.none()),
    st.tuples(st.just("alive"), st.none(), st.none()),
)


@properties
@given(st.lists(ORDERLESS, max_size=14), st.sampled_from(["end_turn", "max_tokens", "refusal"]))
def test_events_in_any_order_make_a_stream_in_order(
    steps: list[tuple[str, int, Any]], reason: str
) -> None:
    """Vendors leave out starts and stops, and interleave blocks."""
    stream = ResponsesStream(METADATA)
    shown = b""
    for step, index, member in steps:
        if step == "alive":
            shown += stream.keep_alive()
            continue
        data: dict[str, Any] = {"type": f"content_block_{step}", "index": index}
        if member is not None:
            data["content_block" if step == "start" else "delta"] = member
        shown += stream.feed(event(json.dumps(data)))
    shown += stream.feed(event(ended(reason)) + event(STOP)) + stream.finish()
    replies.check(shown)
    replies.by_sdk(shown)


def test_a_text_goes_on_after_another_item_in_a_new_message() -> None:
    shown, _ = feed(
        map(
            event,
            [
                started(0, type="text", text=""),
                delta(0, type="text_delta", text="before"),
                started(1, type="tool_use", id="t", name="n", input={}),
                delta(1, type="input_json_delta", partial_json="{}"),
                delta(0, type="text_delta", text="after"),
                ended("end_turn"),
                STOP,
            ],
        )
    )
    replies.check(shown)
    first, call, last = final_items(shown)
    assert (first["content"][0]["text"], last["content"][0]["text"]) == ("before", "after")
    assert (call["type"], call["arguments"]) == ("function_call", "{}")


def test_a_start_without_a_block_is_refused() -> None:
    with pytest.raises(ValueError):
        feed([event('{"type":"content_block_start","index":0}')])


def test_a_keep_alive_before_and_after_the_first_event() -> None:
    stream = ResponsesStream(METADATA)
    names = [transcript(stream.keep_alive()) for _ in range(2)]
    assert names == [["created", "in_progress"], ["in_progress"]]


@pytest.mark.parametrize("data", MISFITS)
@pytest.mark.parametrize("start", ["", started(0, type="text", text="")], ids=["none", "text"])
def test_a_delta_that_fits_no_block_is_ignored(start: str, data: str) -> None:
    stream = ResponsesStream(METADATA)
    if start:
        stream.feed(event(start))
    assert stream.feed(event(data)) == b""


def test_citations_may_come_with_the_start_of_a_text() -> None:
    text = started(0, type="text", text="Hi", citations=[CITED])
    shown, _ = feed([event(text) + event(STOP)])
    replies.check(shown)
    assert transcript(shown)[3:5] == ['text "Hi"', "cite 0-2 u"]


def test_citations_are_bounded() -> None:
    stream = ResponsesStream(METADATA)
    shown = stream.feed(event(started(0, type="text", text="a")))
    octets = event(delta(0, type="citations_delta", citation=CITED))
    for _ in range(300):
        assert stream.feed(octets) == b""
    shown += stream.feed(event(STOP)) + stream.finish()
    replies.check(shown)
    [item] = final_items(shown)
    assert len(item["content"][0]["annotations"]) == 100


def test_the_thinking_of_an_answer_is_bounded() -> None:
    stream = ResponsesStream(METADATA)
    stream.feed(event(started(0, type="thinking", thinking="")))
    octets = event(delta(0, type="thinking_delta", thinking="x" * 1_000_000))
    with pytest.raises(ValueError):
        list(map(stream.feed, [octets] * 40))


def test_free_text_joins_the_halves_of_a_character() -> None:
    """And ignores members that follow the text."""
    octets = event(started(0, type="tool_use", id="t", name="apply_patch", input={}))
    pieces = [r"{\"input\":\"a\ud83c", r"\udf0db\"", r",\"x\":1", "}"]
    for piece in pieces:
        delta = f'"delta":{{"type":"input_json_delta","partial_json":"{piece}"}}'
        octets += event(f'{{"type":"content_block_delta","index":0,{delta}}}')
    shown, _ = feed([octets + event(STOP)])
    replies.check(shown)
    [item] = final_items(shown)
    assert item["input"] == "a🌍b"


@pytest.mark.parametrize(
    "arguments",
    ["7", '{"x":' + "[" * 50_000 + "]" * 50_000 + "}"],
    ids=["not an object", "nested too deeply"],
)
def test_a_search_with_unreadable_arguments_has_no_query(arguments: str) -> None:
    octets = event(started(0, type="server_tool_use", id="s", name="web_search", input={}))
    octets += event(delta(0, type="input_json_delta", partial_json=arguments))
    shown, _ = feed([octets + event(STOP)])
    replies.check(shown)
    [item] = final_items(shown)
    assert item["action"] == {"type": "search", "query": ""}

"""Half a character, which a model may write, costs nothing of the answer beside it.

msgspec refuses to decode a lone surrogate; Python's json, and the clients', do not.
"""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.translate.messages import content, message
from relay.translate.messages.content_fields import Block
from relay.translate.messages.usage import message_usage

HALVES = ["\ud83d", "caf\ud83d ", "\ude00 \ud83d", "\udfff"]
TEXT = st.text(st.characters(codec=None), max_size=20)  # any character, and any half of one
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
BLOCKS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "thinking", "tool_use", "something_new"])},
        optional={
            "text": TEXT, "thinking": TEXT, "signature": TEXT, "id": TEXT, "name": TEXT,
            "input": st.dictionaries(TEXT, JSON, max_size=2),
        },
    ),
    max_size=4,
)  # fmt: skip


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(encoded(value))


def decoded(block: Block) -> dict[str, Any]:
    found = {name: bytes(getattr(block, name)) for name in Block.__struct_fields__[1:]}
    return {"type": block.type, **{name: json.loads(one) for name, one in found.items() if one}}


@given(BLOCKS, TEXT)
def test_an_answer_is_read_with_every_half_of_a_character(
    blocks: list[dict[str, Any]], reason: str
) -> None:
    details = {"explanation": reason}
    octets = encoded({"type": "message", "content": blocks, "stop_details": details})
    found, stop_details = message.read(octets)
    assert [decoded(block) for block in found] == blocks
    assert json.loads(bytes(stop_details)) == details
    shown = json.loads(content.refusal(stop_details))
    half = any(0xD800 <= ord(letter) < 0xE000 for letter in reason)
    assert half or shown == (reason or shown)


@pytest.mark.parametrize("half", HALVES, ids=ascii)
@pytest.mark.parametrize(
    "document",
    [
        '{"content":7,"x":%s}',
        '{"content":{"type":"text"},"x":%s}',
        '{"content":[7],"x":%s}',
        '{"content":[{"type":7}],"x":%s}',
        '{"content":null,"x":%s}',
        '{"type":%s}',
        "[%s]",
        "%s",
        '{"content":[%s',
        '{"x":%s,"content":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
    ids=lambda document: document[:40],
)
def test_no_half_of_a_character_makes_an_answer_of_anything(document: str, half: str) -> None:
    octets = (document % json.dumps(half)).encode()
    with pytest.raises(ValueError):
        message.read(octets)


@pytest.mark.parametrize("half", HALVES, ids=ascii)
def test_an_answer_without_details_has_none(half: str) -> None:
    blocks = [{"type": "text", "text": half}]
    for more in ({}, {"stop_details": None}):
        found, details = message.read(encoded({"type": "message", "content": blocks, **more}))
        assert ([decoded(block) for block in found], bytes(details)) == (blocks, b"")


@given(st.dictionaries(TEXT, JSON, min_size=1, max_size=3))
def test_arguments_are_a_json_string_of_the_same_object(given_input: dict[str, Any]) -> None:
    arguments = json.loads(content.arguments(raw(given_input)))
    assert isinstance(arguments, str)
    assert json.loads(arguments) == given_input


def test_spaced_arguments_with_half_a_character_become_compact() -> None:
    octets = b'{ "a" : [1.50, "\\ud83d"],\n "b": 1e3 }'
    arguments = json.loads(content.arguments(msgspec.Raw(octets)))
    assert arguments == '{"a":[1.5,"\\ud83d"],"b":1000.0}'


@pytest.mark.parametrize("half", HALVES, ids=ascii)
def test_citations_with_half_a_character_break_no_answer(half: str) -> None:
    url = {"type": "web_search_result_location", "url": "https://x", "title": "t"}
    assert len(content.citations(raw([url, {**url, "cited_text": "whole"}]))) == 2
    for broken in ({**url, "title": half}, {**url, "type": half}):
        for found in content.citations(raw([broken])):
            json.loads(b"{%b}" % found)


@pytest.mark.parametrize("half", HALVES, ids=ascii)
def test_an_unreadable_explanation_becomes_a_sentence(half: str) -> None:
    for details in ({half: 1, "explanation": "no"}, {"explanation": "no", half: 1}):
        assert json.loads(content.refusal(raw(details))) in (
            "no",
            "The model declined to answer this request.",
        )


@pytest.mark.parametrize("half", HALVES, ids=ascii)
@pytest.mark.parametrize("counts", [{"input_tokens": 5, "output_tokens": 7}, {"input_tokens": "5"}])
def test_the_usage_is_read_beside_half_a_character(half: str, counts: dict[str, Any]) -> None:
    document: dict[str, Any] = {
        "model": "m",
        "stop_reason": "end_turn",
        "content": [{"type": "text", "text": half}],
        "usage": counts,
    }
    backwards = dict(reversed(document.items()))
    odd = {**document, "usage": {**counts, half: half, "speed": half}}
    for each in (document, {half: 1, **document}, backwards, odd):
        usage = message_usage(encoded(each))
        assert (usage.model, usage.stop_reason, usage.complete) == ("m", "end_turn", True)
        assert (usage.input, usage.output) == (5, counts.get("output_tokens"))


@pytest.mark.parametrize(
    "octets",
    [b'{"model":"\\ud83d', b'["\\ud83d"]', b'"\\ud83d"', b'{"\\ud83d":1}x', b"\\ud83d"],
)
def test_half_a_document_is_no_complete_answer(octets: bytes) -> None:
    usage = message_usage(octets)
    assert not usage.stated
    if octets[:1] != b"[" and octets[:1] != b'"':
        assert not usage.complete

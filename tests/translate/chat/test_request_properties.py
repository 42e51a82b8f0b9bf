"""Properties of every chat completions request."""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import INVALID_REQUEST, ErrorShape, RelayError
from relay.simulator import schema as grammar
from relay.translate.chat import answer as completion
from relay.translate.chat import request as chat
from relay.translate.chat.answer import AnswerMetadata
from relay.translate.raw_json import has_text
from relay.translate.request.json_schema import constrain

from .test_request import JSON, SEAL, TARGET_MODELS, accepted

MARK = b',"cache_control":{"type":"ephemeral"}'
MODELS = st.sampled_from(["opus", "sonnet-4-6", "haiku"])
IDS = st.sampled_from(
    ["call_0", "functions.bash:0", "functions_bash_0", "call_0_2", "é", "", "a|b"]
)
TEXTS = st.sampled_from(["a", 'é "quoted"\n', "\\", "😀 end", "\u2028x", "<b>"])
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("f", "g")
]


def octets(messages: list[JSON], name: str, **more: Any) -> bytes:
    body = json.dumps({"model": "m", "messages": messages, **more}).encode()
    return chat.read(body).builder.octets(TARGET_MODELS[name], breakpoints=True, user=None)


@st.composite
def rounds(draw: st.DrawFn) -> list[list[JSON]]:
    """A conversation in pieces; each piece ends with something to answer."""
    pieces: list[list[JSON]] = []
    asides = st.lists(TEXTS.map(lambda text: {"role": "developer", "content": text}), max_size=1)
    users = st.one_of(TEXTS, TEXTS.map(lambda text: [{"type": "text", "text": text}]))
    start = draw(st.lists(TEXTS.map(lambda text: {"role": "system", "content": text}), max_size=2))
    calls: list[str] = []
    for _ in range(draw(st.integers(1, 4))):
        piece, start = start, []
        if calls:
            results = [{"role": "tool", "tool_call_id": each, "content": each} for each in calls]
            piece += draw(asides) + draw(st.permutations(results))
        else:
            user: JSON = {"role": "user", "content": draw(users)}
            piece += [*draw(asides), user]
        pieces.append(piece + draw(asides))
        calls = draw(st.lists(IDS, max_size=3))
        answer: JSON = {"role": "assistant", "content": draw(st.none() | TEXTS if calls else TEXTS)}
        if calls:
            function = {"name": draw(st.sampled_from("fg")), "arguments": '{"x": "é\\n"}'}
            answer["tool_calls"] = [
                {"id": each, "type": "function", "function": function} for each in calls
            ]
        if draw(st.booleans()):
            place = draw(st.sampled_from(["thinking-0-0", "thinking-1-0", "x"]))
            answer["reasoning_details"] = [
                {
                    "type": "reasoning.text",
                    "text": "hm",
                    "signature": SEAL.sign("hm", "hm"),
                    "id": place,
                    "format": draw(st.sampled_from(["anthropic-claude-v1", "glm-v1"])),
                }
            ]
        start = [answer]
    return pieces


@given(rounds(), MODELS)
def test_a_turn_begins_with_the_octets_of_the_turn_before(
    pieces: list[list[JSON]], name: str
) -> None:
    before = b""
    messages: list[JSON] = []
    for piece in pieces:
        messages += piece
        body = octets(messages, name, tools=TOOLS).replace(MARK, b"")
        assert body.startswith(before)
        before = body.removesuffix(b"]}")
        assert before != body


@given(rounds(), MODELS, st.sampled_from([None, "none", "low", "max"]))
def test_any_call_ids_become_ids_that_the_api_accepts(
    pieces: list[list[JSON]], name: str, effort: str | None
) -> None:
    messages = [message for piece in pieces for message in piece]
    body = {"messages": messages, "tools": TOOLS, "reasoning_effort": effort}
    builder = chat.read(json.dumps(body).encode()).builder
    document = accepted(builder.octets(TARGET_MODELS[name], breakpoints=True, user=None), builder)
    results = [
        (block["tool_use_id"], block["content"][0]["text"] if "content" in block else "")
        for message in document["messages"]
        for block in message["content"]
        if block["type"] == "tool_result"
    ]
    for known, given_id in results:
        base = re.sub(r"[^a-zA-Z0-9_-]", "_", given_id) or "call"
        assert known.startswith(base)
    assert len({known for known, _ in results}) == len(results)


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["", " ", "text", "auto", "function", "user", "data:image/png;base64,AA", "{}"]
    ),
    st.text(max_size=5),
)
NAMES = sorted(
    {
        *("messages", "role", "content", "tool_calls", "tool_call_id", "is_error", "refusal"),
        *("type", "text", "image_url", "url", "file", "file_data", "file_id", "filename", "source"),
        *("cache_control", "function", "name", "arguments", "parameters", "strict", "id", "index"),
        *("reasoning_details", "thinking_blocks", "provider_specific_fields", "reasoning_content"),
        *("format", "signature", "data", "thinking", "schema", "json_schema", "allowed_tools"),
        *("tools", "mode", "approximate", "user_location", "properties", "$ref", "anyOf", "items"),
    }
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = [
    *("stream", "stream_options", "max_completion_tokens", "max_tokens", "temperature", "top_p"),
    *("top_k", "stop", "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort"),
    *("thinking", "response_format", "web_search_options", "n", "logprobs", "modalities"),
    *("functions", "function_call", "user", "safety_identifier", "messages"),
]
# A valid request, of which tests change one value: a random request would seldom get this far.
GOOD: JSON = {
    "messages": [
        {"role": "system", "content": "s", "cache_control": {"type": "ephemeral"}},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "t"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA"}},
                {"type": "image", "source": {"type": "url", "url": "https://a.example"}},
            ],
        },
        {
            "role": "assistant",
            "content": "c",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
            "reasoning_details": [
                {"type": "reasoning.text", "text": "x", "signature": "s", "id": "thinking-1-0"}
            ],
            "provider_specific_fields": {"thinking_blocks": [{"type": "redacted_thinking"}]},
        },
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "r"}]},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {}}}],
    "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
    "response_format": {"type": "json_schema", "json_schema": {"schema": {"properties": {}}}},
    "web_search_options": {"user_location": {"approximate": {"city": "x"}}},
    "stream_options": {"include_usage": True},
}


def places(value: Any) -> list[tuple[Any, Any]]:
    """All members and elements within a value, as pairs of container and key."""
    found: list[tuple[Any, Any]] = []
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for name, one in inner:
        found.append((value, name))
        if isinstance(one, dict | list):
            found += places(one)
    return found


def fair(refusal: RelayError) -> None:
    """A refusal is the caller's fault, and its body names the field."""
    assert refusal.kind is INVALID_REQUEST
    assert json.loads(refusal.body(ErrorShape.OPENAI))["error"]["param"] == refusal.param


def read_and_write(body: bytes) -> list[bytes]:
    """The octets for each model that does not refuse the request."""
    found: list[bytes] = []
    for target_model in TARGET_MODELS.values():
        try:
            found.append(chat.read(body).builder.octets(target_model, breakpoints=True, user=None))
        except RelayError as refusal:
            fair(refusal)
    return found


@given(st.data())
def test_any_value_anywhere_is_accepted_or_refused(data: st.DataObject) -> None:
    body = json.loads(json.dumps(GOOD))
    if data.draw(st.booleans()):
        del body["tool_choice"]
    where, name = data.draw(st.sampled_from(places(body)))
    where[name] = data.draw(VALUES)
    for written in read_and_write(json.dumps(body).encode()):
        json.loads(written)


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6))
def test_any_fields_are_accepted_or_refused(fields: JSON) -> None:
    body = {"messages": [{"role": "user", "content": "x"}]} | fields
    for written in read_and_write(json.dumps(body).encode()):
        json.loads(written)


@given(st.data())
def test_any_octets_are_accepted_or_refused(data: st.DataObject) -> None:
    body = bytearray(json.dumps(GOOD, ensure_ascii=False).encode())
    at = data.draw(st.integers(0, len(body)))
    body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    read_and_write(bytes(body))


DEEP = b"[" * 50_000 + b"]" * 50_000
LONE = b'{"messages":[{"role":"user","content":"\\ud800"}]}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"messages":[{"role":"\xff","content":"x"}]}',
        b'{"messages":[{"role":"user","content":%b}]}' % DEEP,
        b'{"x":%b,"messages":[{"role":"user","content":"x"}]}' % DEEP,
        b'{"messages":[{"role":"user","content":"x"}],"max_tokens":1%b}' % (b"0" * 5000),
        b'{"messages":[{"role":"user","content":"x"}],"temperature":1e999}',
        LONE,
    ],
    ids=["empty", "cut", "array", "null", "utf-8", "deep", "deep hint", "long", "huge", "half"],
)
def test_a_body_that_is_not_a_request_is_refused(body: bytes) -> None:
    for written in read_and_write(body):  # a number may only be too long
        assert json.loads(written)["max_tokens"] <= 128_000


def test_arguments_nested_too_deeply_are_a_text() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": f'{{"x":{DEEP.decode()}}}'}}
    messages = [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "x"},
    ]
    body = json.dumps({"messages": messages}).encode()
    sent = json.loads(
        chat.read(body).builder.octets(TARGET_MODELS["opus"], breakpoints=False, user=None)
    )
    (wrapped,) = sent["messages"][0]["content"][0]["input"].values()
    assert wrapped == f'{{"x":{DEEP.decode()}}}'


SPACES = st.text(st.sampled_from([chr(n) for n in range(0x3001) if chr(n).isspace()]), max_size=4)


@given(SPACES, st.sampled_from(["", "x", '"', "\\", "\u200b", "é"]), st.booleans())
def test_a_text_of_white_space_is_blank(space: str, more: str, ascii: bool) -> None:
    raw = json.dumps(space + more, ensure_ascii=ascii).encode()
    assert has_text(raw, "") == bool(more)
    assert has_text(msgspec.Raw(raw), "") == bool(more)


def test_much_white_space_is_blank() -> None:
    for much in (255, 256, 257, 5000):
        assert not has_text(json.dumps("\n" * much).encode(), "")
        assert has_text(json.dumps("\n" * much + "x").encode(), "")


SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {"type": "string", "maxLength": 3},
            {"type": "string", "format": "uri", "pattern": "^a$"},
            {"type": "string", "format": "x", "pattern": "a(?=b)"},
            {"type": ["integer", "null"], "minimum": 1, "description": "d"},
            {"enum": ["a", 1, {"b": 1}]},
            {"$ref": "#/$defs/A"},
            {"$ref": "#/$defs/B"},
            {"type": "object"},
            {"type": "object", "additionalProperties": True},
            {"not": {}},
            True,
        ]
    ),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from("ab"), inner, max_size=2).map(
            lambda properties: {"type": "object", "properties": properties, "minProperties": 1}
        ),
        inner.map(
            lambda item: {"type": "array", "items": item, "minItems": 2, "uniqueItems": True}
        ),
        st.tuples(st.sampled_from(["anyOf", "oneOf", "allOf", "prefixItems"]), st.lists(inner)).map(
            lambda pair: {pair[0]: pair[1]}
        ),
    ),
    max_leaves=5,
)


@given(SCHEMAS, SCHEMAS, SCHEMAS)
def test_a_schema_becomes_one_that_the_api_accepts_or_none(root: Any, one: Any, two: Any) -> None:
    if not isinstance(root, dict):
        return
    octets = json.dumps({**root, "$defs": {"A": one, "B": two}}).encode()
    strict_schema = constrain(octets)
    if strict_schema is None:
        return
    request = {
        "output_config": {"format": {"type": "json_schema", "schema": json.loads(strict_schema)}}
    }
    grammar.check(request)
    assert constrain(strict_schema) == strict_schema


THOUGHTS = st.sampled_from(["one", 'two "é"\n', "😀"]).map(
    lambda words: {"type": "thinking", "thinking": words, "signature": SEAL.sign(words, words)}
)
HIDDEN = st.just({"type": "redacted_thinking", "data": "c2VjcmV0"})
STEPS = st.tuples(st.none() | THOUGHTS | HIDDEN, st.none() | TEXTS, st.integers(0, 2))


@given(st.lists(STEPS, max_size=4))
def test_thinking_returns_to_where_it_was(steps: list[tuple[JSON | None, str | None, int]]) -> None:
    content: list[JSON] = []
    for number, (thought, text, calls) in enumerate(steps):
        if thought is None and number:
            continue  # this step would be part of the one before
        content += [thought] if thought is not None else []
        content += [{"type": "text", "text": text}] if text is not None else []
        for call in range(calls):
            names = {"id": f"t{number}-{call}", "name": "f"}
            content.append({"type": "tool_use", **names, "input": {"n": number}})
    if not content:
        return
    kept = list(content)
    while kept and kept[-1]["type"] in ("thinking", "redacted_thinking"):
        kept.pop()  # the API refuses a turn that ends with thinking
    answer = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": content,
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    metadata = AnswerMetadata("chatcmpl-1", 0, "m", "anthropic")
    message = json.loads(completion.translate(json.dumps(answer).encode(), metadata))["choices"][0][
        "message"
    ]
    results = [
        {"role": "tool", "tool_call_id": block["id"], "content": "r"}
        for block in content
        if block["type"] == "tool_use"
    ]
    messages = [
        {"role": "user", "content": "q"},
        message,
        *results,
        {"role": "user", "content": "q"},
    ]
    again = json.loads(octets(messages, "opus"))["messages"]
    if kept:
        assert again[1] == {"role": "assistant", "content": kept}
    else:
        assert [message["role"] for message in again] == ["user"]

"""Responses requests as Messages requests. Most cases: tests/corpora/responses/requests.toml."""

import json
import re
import time
import tomllib
from typing import Any

import msgspec
import pytest
from openai.types.responses import Response

from relay.errors import RelayError
from relay.translate.request.tool_names import CallerTool, function_name
from relay.translate.responses import request
from relay.translate.responses.seal import Seal
from tests.corpora import CORPORA
from tests.translate.chat.test_request import (
    CLAUDE,
    JSON,
    TARGET_MODELS,
    accepted,
    check,
    refused_as,
)
from tests.translate.chat.test_request import SEAL as UPSTREAM
from tests.translate.openresponses import validate

CASES: list[JSON] = tomllib.loads((CORPORA / "responses" / "requests.toml").read_text())["case"]
ACCEPTED = [case for case in CASES if "param" not in case]
REFUSED = [case for case in CASES if "param" in case]
OWN = Seal(b"k" * 32, "usr_1")
_SEALED = re.compile(r"SEALED\((\w+)\)")
_SUMMARY = re.compile(r"SUMMARY\(([^)]*)\)")


def octets(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def thought(words: str, family: str = "anthropic") -> str:
    """Thinking, signed by the simulated upstream and sealed by this relay."""
    signature = octets(UPSTREAM.sign(words, words))
    return str(json.loads(OWN.thought(family, octets(words), signature)))


def body(case: JSON) -> bytes:
    text = _SEALED.sub(lambda match: thought(match[1]), case["request"])
    text = _SUMMARY.sub(lambda match: json.loads(OWN.summary(octets(match[1]))), text)
    return b'{"model":"claude-opus-4-8",' + text.removeprefix("{").encode()


def read(fields: JSON, **options: Any) -> request.ResponsesRequest:
    return request.read(octets({"model": "claude-opus-4-8", **fields}), OWN, **options)


def messages(fields: JSON, **options: Any) -> JSON:
    """The Messages request for the newest model."""
    builder = read(fields, **options).builder
    return accepted(builder.octets(TARGET_MODELS["opus"], breakpoints=False, user=None), builder)


def test_the_corpus_is_complete() -> None:
    assert len(CASES) >= 110
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert all(case["source"] for case in CASES)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case["name"])
def test_a_request_becomes_one_that_the_api_accepts(case: JSON) -> None:
    builder = request.read(body(case), OWN).builder
    made = builder.octets(
        TARGET_MODELS[case.get("target_model", "opus")], breakpoints=False, user=None
    )
    check(case, accepted(made, builder) if case.get("strict", True) else json.loads(made))


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["name"])
def test_a_request_that_cannot_be_honoured_names_the_field(case: JSON) -> None:
    target_model = TARGET_MODELS[case.get("target_model", "opus")]
    with refused_as(case):
        request.read(body(case), OWN).builder.octets(target_model, breakpoints=True, user=None)


@pytest.mark.parametrize("counting", [False, True], ids=["asked", "counted"])
@pytest.mark.parametrize("name", CLAUDE)
def test_each_model_accepts_every_request_not_refused(name: str, counting: bool) -> None:
    refused: set[str | None] = set()
    for case in ACCEPTED:
        builder = request.read(body(case), OWN).builder
        try:
            made = builder.octets(
                TARGET_MODELS[name], breakpoints=True, user="u", counting=counting
            )
        except RelayError as refusal:
            refused.add(refusal.param)
            continue
        if counting:
            document = json.loads(made)
            assert not document.keys() & {
                "max_tokens",
                "stream",
                "metadata",
                "temperature",
                "top_p",
            }
            made = octets(
                {**document, "max_tokens": TARGET_MODELS[name].max_tokens}
            )  # which the check requires
        accepted(made, builder)
    assert refused <= {"tool_choice", "text.format"}  # a search, and a promise


def test_tools_are_kept_by_their_function_names() -> None:
    tools = [
        {"type": "function", "name": "f"},
        {"type": "custom", "name": "apply_patch"},
        {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "t"}]},
        {"type": "local_shell"},
        {"type": "web_search"},
        {"type": "image_generation"},
    ]
    assert read({"input": "Hello", "tools": tools}).tools == {
        "f": CallerTool("function", "f"),
        "apply_patch": CallerTool("custom", "apply_patch"),
        "ns__t": CallerTool("function", "t", "ns"),
        "local_shell": CallerTool("local_shell", "local_shell"),
    }


def test_a_functions_name_is_the_same_in_every_turn_and_fits() -> None:
    assert function_name("f") == "f"
    assert function_name("t", "ns") == "ns__t"
    assert function_name("t", "mcp__files__") == "mcp__files__t"
    assert function_name("späß.x", "a b") == "a_b__sp___x"
    long = function_name("t" * 100, "n" * 100)
    assert len(long) == 128
    assert long != function_name("t" * 101, "n" * 100)
    assert function_name("") == "tool"


def test_a_request_says_what_to_store_and_show() -> None:
    plain = read({"input": "Hello"})
    assert (
        plain.stream,
        plain.summarizes_thinking,
        plain.stored,
        plain.previous_response_id,
        plain.user,
    ) == (
        *(False, False, False),
        *(None, None),
    )
    item = {"role": "user", "type": "message", "content": [{"type": "input_text", "text": "Hello"}]}
    assert [json.loads(bytes(one)) for one in plain.items] == [item]
    fields = {"input": [item], "stream": True, "reasoning": {"summary": "auto"}, "user": "ada"}
    asked = read({**fields, "previous_response_id": "resp_0"}, storing=True)
    assert (
        asked.stream,
        asked.summarizes_thinking,
        asked.stored,
        asked.previous_response_id,
        asked.user,
    ) == (
        *(True, True, True),
        *("resp_0", "ada"),
    )
    assert not read({**fields, "store": False}, storing=True).stored
    assert not read({"input": "x", "reasoning": {"summary": "none"}}).summarizes_thinking


def test_a_request_continues_the_conversation_before_it() -> None:
    before = [
        {"role": "developer", "content": "Be brief."},
        {"id": "msg_1", "role": "user", "content": "One"},
        {"type": "reasoning", "summary": [], "encrypted_content": thought("hm")},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "1"}]},
    ]
    raws = [msgspec.Raw(octets(item)) for item in before]
    fields = {
        "input": [{"type": "item_reference", "id": "msg_1"}, {"role": "user", "content": "2"}]
    }
    document = messages(fields, before=raws)
    assert document["system"] == [{"type": "text", "text": "Be brief."}]
    kinds = [[block["type"] for block in turn["content"]] for turn in document["messages"]]
    assert kinds == [["text"], ["thinking", "text"], ["text", "text"]]
    assert [block["text"] for block in document["messages"][2]["content"]] == ["One", "2"]


@pytest.mark.parametrize("body", ['{"previous_response_id":5}', '{"previous_response_id":[]}'])
def test_the_previous_response_id_is_a_text_or_absent(body: str) -> None:
    with pytest.raises(RelayError) as refusal:
        request.previous_response_id(body.encode())
    assert refusal.value.param == "previous_response_id"
    assert request.previous_response_id(b"{}") is None
    assert request.previous_response_id(b'{"previous_response_id":null}') is None
    assert request.previous_response_id(b'{"previous_response_id":"resp_1"}') == "resp_1"


def test_a_compaction_asks_for_a_summary_at_the_end() -> None:
    body = octets({"model": "m", "instructions": "Be brief.", "input": "Hello"})
    asked = request.read_compaction(body, OWN)
    document = accepted(
        asked.builder.octets(TARGET_MODELS["opus"], breakpoints=False, user=None), asked.builder
    )
    assert not asked.stream
    [turn] = document["messages"]
    assert turn["content"][0]["text"] == "Hello"
    assert "cut off here" in turn["content"][-1]["text"]


# --- echoed members -----------------------------------------------------------------

FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}
ECHOED: list[JSON] = [
    {},
    {"instructions": "Be brief.", "temperature": 0.5, "top_p": 0.9, "max_output_tokens": 9},
    {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "f"}},
    {"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "mode": "auto",
                                          "tools": [{"type": "function", "name": "f"}]}},
    {"reasoning": {"effort": "high", "summary": "auto"}, "parallel_tool_calls": False},
    {"metadata": {"a": "b"}, "truncation": "auto", "prompt_cache_key": "k", "max_tool_calls": 2,
     "safety_identifier": "s", "presence_penalty": 0.5, "frequency_penalty": 1},
    {"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
    {"previous_response_id": "resp_0", "store": True},
]  # fmt: skip


def response_with_echo(asked: request.ResponsesRequest) -> JSON:
    document: JSON = json.loads(
        b'{"id":"resp_1","object":"response","created_at":1,"completed_at":null,'
        b'"status":"in_progress","error":null,"incomplete_details":null,"output":[],"usage":null'
        + asked.echo
        + b"}"
    )
    return document


@pytest.mark.parametrize("fields", ECHOED, ids=lambda fields: next(iter(fields), "nothing"))
def test_a_response_repeats_its_request(fields: JSON) -> None:
    document = response_with_echo(read({"input": "Hello", **fields}, storing=True))
    Response.model_validate_json(json.dumps(document), strict=True)
    validate("ResponseResource", document)
    left_out = ("tools", "text")
    assert {name: document[name] for name in fields if name not in left_out} == {
        name: value for name, value in fields.items() if name not in left_out
    }


def test_other_tools_and_formats_are_repeated_as_openai_does() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
    tools = [
        {"type": "custom", "name": "c", "format": {"type": "text"}},
        {"type": "local_shell"},
        {"type": "web_search"},
    ]
    document = response_with_echo(
        read({"input": "Hello", "tools": tools, "text": {"format": schema}})
    )
    Response.model_validate_json(json.dumps(document), strict=True)
    assert document["tools"] == tools
    assert document["text"]["format"] == {**schema, "description": None, "strict": False}


def test_members_that_cannot_be_decoded_are_not_repeated() -> None:
    body = b'{"model":"m","input":"Hi","reasoning":{"effort":"low","title":1e999}}'
    echoed = response_with_echo(request.read(body, OWN))
    assert echoed["reasoning"] == {"effort": None, "summary": None}


# --- seals --------------------------------------------------------------------------


def test_a_seal_opens_for_its_own_account_and_key_alone() -> None:
    text, signature = b'"Hm \\u00e9 \xc3\xa9"', b'"sig=="'
    sealed = msgspec.Raw(OWN.thought("anthropic", text, signature))
    opened = OWN.opened(sealed)
    assert opened is not None
    assert (bytes(opened.text), bytes(opened.signature)) == (text, signature)
    for other in (Seal(b"k" * 32, "usr_2"), Seal(b"j" * 32, "usr_1")):
        assert other.opened(sealed) is None
    assert OWN.opened_summary(sealed) is None
    assert OWN.opened(msgspec.Raw(OWN.summary(text))) is None


def test_no_octet_of_a_seal_can_be_changed() -> None:
    sealed = OWN.redacted("anthropic", b'"EncA"')
    for at in range(1, len(sealed) - 1):
        changed = bytes([sealed[at] ^ 1])
        forged = sealed[:at] + changed + sealed[at + 1 :]
        found = OWN.opened(msgspec.Raw(forged))
        # The last letter of base64 may have bits without meaning.
        assert found is None or at == len(sealed) - 2 or b"=" in sealed[at:]


# --- time ---------------------------------------------------------------------------


def test_a_long_conversation_is_read_in_linear_time() -> None:
    items: list[Any] = [{"role": "user", "content": "Hello"}]
    for number in range(2000):
        call = {"call_id": f"c{number}", "name": "f", "arguments": '{"cmd":"ls"}'}
        items.append({"type": "reasoning", "summary": [], "encrypted_content": thought("hm")})
        items.append({"type": "function_call", **call})
        items.append({"type": "function_call_output", "call_id": f"c{number}", "output": "x" * 100})
    body = octets({"model": "m", "input": items})
    start = time.process_time()
    request.read(body, OWN).builder.octets(TARGET_MODELS["opus"], breakpoints=True, user=None)
    assert time.process_time() - start < 1.5


def test_a_namespace_of_thousands_of_tools_does_not_grow() -> None:
    tools = [{"type": "function", "name": f"f{number}"} for number in range(5000)]
    group = {"type": "namespace", "name": "ns", "description": "d" * 100_000, "tools": tools}
    body = octets({"model": "m", "input": "Hello", "tools": [group]})
    builder = request.read(body, OWN).builder
    made = builder.octets(TARGET_MODELS["opus"], breakpoints=True, user=None)
    assert len(made) < 3 * len(body)
    with pytest.raises(RelayError) as refusal:
        read({"input": "Hello", "tools": [{**group, "name": "n" * 1000}]})
    assert refusal.value.param == "tools[0].name"


def test_a_request_beyond_the_corpus_names_the_field() -> None:
    items = b",".join([b'{"role":"user","content":"Hi"}'] * 100_001)
    with pytest.raises(RelayError) as refusal:
        request.read(b'{"model":"m","input":[%b]}' % items, OWN)
    assert refusal.value.param == "input"

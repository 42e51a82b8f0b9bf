"""What becomes of a Responses request; most of it is in tests/corpora/responses/requests.toml."""

import json
import re
import time
import tomllib
from typing import Any

import msgspec
import pytest
from openai.types.responses import Response

from relay.errors import INVALID_REQUEST, RelayError
from relay.translate.responses import request
from relay.translate.responses.seal import Seal
from relay.translate.responses.tool_names import CallerTool, function_name
from tests.corpora import CORPORA
from tests.translate.chat.test_request import CLAUDE, FITS, JSON, signed, taken
from tests.translate.chat.test_request import SEAL as UPSTREAM
from tests.translate.openresponses import validate

CASES: list[JSON] = tomllib.loads((CORPORA / "responses" / "requests.toml").read_text())["case"]
ACCEPTED = [case for case in CASES if "param" not in case]
REFUSED = [case for case in CASES if "param" in case]
OWN = Seal(b"k" * 32, "usr_1")
_SEALED = re.compile(r"SEALED\((\w+)\)")
_SUMMARY = re.compile(r"SUMMARY\(([^)]*)\)")


def octets(told: Any) -> bytes:
    return json.dumps(told, ensure_ascii=False).encode("utf-8", "surrogatepass")


def thought(words: str, family: str = "anthropic") -> str:
    """Thinking as the simulated upstream has signed it and this relay has sealed it."""
    signature = octets(UPSTREAM.sign(words, words))
    return str(json.loads(OWN.thought(family, octets(words), signature)))


def body(case: JSON) -> bytes:
    text = _SEALED.sub(lambda match: thought(match[1]), case["request"])
    text = _SUMMARY.sub(lambda match: json.loads(OWN.summary(octets(match[1]))), text)
    return b'{"model":"claude-opus-4-8",' + text.removeprefix("{").encode()


def read(told: JSON, **options: Any) -> request.ResponsesRequest:
    return request.read(octets({"model": "claude-opus-4-8", **told}), OWN, **options)


def messages(told: JSON, **options: Any) -> JSON:
    """The Messages request for the newest model."""
    draft = read(told, **options).draft
    return taken(draft.octets(FITS["opus"], breakpoints=False, user=None), draft)


def test_the_corpus_is_whole() -> None:
    assert len(CASES) >= 110
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert all(case["source"] for case in CASES)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case["name"])
def test_a_request_becomes_what_the_api_takes(case: JSON) -> None:
    draft = request.read(body(case), OWN).draft
    made = draft.octets(FITS[case.get("fit", "opus")], breakpoints=False, user=None)
    document = taken(made, draft) if case.get("strict", True) else json.loads(made)
    expected = json.loads(signed(case["expect"]), strict=False)
    assert {name: document[name] for name in expected} == expected
    assert [name for name in case.get("absent", ()) if name in document] == []


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["name"])
def test_a_request_that_cannot_be_honoured_is_refused_by_name(case: JSON) -> None:
    fit = FITS[case.get("fit", "opus")]
    with pytest.raises(RelayError) as refusal:
        request.read(body(case), OWN).draft.octets(fit, breakpoints=True, user=None)
    assert refusal.value.kind is INVALID_REQUEST
    assert refusal.value.param == case["param"]
    assert case["says"] in refusal.value.message


@pytest.mark.parametrize("counting", [False, True], ids=["asked", "counted"])
@pytest.mark.parametrize("name", CLAUDE)
def test_each_model_takes_every_request_that_is_not_refused(name: str, counting: bool) -> None:
    refused: set[str | None] = set()
    for case in ACCEPTED:
        draft = request.read(body(case), OWN).draft
        try:
            made = draft.octets(FITS[name], breakpoints=True, user="u", counting=counting)
        except RelayError as refusal:
            refused.add(refusal.param)
            continue
        if counting:
            told = json.loads(made)
            assert not told.keys() & {"max_tokens", "stream", "metadata", "temperature", "top_p"}
            made = octets({**told, "max_tokens": FITS[name].most})  # which the check demands
        taken(made, draft)
    assert refused <= {"tool_choice", "text.format"}  # a search, and a promise


def test_the_tools_are_known_by_the_names_of_their_functions() -> None:
    tools = [
        {"type": "function", "name": "f"},
        {"type": "custom", "name": "apply_patch"},
        {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "t"}]},
        {"type": "local_shell"},
        {"type": "web_search"},
        {"type": "news"},
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


def test_what_is_stored_and_shown_is_what_was_asked() -> None:
    plain = read({"input": "Hello"})
    assert (plain.stream, plain.shows, plain.stored, plain.previous, plain.user) == (
        *(False, False, False),
        *(None, None),
    )
    item = {"role": "user", "type": "message", "content": [{"type": "input_text", "text": "Hello"}]}
    assert [json.loads(bytes(one)) for one in plain.items] == [item]
    told = {"input": [item], "stream": True, "reasoning": {"summary": "auto"}, "user": "ada"}
    asked = read({**told, "previous_response_id": "resp_0"}, storing=True)
    assert (asked.stream, asked.shows, asked.stored, asked.previous, asked.user) == (
        *(True, True, True),
        *("resp_0", "ada"),
    )
    assert not read({**told, "store": False}, storing=True).stored
    assert not read({"input": "x", "reasoning": {"summary": "none"}}).shows


def test_a_conversation_goes_on_from_what_was_before() -> None:
    before = [
        {"role": "developer", "content": "Be brief."},
        {"id": "msg_1", "role": "user", "content": "One"},
        {"type": "reasoning", "summary": [], "encrypted_content": thought("hm")},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "1"}]},
    ]
    raws = [msgspec.Raw(octets(item)) for item in before]
    told = {"input": [{"type": "item_reference", "id": "msg_1"}, {"role": "user", "content": "2"}]}
    document = messages(told, before=raws)
    assert document["system"] == [{"type": "text", "text": "Be brief."}]
    kinds = [[block["type"] for block in turn["content"]] for turn in document["messages"]]
    assert kinds == [["text"], ["thinking", "text"], ["text", "text"]]
    assert [block["text"] for block in document["messages"][2]["content"]] == ["One", "2"]


@pytest.mark.parametrize("told", ['{"previous_response_id":5}', '{"previous_response_id":[]}'])
def test_what_a_request_goes_on_from_is_a_text(told: str) -> None:
    with pytest.raises(RelayError) as refusal:
        request.previous(told.encode())
    assert refusal.value.param == "previous_response_id"
    assert request.previous(b'{"previous_response_id":null}') is None
    assert request.previous(b'{"previous_response_id":"resp_1"}') == "resp_1"


def test_a_compaction_asks_for_a_summary_at_the_end() -> None:
    told = octets({"model": "m", "instructions": "Be brief.", "input": "Hello"})
    asked = request.compaction(told, OWN)
    document = taken(asked.draft.octets(FITS["opus"], breakpoints=False, user=None), asked.draft)
    assert not asked.stream
    [turn] = document["messages"]
    assert turn["content"][0]["text"] == "Hello"
    assert "cut off here" in turn["content"][-1]["text"]


# --- what a response repeats --------------------------------------------------------

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


def whole(told: request.ResponsesRequest) -> JSON:
    document: JSON = json.loads(
        b'{"id":"resp_1","object":"response","created_at":1,"completed_at":null,'
        b'"status":"in_progress","error":null,"incomplete_details":null,"output":[],"usage":null'
        + told.echo
        + b"}"
    )
    return document


@pytest.mark.parametrize("told", ECHOED, ids=lambda told: next(iter(told), "nothing"))
def test_a_response_repeats_what_was_asked(told: JSON) -> None:
    document = whole(read({"input": "Hello", **told}, storing=True))
    Response.model_validate_json(json.dumps(document), strict=True)
    validate("ResponseResource", document)
    left_out = ("tools", "text")
    assert {name: document[name] for name in told if name not in left_out} == {
        name: value for name, value in told.items() if name not in left_out
    }


def test_other_tools_and_shapes_are_repeated_as_openai_has_them() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
    tools = [
        {"type": "custom", "name": "c", "format": {"type": "text"}},
        {"type": "local_shell"},
        {"type": "web_search"},
    ]
    document = whole(read({"input": "Hello", "tools": tools, "text": {"format": schema}}))
    Response.model_validate_json(json.dumps(document), strict=True)
    assert document["tools"] == tools
    assert document["text"]["format"] == {**schema, "description": None, "strict": False}


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
        # The last letter of base64 may have bits that say nothing.
        assert found is None or at == len(sealed) - 2 or b"=" in sealed[at:]


# --- time ---------------------------------------------------------------------------


def test_a_long_conversation_is_read_in_no_time() -> None:
    items: list[Any] = [{"role": "user", "content": "Hello"}]
    for number in range(2000):
        call = {"call_id": f"c{number}", "name": "f", "arguments": '{"cmd":"ls"}'}
        items.append({"type": "reasoning", "summary": [], "encrypted_content": thought("hm")})
        items.append({"type": "function_call", **call})
        items.append({"type": "function_call_output", "call_id": f"c{number}", "output": "x" * 100})
    told = octets({"model": "m", "input": items})
    begun = time.process_time()
    request.read(told, OWN).draft.octets(FITS["opus"], breakpoints=True, user=None)
    assert time.process_time() - begun < 1.5


def test_a_group_of_thousands_of_tools_does_not_grow() -> None:
    tools = [{"type": "function", "name": f"f{number}"} for number in range(5000)]
    group = {"type": "namespace", "name": "ns", "description": "d" * 100_000, "tools": tools}
    body = octets({"model": "m", "input": "Hello", "tools": [group]})
    draft = request.read(body, OWN).draft
    made = draft.octets(FITS["opus"], breakpoints=True, user=None)
    assert len(made) < 3 * len(body)
    with pytest.raises(RelayError) as refusal:
        read({"input": "Hello", "tools": [{**group, "name": "n" * 1000}]})
    assert refusal.value.param == "tools[0].name"

"""Chat completions requests as Messages requests. Most cases: tests/corpora/chat/requests.toml."""

import contextlib
import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from relay.config import Capabilities
from relay.errors import INVALID_REQUEST, RelayError
from relay.simulator import strict
from relay.simulator.seal import Seal
from relay.translate.chat import request as chat
from relay.translate.request.builder import TargetModel
from tests.corpora import CORPORA

JSON = dict[str, Any]
CASES: list[JSON] = tomllib.loads((CORPORA / "chat" / "requests.toml").read_text())["case"]
SEAL = Seal("corpus")
_SIGNED = re.compile(r"SIGNED\((\w+)\)")

NEWEST = Capabilities(
    sampling="none",
    thinking="adaptive",
    efforts=("low", "medium", "high", "xhigh", "max"),
    prefill=False,
    system_turns=True,
    web_search=True,
)
OLDER = Capabilities(sampling="one", thinking="budget", web_search=True)
TARGET_MODELS = {
    "opus": TargetModel("claude-opus-4-8", 128_000, "anthropic", NEWEST),
    "sonnet-4-6": TargetModel(
        "claude-sonnet-4-6",
        128_000,
        "anthropic",
        Capabilities(
            sampling="one",
            thinking="adaptive",
            efforts=("low", "medium", "high", "max"),
            prefill=False,
        ),
    ),
    "sonnet": TargetModel("claude-sonnet-4-5", 64_000, "anthropic", OLDER),
    "haiku": TargetModel("claude-haiku-4-5", 64_000, "anthropic", OLDER),
    "plain": TargetModel("claude-3-5-haiku-latest", 8_192, "anthropic", Capabilities()),
    "glm": TargetModel("glm-5", 128_000, "glm", Capabilities(thinking="budget", structured=False)),
}
CLAUDE = [
    name for name, target_model in TARGET_MODELS.items() if target_model.family == "anthropic"
]


def signed(text: str) -> str:
    return _SIGNED.sub(lambda match: SEAL.sign(match[1], match[1]), text)


def request(case: JSON) -> bytes:
    return signed(case["request"]).encode()


def accepted(octets: bytes, builder: Any) -> JSON:
    """The Messages request, which the strict API accepts."""
    document: JSON = json.loads(octets)
    strict.check(document, frozenset(), SEAL, ga=builder.system_turns)
    return document


ACCEPTED = [case for case in CASES if "param" not in case]
REFUSED = [case for case in CASES if "param" in case]


def check(case: JSON, document: JSON) -> None:
    """Hold a case of any corpus to the request that was made of it."""
    expected = json.loads(signed(case["expect"]), strict=False)
    assert {name: document[name] for name in expected} == expected
    assert [name for name in case.get("absent", ()) if name in document] == []


@contextlib.contextmanager
def refused_as(case: JSON) -> Iterator[None]:
    """Expect the refusal of a case of any corpus."""
    with pytest.raises(RelayError) as refusal:
        yield
    assert refusal.value.kind is INVALID_REQUEST
    assert refusal.value.param == case["param"]
    assert case["says"] in refusal.value.message


def test_the_corpus_is_complete() -> None:
    assert len(CASES) >= 70
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert all(case["source"] for case in CASES)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case["name"])
def test_a_request_becomes_one_that_the_api_accepts(case: JSON) -> None:
    builder = chat.read(request(case)).builder
    target_model = TARGET_MODELS[case.get("target_model", "opus")]
    octets = builder.octets(target_model, breakpoints=case.get("breakpoints", False), user=None)
    check(case, accepted(octets, builder) if case.get("strict", True) else json.loads(octets))


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["name"])
def test_a_request_that_cannot_be_honoured_names_the_field(case: JSON) -> None:
    target_model = TARGET_MODELS[case.get("target_model", "opus")]
    with refused_as(case):
        chat.read(request(case)).builder.octets(target_model, breakpoints=True, user=None)


@pytest.mark.parametrize("name", CLAUDE)
def test_each_model_accepts_every_request_not_refused(name: str) -> None:
    count = 0
    refused: set[str | None] = set()
    for case in ACCEPTED:
        if "thinking" in json.loads(signed(case["request"])):
            continue  # the API's own object goes upstream unchanged
        builder = chat.read(request(case)).builder
        try:
            octets = builder.octets(TARGET_MODELS[name], breakpoints=True, user="u")
        except RelayError as refusal:
            refused.add(refusal.param)
            continue
        accepted(octets, builder)
        count += 1
    assert refused <= {"messages", "web_search_options"}  # a prefill, and a search
    assert count > len(ACCEPTED) - 6


def small(**more: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "Hi"}], **more}).encode()


def test_a_builder_writes_the_same_octets_for_a_model_each_time() -> None:
    for case in ACCEPTED:
        builder = chat.read(request(case)).builder
        written: dict[str, bytes] = {}
        for _ in range(2):
            for name, target_model in TARGET_MODELS.items():
                try:
                    octets = builder.octets(target_model, breakpoints=True, user=None)
                except RelayError:
                    continue
                assert written.setdefault(name, octets) == octets


def test_a_request_says_what_the_gateway_needs() -> None:
    read = chat.read(small(stream=True, stream_options={"include_usage": True}, user="u"))
    assert (read.stream, read.include_usage, read.user) == (True, True, "u")
    read = chat.read(small(safety_identifier="s", user="u", max_tokens=5))
    assert (read.stream, read.include_usage, read.user) == (False, False, "s")
    assert read.builder.max_tokens == 5
    read = chat.read(small(user=""))
    assert (read.user, read.builder.max_tokens, read.builder.system_turns) == (None, None, False)


def test_only_the_opaque_user_id_goes_upstream() -> None:
    builder = chat.read(small(user="bob@example.com")).builder
    octets = builder.octets(TARGET_MODELS["opus"], breakpoints=False, user="opaque")
    assert json.loads(octets)["metadata"] == {"user_id": "opaque"}
    assert b"bob" not in octets


def test_texts_go_upstream_octet_by_octet() -> None:
    text = rb'"a\u00e9\/\ud83d\ude00 \t end"'
    arguments = rb'"{\"x\": 1.50e1,\n \"y\":\"\\u00e9\"}"'
    schema = b'{ "type":"object", "properties":{"n":{"maximum":1e400}}}'
    body = (
        b'{"messages":[{"role":"user","content":%b},{"role":"assistant","tool_calls":[{"id":"a",'
        b'"function":{"name":"f","arguments":%b}}]},{"role":"tool","tool_call_id":"a","content":'
        b'[{"text":%b,"type":"text"}]}],"tools":[{"type":"function","function":{"name":"f",'
        b'"description":%b,"parameters":%b}}]}'
    ) % (text, arguments, text, text, schema)
    octets = chat.read(body).builder.octets(TARGET_MODELS["opus"], breakpoints=False, user=None)
    assert octets.count(text) == 3
    assert b'"input":{"x": 1.50e1,\n "y":"\\u00e9"}' in octets.replace(rb"\n", b"\n")
    assert schema in octets


USER = b'{"role":"user","content":"Hi"}'


def test_a_request_beyond_the_corpus_names_the_field() -> None:
    with pytest.raises(RelayError) as refusal:
        chat.read(b'{"messages":[%b]}' % b",".join([USER] * 100_001))
    assert refusal.value.param == "messages"

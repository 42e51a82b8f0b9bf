"""Fields of another dialect, and octets that are not UTF-8, are refused by name and place."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from relay.errors import ErrorShape, RelayError
from relay.translate.chat import request as chat
from relay.translate.responses import request as responses
from relay.translate.responses.seal import Seal

OWN = Seal(b"k" * 32, "usr_1")
MIB = 1024 * 1024


def read_chat(body: bytes) -> Any:
    return chat.read(body)


def read_responses(body: bytes) -> Any:
    return responses.read(body, OWN)


def read_compaction(body: bytes) -> Any:
    return responses.read_compaction(body, OWN)


CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
RESPONSES: dict[str, Any] = {"model": "m", "input": "Hi"}
FOREIGN_TO_CHAT: dict[str, tuple[Any, str]] = {
    "input": ("Hi", "`messages`"),
    "prompt": ("Hi", "`messages`"),
    "instructions": ("Be short.", "role developer"),
    "system": ("Be short.", "role system"),
    "max_output_tokens": (5, "`max_completion_tokens`"),
    "stop_sequences": (["x"], "`stop`"),
    "text": ({"format": {"type": "json_object"}}, "`response_format`"),
    "output_config": ({"effort": "low"}, "`reasoning_effort`"),
    "previous_response_id": ("resp_1", "`messages`"),
    "conversation": ("conv_1", "`messages`"),
}
FOREIGN_TO_RESPONSES: dict[str, tuple[Any, str]] = {
    "messages": (CHAT["messages"], "`input`"),
    "system": ("Be short.", "`instructions`"),
    "max_tokens": (5, "`max_output_tokens`"),
    "max_completion_tokens": (5, "`max_output_tokens`"),
    "response_format": ({"type": "json_object"}, "`text.format`"),
    "stop": (["x"], "/v1/chat/completions"),
    "stop_sequences": (["x"], "/v1/chat/completions"),
    "reasoning_effort": ("low", "`reasoning.effort`"),
    "thinking": ({"type": "enabled", "budget_tokens": 1024}, "`reasoning.effort`"),
    "output_config": ({"effort": "low"}, "`reasoning.effort`"),
    "functions": ([], "`tools`"),
    "function_call": ("auto", "`tool_choice`"),
    "web_search_options": ({}, "`tools`"),
}
CASES = [(read_chat, CHAT, name, *case) for name, case in FOREIGN_TO_CHAT.items()]
CASES += [
    (read, RESPONSES, name, *case)
    for read in (read_responses, read_compaction)
    for name, case in FOREIGN_TO_RESPONSES.items()
]


@pytest.mark.parametrize(("read", "good", "name", "value", "right"), CASES)
def test_a_field_of_another_dialect_is_refused_by_name(
    read: Callable[[bytes], Any], good: dict[str, Any], name: str, value: Any, right: str
) -> None:
    with pytest.raises(RelayError) as refusal:
        read(json.dumps({**good, name: value}).encode())
    error = json.loads(refusal.value.body(ErrorShape.OPENAI))["error"]
    assert (error["param"], error["code"]) == (name, "unknown_parameter")
    assert right in error["message"]


@pytest.mark.parametrize(("read", "good", "name", "value", "right"), CASES)
def test_a_field_of_another_dialect_may_be_null(
    read: Callable[[bytes], Any], good: dict[str, Any], name: str, value: Any, right: str
) -> None:
    read(json.dumps({**good, name: None}).encode())


@pytest.mark.parametrize(
    ("read", "good"), [(read_chat, CHAT), (read_responses, RESPONSES)], ids=["chat", "responses"]
)
def test_fields_that_change_nothing_are_ignored(
    read: Callable[[bytes], Any], good: dict[str, Any]
) -> None:
    hints = {"seed": 1, "service_tier": "auto", "store": False, "logit_bias": {}, "x_new": [1]}
    read(json.dumps({**good, **hints}).encode())


BROKEN = {
    "an octet of Latin-1": b"caf\xe9",
    "half a character": b"\xe6\x97",
    "half a pair, as UTF-8": b"\xed\xa0\xbd",
    "an overlong slash": b"\xc0\xaf",
    "beyond Unicode": b"\xf5\x80\x80\x80",
}
BODIES = {
    "chat": (read_chat, b'{"model":"m","messages":[{"role":"user","content":"%b"}]}'),
    "chat, unread": (
        read_chat,
        b'{"model":"m","x":"%b","messages":[{"role":"user","content":"a"}]}',
    ),
    "responses": (read_responses, b'{"model":"m","input":"%b"}'),
    "compaction": (read_compaction, b'{"model":"m","input":[{"role":"user","content":"%b"}]}'),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize(("read", "form"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("before", [0, MIB - 60, 3 * MIB], ids=["short", "at a cut", "long"])
def test_octets_that_are_no_characters_are_refused(
    read: Callable[[bytes], Any], form: bytes, text: bytes, before: int
) -> None:
    filling = "日本".encode() * (before // 6) + b"x" * (before % 6)
    body = form % (filling + text)
    with pytest.raises(RelayError) as refusal:
        read(body)
    assert refusal.value.kind.status == 400
    assert "UTF-8" in refusal.value.message
    with pytest.raises(UnicodeDecodeError) as plain:
        body.decode()
    assert f"octet {plain.value.start} " in refusal.value.message


@pytest.mark.parametrize(("read", "form"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("offset", range(4))
def test_characters_at_a_cut_are_not_refused(
    read: Callable[[bytes], Any], form: bytes, offset: int
) -> None:
    read(form % (b"x" * offset + "🌍".encode() * (MIB // 2)))

"""The members of a response that repeat its request.

Decides how each is written. The specification requires some of them even where the caller left
them out (Open Responses specification, 2026-04-24, `ResponseResource`). The caller's own values
are repeated as they came; `request` has checked them.
"""

from typing import Any, Final

import msgspec

from relay.translate.invalid import UNREADABLE
from relay.translate.raw_json import NOTHING, Octets, encode_string, is_given
from relay.translate.responses.fields import RequestFields
from relay.translate.responses.tools import render_tools

_decode_any: Final = msgspec.json.Decoder().decode
_MAX_OCTETS: Final = 256 * 1024  # of all members; Codex CLI has up to 150 KiB of them
_MAX_MEMBER_OCTETS: Final = 4 * 1024  # of each, where all have more
_REPEATED: Final = (
    "frequency_penalty", "instructions", "max_output_tokens", "max_tool_calls", "metadata",
    "parallel_tool_calls", "presence_penalty", "previous_response_id", "prompt_cache_key",
    "reasoning", "safety_identifier", "temperature", "text", "tool_choice", "tools", "top_p",
    "truncation",
)  # fmt: skip
_PLAIN_TEXT: Final = b'{"format":{"type":"text"}}'
_NO_REASONING: Final = b'{"effort":null,"summary":null}'
_MEMBERS: Final = (
    b',"background":false,"frequency_penalty":%b,"instructions":%b,"max_output_tokens":%b,'
    b'"max_tool_calls":%b,"metadata":%b,"model":%b,"parallel_tool_calls":%b,'
    b'"presence_penalty":%b,"previous_response_id":%b,"prompt_cache_key":%b,"reasoning":%b,'
    b'"safety_identifier":%b,"service_tier":"default","store":%b,"temperature":%b,"text":%b,'
    b'"tool_choice":%b,"tools":[%b],"top_logprobs":0,"top_p":%b,"truncation":%b'
)


def members(request: RequestFields, *, stored: bool, size: int) -> bytes:
    """The members, each after a comma; `size` is that of the request in octets.

    They are in three events of a stream and more. Where they are very long in all, each long one
    is left out, as if the caller had not given it.
    """
    if size > _MAX_OCTETS:
        request = _without_long_members(request)
    return _MEMBERS % (
        _given_or(request.frequency_penalty, b"0.0"),
        _given_or(request.instructions, b"null"),
        _given_or(request.max_output_tokens, b"null"),
        _given_or(request.max_tool_calls, b"null"),
        _given_or(request.metadata, b"{}"),
        encode_string(request.model),
        _given_or(request.parallel_tool_calls, b"true"),
        _given_or(request.presence_penalty, b"0.0"),
        _given_or(request.previous_response_id, b"null"),
        _given_or(request.prompt_cache_key, b"null"),
        _reasoning(request.reasoning),
        _given_or(request.safety_identifier, b"null"),
        b"true" if stored else b"false",
        _given_or(request.temperature, b"1.0"),
        _text(request.text),
        _given_or(request.tool_choice, b'"auto"'),
        render_tools(request.tools),
        _given_or(request.top_p, b"1.0"),
        _given_or(request.truncation, b'"disabled"'),
    )


def _without_long_members(request: RequestFields) -> RequestFields:
    lengths = {
        name: len(memoryview(value))
        for name in _REPEATED
        if (value := getattr(request, name)) is not NOTHING
    }
    if sum(lengths.values()) <= _MAX_OCTETS:
        return request
    long = {name: NOTHING for name, length in lengths.items() if length > _MAX_MEMBER_OCTETS}
    return msgspec.structs.replace(request, **long)


def _reasoning(raw: msgspec.Raw) -> bytes:
    if not is_given(raw):
        return _NO_REASONING
    return msgspec.json.encode({"effort": None, "summary": None, **_decoded(raw)})


def _text(raw: msgspec.Raw) -> bytes:
    if not is_given(raw):
        return _PLAIN_TEXT
    text = _decoded(raw)
    format = text.get("format") or {"type": "text"}
    if format.get("type") == "json_schema":
        format = {"name": "", "description": None, **format}
        format["strict"] = bool(format.get("strict"))
    members = {"format": format}
    if text.get("verbosity") is not None:
        members["verbosity"] = text["verbosity"]
    return msgspec.json.encode(members)


def _decoded(raw: msgspec.Raw) -> dict[str, Any]:
    """An object's members; none if it holds a number out of range or is not UTF-8."""
    try:
        members: dict[str, Any] = _decode_any(raw)
    except UNREADABLE:
        return {}
    return members


def _given_or(raw: msgspec.Raw, default: bytes) -> Octets:
    return default if raw is NOTHING or not is_given(raw) else raw

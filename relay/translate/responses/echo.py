"""What a response repeats of its request.

Decides how each member stands in the response object, where the specification wants one whether
the caller gave it or not (Open Responses, 2026-04-24, `ResponseResource`). What the caller gave
is repeated as it came, and has been checked before.
"""

from typing import Any, Final

import msgspec

from relay.translate.invalid import UNREADABLE
from relay.translate.raw_json import NOTHING, Octets, encode_string, is_given
from relay.translate.responses.fields import Request
from relay.translate.responses.tools import echoed

_any = msgspec.json.Decoder().decode
_PLAIN: Final = b'{"format":{"type":"text"}}'
_NO_REASONING: Final = b'{"effort":null,"summary":null}'
_MEMBERS: Final = (
    b',"background":false,"frequency_penalty":%b,"instructions":%b,"max_output_tokens":%b,'
    b'"max_tool_calls":%b,"metadata":%b,"model":%b,"parallel_tool_calls":%b,'
    b'"presence_penalty":%b,"previous_response_id":%b,"prompt_cache_key":%b,"reasoning":%b,'
    b'"safety_identifier":%b,"service_tier":"default","store":%b,"temperature":%b,"text":%b,'
    b'"tool_choice":%b,"tools":[%b],"top_logprobs":0,"top_p":%b,"truncation":%b'
)


def members(asked: Request, *, stored: bool) -> bytes:
    """The members, each after a comma."""
    return _MEMBERS % (
        _or(asked.frequency_penalty, b"0.0"),
        _or(asked.instructions, b"null"),
        _or(asked.max_output_tokens, b"null"),
        _or(asked.max_tool_calls, b"null"),
        _or(asked.metadata, b"{}"),
        encode_string(asked.model),
        _or(asked.parallel_tool_calls, b"true"),
        _or(asked.presence_penalty, b"0.0"),
        _or(asked.previous_response_id, b"null"),
        _or(asked.prompt_cache_key, b"null"),
        _reasoning(asked.reasoning),
        _or(asked.safety_identifier, b"null"),
        b"true" if stored else b"false",
        _or(asked.temperature, b"1.0"),
        _text(asked.text),
        _or(asked.tool_choice, b'"auto"'),
        echoed(asked.tools),
        _or(asked.top_p, b"1.0"),
        _or(asked.truncation, b'"disabled"'),
    )


def _reasoning(raw: msgspec.Raw) -> bytes:
    if not is_given(raw):
        return _NO_REASONING
    return msgspec.json.encode({"effort": None, "summary": None, **_decoded(raw)})


def _text(raw: msgspec.Raw) -> bytes:
    if not is_given(raw):
        return _PLAIN
    told = _decoded(raw)
    form = told.get("format") or {"type": "text"}
    if form.get("type") == "json_schema":
        form = {"name": "", "description": None, **form}
        form["strict"] = bool(form.get("strict"))
    whole = {"format": form}
    if told.get("verbosity") is not None:
        whole["verbosity"] = told["verbosity"]
    return msgspec.json.encode(whole)


def _decoded(raw: msgspec.Raw) -> dict[str, Any]:
    """An object; what cannot be decoded, for half a character in it, is not repeated."""
    try:
        told: dict[str, Any] = _any(raw)
    except UNREADABLE:
        return {}
    return told


def _or(raw: msgspec.Raw, otherwise: bytes) -> Octets:
    return otherwise if raw is NOTHING or not is_given(raw) else raw

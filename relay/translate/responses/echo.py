"""What a response repeats of its request.

Decides how each member stands in the response object, where the specification wants one whether
the caller gave it or not (Open Responses, 2026-04-24, `ResponseResource`). What the caller gave
is repeated as it came, and has been checked before.
"""

from typing import Any, Final

import msgspec

from relay.translate.responses.tools import echoed
from relay.translate.text import NOTHING, Octets, given, quoted
from relay.translate.wrong import UNREADABLE

_any = msgspec.json.Decoder().decode
_PLAIN: Final = b'{"format":{"type":"text"}}'
_NO_REASONING: Final = b'{"effort":null,"summary":null}'


class Echo(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The members as they were given, if they were; `model` and `store` as they are."""

    model: str = ""
    store: bool = False
    instructions: msgspec.Raw = NOTHING
    max_output_tokens: msgspec.Raw = NOTHING
    max_tool_calls: msgspec.Raw = NOTHING
    metadata: msgspec.Raw = NOTHING
    parallel_tool_calls: msgspec.Raw = NOTHING
    presence_penalty: msgspec.Raw = NOTHING
    frequency_penalty: msgspec.Raw = NOTHING
    previous_response_id: msgspec.Raw = NOTHING
    prompt_cache_key: msgspec.Raw = NOTHING
    reasoning: msgspec.Raw = NOTHING
    safety_identifier: msgspec.Raw = NOTHING
    temperature: msgspec.Raw = NOTHING
    text: msgspec.Raw = NOTHING
    tool_choice: msgspec.Raw = NOTHING
    tools: msgspec.Raw = NOTHING
    top_p: msgspec.Raw = NOTHING
    truncation: msgspec.Raw = NOTHING

    def octets(self) -> bytes:
        """The members, each after a comma."""
        told: tuple[tuple[bytes, Octets], ...] = (
            (b"background", b"false"),
            (b"frequency_penalty", _or(self.frequency_penalty, b"0.0")),
            (b"instructions", _or(self.instructions, b"null")),
            (b"max_output_tokens", _or(self.max_output_tokens, b"null")),
            (b"max_tool_calls", _or(self.max_tool_calls, b"null")),
            (b"metadata", _or(self.metadata, b"{}")),
            (b"model", quoted(self.model)),
            (b"parallel_tool_calls", _or(self.parallel_tool_calls, b"true")),
            (b"presence_penalty", _or(self.presence_penalty, b"0.0")),
            (b"previous_response_id", _or(self.previous_response_id, b"null")),
            (b"prompt_cache_key", _or(self.prompt_cache_key, b"null")),
            (b"reasoning", self._reasoning()),
            (b"safety_identifier", _or(self.safety_identifier, b"null")),
            (b"service_tier", b'"default"'),
            (b"store", b"true" if self.store else b"false"),
            (b"temperature", _or(self.temperature, b"1.0")),
            (b"text", self._text()),
            (b"tool_choice", _or(self.tool_choice, b'"auto"')),
            (b"tools", b"[%b]" % b",".join(echoed(self.tools))),
            (b"top_logprobs", b"0"),
            (b"top_p", _or(self.top_p, b"1.0")),
            (b"truncation", _or(self.truncation, b'"disabled"')),
        )
        out: list[Octets] = []
        for name, value in told:
            out += (b',"', name, b'":', value)
        return b"".join(out)

    def _reasoning(self) -> bytes:
        if not given(self.reasoning):
            return _NO_REASONING
        told = _decoded(self.reasoning)
        return msgspec.json.encode({"effort": None, "summary": None, **told})

    def _text(self) -> bytes:
        if not given(self.text):
            return _PLAIN
        told = _decoded(self.text)
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
    return raw if given(raw) else otherwise

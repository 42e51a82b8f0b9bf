"""Calls of tools and what came of them, as a conversation of the Responses API has them.

Decides what the function's arguments were that each kind of call stands for, and how each kind
of output is told to the model. Which output belongs to which call is decided in `items`.
"""

from typing import Any, Final

import msgspec

from relay.translate.invalid import UNREADABLE, invalid_field
from relay.translate.raw_json import (
    NOTHING,
    Octets,
    decode_string,
    encode_string,
    is_given,
    kind,
    utf8,
)
from relay.translate.responses.tool_names import function_name

OUTPUTS: Final = {
    "function_call_output": "function_call",
    "custom_tool_call_output": "custom_tool_call",
    "local_shell_call_output": "local_shell_call",
    "shell_call_output": "shell_call",
    "apply_patch_call_output": "apply_patch_call",
    "tool_search_output": "tool_search_call",
}
CALLS: Final = frozenset(OUTPUTS.values())

_MOST_LISTED: Final = 200  # tools that were found
_NO_ARGUMENTS: Final = b"{}"


class Item(msgspec.Struct, frozen=True, gc=False):
    """An item of any type; what may be of several types is not looked into."""

    type: str = ""
    role: str | None = None
    id: str | None = None
    content: msgspec.Raw = NOTHING
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: msgspec.Raw = NOTHING
    input: msgspec.Raw = NOTHING
    output: msgspec.Raw = NOTHING
    action: msgspec.Raw = NOTHING
    operation: msgspec.Raw = NOTHING
    status: msgspec.Raw = NOTHING
    tools: msgspec.Raw = NOTHING
    summary: msgspec.Raw = NOTHING
    encrypted_content: msgspec.Raw = NOTHING

    @property
    def number(self) -> str | None:
        """What call and output know each other by. A local shell's output has it as its `id`."""
        if self.call_id is not None:
            return self.call_id
        return self.id if self.type == "local_shell_call_output" else None


class _Object(msgspec.Struct, frozen=True):
    """Any object: all its members are passed over."""


class _Printed(msgspec.Struct, frozen=True, gc=False):
    """What one command line of a shell has left."""

    stdout: str = ""
    stderr: str = ""
    outcome: Any = None


class _Found(msgspec.Struct, frozen=True, gc=False):
    name: str = ""


_object = msgspec.json.Decoder(_Object).decode
_any = msgspec.json.Decoder().decode
_printed = msgspec.json.Decoder(list[_Printed]).decode
_found = msgspec.json.Decoder(list[_Found]).decode


def called(item: Item, at: str) -> tuple[str, Octets]:
    """The function that a call stands for, and its arguments, an object.

    Raises:
        RelayError: 400, the call says too little; `at` is where it is.
    """
    match item.type:
        case "function_call":
            return _named(item, at), _arguments(item.arguments, f"{at}.arguments")
        case "custom_tool_call":
            if kind(item.input) != '"':
                raise invalid_field(f"{at}.input", "it must be given, as a text")
            return _named(item, at), b"".join((b'{"input":', item.input, b"}"))
        case "local_shell_call":
            return "local_shell", _action(item.action, ("type", "user"))
        case "shell_call":
            return "shell", _action(item.action, ("type",))
        case "apply_patch_call":
            return "apply_patch", _action(item.operation, ())
        case _:
            raw = item.arguments
            return "tool_search", raw if kind(raw) == "{" else _arguments(raw, f"{at}.arguments")


def told(item: Item, at: str) -> msgspec.Raw:
    """What a call has brought: a text or an array of parts, or a text made of what it has.

    Raises:
        RelayError: 400, it cannot be read; `at` is where it is.
    """
    if item.type == "tool_search_output":
        return _listed(item.tools)
    if item.type == "shell_call_output" and kind(item.output) == "[":
        return _printed_out(item.output)
    raw = item.output
    if not is_given(raw):
        if item.type == "apply_patch_call_output" and kind(item.status) == '"':
            return item.status
        return msgspec.Raw(b'""')
    if kind(raw) in ('"', "["):
        return raw
    if kind(raw) == "{":  # an object: some clients send what their tool gave them
        return msgspec.Raw(encode_string(bytes(raw).decode()))
    raise invalid_field(f"{at}.output", "it must be a text or an array of parts")


def _named(item: Item, at: str) -> str:
    if not item.name:
        raise invalid_field(f"{at}.name", "it must be given")
    return function_name(item.name, item.namespace)


def _arguments(raw: msgspec.Raw, at: str) -> Octets:
    """The arguments of a call, an object within a text.

    A model wrote them, and may have got them wrong; its turn cannot be undone, so they are told
    as what they are.
    """
    if not is_given(raw):
        return _NO_ARGUMENTS
    octets = utf8(raw, at).strip()
    if not octets:
        return _NO_ARGUMENTS
    try:
        _object(octets)
    except UNREADABLE:
        return b'{"arguments":%b}' % encode_string(decode_string(raw, at))
    return octets


def _action(raw: msgspec.Raw, without: tuple[str, ...]) -> bytes:
    """What a call of a hosted tool does, without what only the API itself says."""
    try:
        action: Any = _any(raw) if kind(raw) == "{" else {}
    except UNREADABLE:
        action = {}
    kept = {
        name: value
        for name, value in action.items()
        if name not in without and value is not None and value != {}
    }
    return msgspec.json.encode(kept)


def _printed_out(raw: msgspec.Raw) -> msgspec.Raw:
    try:
        outputs = _printed(raw)
    except UNREADABLE:
        return raw
    texts = []
    for one in outputs:
        outcome = one.outcome if isinstance(one.outcome, dict) else {}
        ended = "timed out"
        if outcome.get("type") != "timeout":
            ended = f"exit code {outcome.get('exit_code', 0)}"
        parts = [one.stdout, f"stderr:\n{one.stderr}" if one.stderr else "", f"[{ended}]"]
        texts.append("\n".join(part for part in parts if part))
    return msgspec.Raw(encode_string("\n\n".join(texts)))


def _listed(raw: msgspec.Raw) -> msgspec.Raw:
    """The names of the tools that were found: they can be called from now on."""
    try:
        names = [one.name for one in _found(raw) if one.name] if is_given(raw) else []
    except UNREADABLE:
        names = []
    words = f"Found: {', '.join(names[:_MOST_LISTED])}" if names else "Nothing was found."
    return msgspec.Raw(encode_string(words))

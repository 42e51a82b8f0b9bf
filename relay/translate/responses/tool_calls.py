"""Tool calls and their outputs in a conversation of the Responses API.

Decides which function and arguments each kind of call stands for, and how each kind of output
is written for the model. Which output belongs to which call is decided in `input_items`.
"""

import re
from typing import Any, Final

import msgspec

from relay.translate.invalid import UNREADABLE, invalid_field
from relay.translate.raw_json import (
    Octets,
    encode_string,
    is_given,
    kind,
    utf8,
)
from relay.translate.request.tool_names import function_name
from relay.translate.request.tools import call_arguments
from relay.translate.responses.fields import FoundTool, InputItem, OutputPart, ShellOutput

OUTPUTS: Final = {
    "function_call_output": "function_call",
    "custom_tool_call_output": "custom_tool_call",
    "local_shell_call_output": "local_shell_call",
    "shell_call_output": "shell_call",
    "apply_patch_call_output": "apply_patch_call",
    "tool_search_output": "tool_search_call",
}
CALLS: Final = frozenset(OUTPUTS.values())

_PICTURE_TEXT: Final = re.compile(rb'"\[?\{\\"type\\": ?\\"input_')
_MAX_LISTED_TOOLS: Final = 200


_decode_output_parts: Final = msgspec.json.Decoder(list[OutputPart]).decode
_decode_any: Final = msgspec.json.Decoder().decode
_decode_shell_outputs: Final = msgspec.json.Decoder(list[ShellOutput]).decode
_decode_found_tools: Final = msgspec.json.Decoder(list[FoundTool]).decode


def function_and_arguments(item: InputItem, param: str) -> tuple[str, Octets]:
    """The function that a call stands for, and its arguments, a JSON object.

    Raises:
        RelayError: 400, the call lacks a member; `param` is the item's place.
    """
    match item.type:
        case "function_call" | "mcp_call":
            return _function(item, param), call_arguments(item.arguments, f"{param}.arguments")
        case "custom_tool_call":
            if kind(item.input) != '"':
                raise invalid_field(f"{param}.input", "it must be given, as a text")
            return _function(item, param), b"".join((b'{"input":', item.input, b"}"))
        case "local_shell_call":
            return "local_shell", _action(item.action, ("type", "user"))
        case "shell_call":
            return "shell", _action(item.action, ("type",))
        case "apply_patch_call":
            return "apply_patch", _action(item.operation, ())
        case _:
            raw = item.arguments
            return "tool_search", raw if kind(raw) == "{" else call_arguments(
                raw, f"{param}.arguments"
            )


def output_content(item: InputItem, param: str) -> msgspec.Raw:
    """The content of a call's output for the model: a JSON string or an array of parts.

    A call of an MCP server has its output, or its error, within itself.

    Raises:
        RelayError: 400, the output cannot be read; `param` is the item's place.
    """
    if item.type == "tool_search_output":
        return _tool_list(item.tools)
    if item.type == "shell_call_output" and kind(item.output) == "[":
        return _shell_text(item.output)
    raw = item.output
    if not is_given(raw):
        if item.type == "mcp_call" and is_given(item.error):
            return msgspec.Raw(encode_string(bytes(item.error).decode()))
        if item.type == "apply_patch_call_output" and kind(item.status) == '"':
            return item.status
        return msgspec.Raw(b'""')
    if kind(raw) == '"':
        return _unwrapped(raw, f"{param}.output")
    if kind(raw) == "[":
        return raw
    if kind(raw) == "{":  # some clients send the object that their tool returned
        return msgspec.Raw(encode_string(bytes(raw).decode()))
    raise invalid_field(f"{param}.output", "it must be a text or an array of parts")


def _unwrapped(raw: msgspec.Raw, param: str) -> msgspec.Raw:
    """The parts within a text that is their JSON, as older versions of Codex CLI send pictures.

    The model would read their base64 as a million tokens. Any other text stays as it is.
    """
    if _PICTURE_TEXT.match(raw) is None:
        return raw
    octets = utf8(raw, param).strip()
    if octets.startswith(b"{"):
        octets = b"[%b]" % octets
    try:
        parts = _decode_output_parts(octets)
    except UNREADABLE:
        return raw
    return msgspec.Raw(octets) if all(one.is_complete for one in parts) else raw


def _function(item: InputItem, param: str) -> str:
    if not item.name:
        raise invalid_field(f"{param}.name", "it must be given")
    return function_name(item.name, item.namespace or item.server_label)


def _action(raw: msgspec.Raw, excluded: tuple[str, ...]) -> bytes:
    """The action of a hosted tool's call, without the members that only the API itself sets."""
    try:
        action: Any = _decode_any(raw) if kind(raw) == "{" else {}
    except UNREADABLE:
        action = {}
    arguments = {
        name: value
        for name, value in action.items()
        if name not in excluded and value is not None and value != {}
    }
    return msgspec.json.encode(arguments)


def _shell_text(raw: msgspec.Raw) -> msgspec.Raw:
    try:
        outputs = _decode_shell_outputs(raw)
    except UNREADABLE:
        return raw
    texts = []
    for output in outputs:
        outcome = output.outcome if isinstance(output.outcome, dict) else {}
        status = "timed out"
        if outcome.get("type") != "timeout":
            status = f"exit code {outcome.get('exit_code', 0)}"
        stderr = f"stderr:\n{output.stderr}" if output.stderr else ""
        parts = [output.stdout, stderr, f"[{status}]"]
        texts.append("\n".join(part for part in parts if part))
    return msgspec.Raw(encode_string("\n\n".join(texts)))


def _tool_list(raw: msgspec.Raw) -> msgspec.Raw:
    """The names of the tools found by a search; the model can call them from now on."""
    try:
        names = (
            [tool.name for tool in _decode_found_tools(raw) if tool.name] if is_given(raw) else []
        )
    except UNREADABLE:
        names = []
    text = f"Found: {', '.join(names[:_MAX_LISTED_TOOLS])}" if names else "Nothing was found."
    return msgspec.Raw(encode_string(text))

"""The parts of a response object, as JSON octets.

Decides how each part of a Messages answer is written (OpenAI API reference, "The Response
object"; Open Responses specification, 2026-04-24). Texts are JSON strings as octets: text from
the upstream is spliced in unchanged. Must not know whether its output goes into a document or
into an event.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from relay.translate.messages.usage import Usage
from relay.translate.request.tool_names import CallerTool, ToolKind
from relay.translate.responses.seal import Seal

ID_PREFIXES: Final[dict[ToolKind, str]] = {
    "function": "fc",
    "custom": "ctc",
    "local_shell": "lsh",
    "shell": "sh",
    "apply_patch": "apc",
    "tool_search": "tsc",
}

_INCOMPLETE_DETAILS: Final = b'{"reason":"max_output_tokens"}'
_LIMIT_REASONS: Final = frozenset({"max_tokens", "model_context_window_exceeded"})
_PATCH_OPERATIONS: Final = ("create_file", "update_file", "delete_file")

_decode_any: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.encode


# Not frozen: a compiled class takes longer to make then.
@dataclass(slots=True)
class AnswerMetadata:
    """The parts of a response that come from the relay and from the request."""

    id: str  # "resp_…"
    created: int  # epoch seconds
    now: Callable[[], float]  # the clock, epoch seconds
    # The response members that repeat the request, each after a comma: no text shows a prompt.
    echo: bytes = field(repr=False)
    tools: Mapping[str, CallerTool] = field(repr=False)  # by the names of their functions
    summarizes_thinking: bool  # thinking is shown as a summary
    seal: Seal
    refusal_as_text: bool = False  # Codex CLI does not show a refusal part

    @property
    def id_suffix(self) -> str:
        """The part of the id that the ids of its items share."""
        return self.id.removeprefix("resp_")


def is_at_limit(stop_reason: str | None) -> bool:
    """Whether an answer stopped at a token limit instead of its end."""
    return stop_reason in _LIMIT_REASONS


def response(
    metadata: AnswerMetadata,
    status: bytes,
    output: Sequence[bytes],
    *,
    usage: bytes = b"null",
    error: bytes = b"null",
) -> bytes:
    """The response object. `status` is in_progress, completed, incomplete or failed."""
    completed_at = b"%d" % metadata.now() if status == b"completed" else b"null"
    details = _INCOMPLETE_DETAILS if status == b"incomplete" else b"null"
    return (
        b'{"id":"%b","object":"response","created_at":%d,"completed_at":%b,"status":"%b",'
        b'"error":%b,"incomplete_details":%b,"output":[%b],"usage":%b%b}'
    ) % (
        metadata.id.encode(),
        metadata.created,
        completed_at,
        status,
        error,
        details,
        b",".join(output),
        usage,
        metadata.echo,
    )


def usage_object(usage: Usage) -> bytes:
    """OpenAI's `usage`. Unlike Anthropic's, its input tokens include those of the cache."""
    read, written = usage.cache_read or 0, usage.cache_write or 0
    input, output = (usage.input or 0) + read + written, usage.output or 0
    return (
        b'{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d},'
        b'"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}'
    ) % (input, read, written, output, usage.thinking or 0, input + output)


def message(id: bytes, status: bytes, parts: bytes) -> bytes:
    """A message item; `parts` is the inside of its content."""
    return b'{"id":"%b","type":"message","status":"%b","role":"assistant","content":[%b]}' % (
        id,
        status,
        parts,
    )


def output_text(text: bytes, annotations: Sequence[bytes] = ()) -> bytes:
    """A message's text part; `text` is a JSON string."""
    return b'{"type":"output_text","text":%b,"annotations":[%b],"logprobs":[]}' % (
        text,
        b",".join(annotations),
    )


def annotation(citation: bytes, start: int, end: int) -> bytes:
    """The citation of a web page for the characters from `start` to `end` of a message."""
    indexes = b'"start_index":%d,"end_index":%d' % (start, end)
    return b'{"type":"url_citation",%b,%b}' % (indexes, citation)


def refusal(text: bytes) -> bytes:
    """A message's refusal part; `text` is a JSON string."""
    return b'{"type":"refusal","refusal":%b}' % text


def summary_text(text: bytes) -> bytes:
    """A part of a reasoning summary; `text` is a JSON string."""
    return b'{"type":"summary_text","text":%b}' % text


def reasoning(id: bytes, summary: bytes, sealed: bytes | None) -> bytes:
    """A reasoning item; `summary` is the inside of its summary, `sealed` a JSON string."""
    members = b'{"id":"%b","type":"reasoning","summary":[%b]' % (id, summary)
    return members + b"}" if sealed is None else members + b',"encrypted_content":%b}' % sealed


def tool_name(tool: CallerTool) -> bytes:
    """The members `name` and `namespace` of a call."""
    name = b'"name":' + _encode(tool.name)
    return name if tool.namespace is None else name + b',"namespace":' + _encode(tool.namespace)


def function_call(
    id: bytes, status: bytes, call_id: bytes, tool: CallerTool, arguments: bytes
) -> bytes:
    """A function call item; `call_id` and `arguments` are JSON strings."""
    item = b'{"id":"%b","type":"function_call","status":"%b","call_id":%b,%b,"arguments":%b}'
    return item % (id, status, call_id, tool_name(tool), arguments)


def custom_call(id: bytes, status: bytes, call_id: bytes, tool: CallerTool, text: bytes) -> bytes:
    """A call of a custom tool; `call_id` and its free `text` are JSON strings."""
    item = b'{"id":"%b","type":"custom_tool_call","status":"%b","call_id":%b,%b,"input":%b}'
    return item % (id, status, call_id, tool_name(tool), text)


def search_call(id: bytes, status: bytes, query: bytes) -> bytes:
    """A web search item; `query` is a JSON string."""
    item = b'{"id":"%b","type":"web_search_call","status":"%b","action":{"type":"search",%b}}'
    return item % (id, status, b'"query":' + query)


def hosted_call(
    kind: ToolKind, id: bytes, status: bytes, call_id: bytes, arguments: bytes
) -> bytes:
    """A call of a tool that the API itself describes.

    `call_id` and `arguments` are JSON strings. Arguments that a model got wrong go where they
    fit, so that the caller's own checks find them.
    """
    text = str(_decode_any(arguments))
    try:
        decoded = _decode_any(text)
    except (msgspec.DecodeError, RecursionError):
        decoded = None
    fields = decoded if isinstance(decoded, dict) else {}
    members: dict[str, Any] = {"id": id.decode(), "type": f"{kind}_call", "status": status.decode()}
    members["call_id"] = _decode_any(call_id)
    match kind:
        case "local_shell":
            members["action"] = {
                "type": "exec",
                "command": _strings(fields.get("command"), text),
                "env": _environment(fields.get("env")),
                "timeout_ms": _integer(fields.get("timeout_ms")),
                "user": None,
                "working_directory": _string(fields.get("working_directory")),
            }
        case "shell":
            members["action"] = {
                "commands": _strings(fields.get("commands"), text),
                "timeout_ms": _integer(fields.get("timeout_ms")),
                "max_output_length": _integer(fields.get("max_output_length")),
            }
            members["environment"] = None
        case "apply_patch":
            members["operation"] = _patch_operation(fields)
        case _:
            members["execution"] = "client"
            members["arguments"] = fields
    return _encode(members)


def _patch_operation(fields: dict[str, Any]) -> dict[str, Any]:
    type = fields.get("type")
    type = type if type in _PATCH_OPERATIONS else "update_file"
    operation = {"type": type, "path": _string(fields.get("path")) or ""}
    if type != "delete_file":
        operation["diff"] = _string(fields.get("diff")) or ""
    return operation


def _strings(value: Any, default: str) -> list[str]:
    if isinstance(value, list):
        return [str(element) for element in value]
    return [value if isinstance(value, str) else default]


def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {name: str(setting) for name, setting in value.items()}


def _integer(value: Any) -> int | None:
    return value if type(value) is int else None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None

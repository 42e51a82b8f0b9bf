"""What a response is made of, whole or streamed.

This decides how each single thing that a Messages answer says is put (docs: OpenAI's API
reference, "The Response object"; Open Responses, 2026-04-24). Texts are JSON strings as octets
throughout: what came from the upstream is spliced in as it was written. It must not know
whether what it makes goes into a document or into an event.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from relay.translate.messages.usage import Usage
from relay.translate.responses.seal import Seal
from relay.translate.responses.tool_names import CallerTool, Kind

PREFIXES: Final[dict[Kind, str]] = {
    "function": "fc",
    "custom": "ctc",
    "local_shell": "lsh",
    "shell": "sh",
    "apply_patch": "apc",
    "tool_search": "tsc",
}

_INCOMPLETE: Final = b'{"reason":"max_output_tokens"}'
_CUT: Final = frozenset({"max_tokens", "model_context_window_exceeded"})
_PATCHES: Final = ("create_file", "update_file", "delete_file")

_any = msgspec.json.Decoder().decode
_encode = msgspec.json.encode


class AnswerMetadata(msgspec.Struct, frozen=True):
    """What an answer says of itself, and by whom it was asked.

    `id` is "resp_…", `created` and `now` in epoch seconds, `echo` the members of the response
    that repeat the request, `tools` the caller's by the names of their functions,
    `summarizes_thinking` whether thinking is shown as a summary, `refusal_as_text` whether a
    refusal is told as a text: Codex CLI shows nothing of any other.
    """

    id: str
    created: int
    now: Callable[[], float]
    echo: bytes
    tools: Mapping[str, CallerTool]
    summarizes_thinking: bool
    seal: Seal
    refusal_as_text: bool = False

    @property
    def number(self) -> str:
        """What its items' ids have of its own."""
        return self.id.removeprefix("resp_")


def is_cut(stop_reason: str | None) -> bool:
    """Whether an answer has come to its limit instead of its end."""
    return stop_reason in _CUT


def response(
    told: AnswerMetadata,
    status: bytes,
    output: Sequence[bytes],
    *,
    usage: bytes = b"null",
    error: bytes = b"null",
) -> bytes:
    """The whole object. `status` is one of in_progress, completed, incomplete and failed."""
    completed = b"%d" % told.now() if status == b"completed" else b"null"
    details = _INCOMPLETE if status == b"incomplete" else b"null"
    return (
        b'{"id":"%b","object":"response","created_at":%d,"completed_at":%b,"status":"%b",'
        b'"error":%b,"incomplete_details":%b,"output":[%b],"usage":%b%b}'
    ) % (
        told.id.encode(),
        told.created,
        completed,
        status,
        error,
        details,
        b",".join(output),
        usage,
        told.echo,
    )


def usage_object(usage: Usage) -> bytes:
    """OpenAI's `usage`. Unlike Anthropic's, its input tokens include those of the cache."""
    read, written = usage.cache_read or 0, usage.cache_write or 0
    given, out = (usage.input or 0) + read + written, usage.output or 0
    return (
        b'{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d},'
        b'"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}'
    ) % (given, read, written, out, usage.thinking or 0, given + out)


def message(id: bytes, status: bytes, parts: bytes) -> bytes:
    """What the assistant says; `parts` is the inside of its content."""
    return b'{"id":"%b","type":"message","status":"%b","role":"assistant","content":[%b]}' % (
        id,
        status,
        parts,
    )


def output_text(text: bytes, annotations: Sequence[bytes] = ()) -> bytes:
    """A part of a message."""
    return b'{"type":"output_text","text":%b,"annotations":[%b],"logprobs":[]}' % (
        text,
        b",".join(annotations),
    )


def annotation(cited: bytes, start: int, end: int) -> bytes:
    """What a part of a message's text rests upon, from character `start` to `end`."""
    where = b'"start_index":%d,"end_index":%d' % (start, end)
    return b'{"type":"url_citation",%b,%b}' % (where, cited)


def refusal(text: bytes) -> bytes:
    """A part of a message that says that there will be none."""
    return b'{"type":"refusal","refusal":%b}' % text


def summary_text(text: bytes) -> bytes:
    """A part of a summary of what was thought."""
    return b'{"type":"summary_text","text":%b}' % text


def reasoning(id: bytes, summary: bytes, sealed: bytes | None) -> bytes:
    """What was thought; `summary` is the inside of its summary."""
    told = b'{"id":"%b","type":"reasoning","summary":[%b]' % (id, summary)
    return told + b"}" if sealed is None else told + b',"encrypted_content":%b}' % sealed


def named(known: CallerTool) -> bytes:
    """The members by which a caller knows one of their tools."""
    name = b'"name":' + _encode(known.name)
    return name if known.namespace is None else name + b',"namespace":' + _encode(known.namespace)


def function_call(id: bytes, status: bytes, call: bytes, known: CallerTool, text: bytes) -> bytes:
    """A call of a function; `call` is its call_id, `text` its arguments, JSON strings both."""
    told = b'{"id":"%b","type":"function_call","status":"%b","call_id":%b,%b,"arguments":%b}'
    return told % (id, status, call, named(known), text)


def custom_call(id: bytes, status: bytes, call: bytes, known: CallerTool, text: bytes) -> bytes:
    """A call of a tool that takes free text, which is `text`."""
    told = b'{"id":"%b","type":"custom_tool_call","status":"%b","call_id":%b,%b,"input":%b}'
    return told % (id, status, call, named(known), text)


def search_call(id: bytes, status: bytes, query: bytes) -> bytes:
    """A search of the web."""
    told = b'{"id":"%b","type":"web_search_call","status":"%b","action":{"type":"search",%b}}'
    return told % (id, status, b'"query":' + query)


def hosted_call(kind: Kind, id: bytes, status: bytes, call: bytes, text: bytes) -> bytes:
    """A call of one of the tools that the API itself describes.

    `text` is the call's arguments, a JSON string. A model may have got them wrong: then what it
    said stands where it fits, for the caller's own checks to find.
    """
    words = str(_any(text))
    try:
        given = _any(words)
    except (msgspec.DecodeError, RecursionError):
        given = None
    told = given if isinstance(given, dict) else {}
    members: dict[str, Any] = {"id": id.decode(), "type": f"{kind}_call", "status": status.decode()}
    members["call_id"] = _any(call)
    match kind:
        case "local_shell":
            members["action"] = {
                "type": "exec",
                "command": _texts(told.get("command"), words),
                "env": _environment(told.get("env")),
                "timeout_ms": _number(told.get("timeout_ms")),
                "user": None,
                "working_directory": _text(told.get("working_directory")),
            }
        case "shell":
            members["action"] = {
                "commands": _texts(told.get("commands"), words),
                "timeout_ms": _number(told.get("timeout_ms")),
                "max_output_length": _number(told.get("max_output_length")),
            }
            members["environment"] = None
        case "apply_patch":
            what = told.get("type")
            what = what if what in _PATCHES else "update_file"
            operation = {"type": what, "path": _text(told.get("path")) or ""}
            if what != "delete_file":
                operation["diff"] = _text(told.get("diff")) or ""
            members["operation"] = operation
        case _:
            members["execution"] = "client"
            members["arguments"] = told
    return _encode(members)


def _texts(value: Any, otherwise: str) -> list[str]:
    if isinstance(value, list):
        return [str(each) for each in value]
    return [value if isinstance(value, str) else otherwise]


def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {name: str(each) for name, each in value.items()}


def _number(value: Any) -> int | None:
    return value if type(value) is int else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None

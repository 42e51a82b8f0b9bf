"""A Responses request, read (docs: OpenAI's API reference, "Create a model response").

Decides what each field of that dialect means, and refuses what cannot be honoured: nothing that
would change an answer is ignored in silence but what is only a hint. Which model it will go to
is not known here. Items are read in `items`, tools in `tools`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from relay.errors import RelayError
from relay.translate.invalid import invalid_field
from relay.translate.invalid import read as read_part
from relay.translate.raw_json import NOTHING, given, kind, plain, quoted, says
from relay.translate.request.block import text_block
from relay.translate.request.builder import MessagesBuilder
from relay.translate.request.conversation import Conversation
from relay.translate.request.options import EFFORTS, GenerationOptions, ResponseFormat
from relay.translate.responses import echo
from relay.translate.responses.fields import Request
from relay.translate.responses.input_items import conversation
from relay.translate.responses.seal import Seal
from relay.translate.responses.tool_names import CallerTool
from relay.translate.responses.tools import Offered

T = TypeVar("T")

_SUMMARISE: Final = """\
This conversation is about to be cut off here, and somebody will go on with it who knows nothing \
of it but what you write now. Write down all that they need, and nothing else:

- what the user wants, in the end and at present, and how they want it done
- what has been done so far, and what was found out: files, names, commands, figures, exactly
- what was decided, and why; what was tried and did not work
- where things stand at this moment, and what comes next

Call no tools, and address nobody: the text alone is kept.\
"""


class _Reasoning(msgspec.Struct, frozen=True, gc=False):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class _Format(msgspec.Struct, frozen=True, gc=False):
    type: str
    schema: msgspec.Raw = NOTHING
    strict: bool | None = None


class _Text(msgspec.Struct, frozen=True, gc=False):
    format: _Format | None = None
    verbosity: str | None = None


class _Previous(msgspec.Struct, frozen=True, gc=False):
    previous_response_id: str | None = None


class ResponsesRequest(msgspec.Struct, frozen=True):
    """A Responses request as read.

    `echo` are the members that the response repeats, each after a comma; `tools` the caller's
    by the names of their functions; `summarizes_thinking` whether what is thought is to be summed
    up; `stored` whether the response is to be kept; `items` the request's own input.
    """

    builder: MessagesBuilder
    stream: bool
    user: str | None  # `safety_identifier` or `user`, as the caller gave it
    echo: bytes
    tools: Mapping[str, CallerTool]
    summarizes_thinking: bool
    stored: bool
    previous_response_id: str | None
    items: list[msgspec.Raw]


_request: Final = msgspec.json.Decoder(Request).decode
_previous: Final = msgspec.json.Decoder(_Previous).decode
_reasoning: Final = msgspec.json.Decoder(_Reasoning | None).decode
_text: Final = msgspec.json.Decoder(_Text | None).decode
_raws: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_whole: Final = msgspec.json.Decoder(int | None).decode
_number: Final = msgspec.json.Decoder(float | None).decode
_truth: Final = msgspec.json.Decoder(bool | None).decode
_metadata: Final = msgspec.json.Decoder(dict[str, str] | None).decode
_string: Final = msgspec.json.Decoder(str | None).decode


def previous_response_id(body: bytes) -> str | None:
    """The response that a request goes on from; None: it begins a conversation.

    Raises:
        RelayError: 400, that is no text.
    """
    if b"previous_response_id" not in body:
        return None
    return read_part(_previous, body, "").previous_response_id or None


def read(
    body: bytes, seal: Seal, *, before: Sequence[msgspec.Raw] = (), storing: bool = False
) -> ResponsesRequest:
    """Read a request, whose `model` has been seen already.

    Args:
        seal: opens what the caller has of earlier answers.
        before: the conversation that it goes on from, the oldest item first.
        storing: responses are kept, unless a request says that its own is not to be.

    Raises:
        RelayError: 400, something in it cannot be honoured; `param` says what.
    """
    request = read_part(_request, body, "")
    _refuse(request)
    items = _items(request.input)
    if not items and not before:
        raise invalid_field("input", "it must be given: a text, or an array of items")
    offered = Offered()
    offered.add(request.tools, "tools")
    said = conversation(items, seal, offered, before)
    _instruct(said, request.instructions)
    thinks = _given(_reasoning, request.reasoning, "reasoning")
    parallel = _given(_truth, request.parallel_tool_calls, "parallel_tool_calls")
    toolset = offered.toolset(
        request.tool_choice,
        parallel=parallel is not False,
        most=_at_least_one(request.max_tool_calls, "max_tool_calls"),
    )
    summary = (thinks.summary or thinks.generate_summary) if thinks is not None else None
    wishes = GenerationOptions(
        max_tokens=_at_least_one(request.max_output_tokens, "max_output_tokens"),
        temperature=_within(request.temperature, 2, "temperature"),
        top_p=_within(request.top_p, 1, "top_p"),
        effort=_effort(thinks),
        thinks=thinks is not None,
        shape=_shape(request.text),
    )
    stream = request.stream is True
    stored = storing and request.store is not False
    return ResponsesRequest(
        MessagesBuilder(said, toolset, wishes, stream=stream),
        stream,
        _given(_string, request.safety_identifier, "safety_identifier") or request.user or None,
        echo.members(request, stored=stored),
        offered.known,
        summary not in (None, "none"),
        stored,
        _given(_string, request.previous_response_id, "previous_response_id") or None,
        items,
    )


def read_compaction(
    body: bytes, seal: Seal, *, before: Sequence[msgspec.Raw] = ()
) -> ResponsesRequest:
    """Read a request that wants its conversation made short.

    Raises:
        RelayError: as `read`.
    """
    request = read_part(_request, body, "")
    items = _items(request.input)
    if not items and not before:
        raise invalid_field("input", "it must be given: a text, or an array of items")
    offered = Offered()
    said = conversation(items, seal, offered, before)
    _instruct(said, request.instructions)
    said.user().blocks.append(text_block(msgspec.Raw(quoted(_SUMMARISE))))
    toolset = Offered().toolset(NOTHING, parallel=True, most=None)
    return ResponsesRequest(
        MessagesBuilder(said, toolset, GenerationOptions(), stream=False),
        False,
        None,
        b"",
        {},
        False,
        False,
        _given(_string, request.previous_response_id, "previous_response_id") or None,
        [*before, *items],
    )


def _refuse(request: Request) -> None:
    """Refuse what nobody could do on the other side, and what would not be what it seems."""
    if request.background:
        raise invalid_field(
            "background", "responses are made while their caller waits: leave it out"
        )
    if given(request.conversation):
        raise invalid_field(
            "conversation", "conversations are not kept here: send the items as input"
        )
    if given(request.prompt):
        raise invalid_field("prompt", "prompts are not kept here: send instructions and input")
    if request.top_logprobs:
        raise invalid_field("top_logprobs", "these models tell no log probabilities")
    if given(request.truncation) and plain(request.truncation, "truncation") not in (
        "auto",
        "disabled",
    ):
        raise invalid_field("truncation", "it must be auto or disabled")
    for name in ("presence_penalty", "frequency_penalty"):
        _given(_number, getattr(request, name), name)
    try:
        _given(_metadata, request.metadata, "metadata")
    except RelayError:
        raise invalid_field("metadata", "it must be an object whose values are texts") from None
    _given(_string, request.prompt_cache_key, "prompt_cache_key")


def _items(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """The input as items; a text is what the user says."""
    if kind(raw) == '"':
        if not says(raw, "input"):
            return []
        item = b'{"type":"message","role":"user","content":[{"type":"input_text","text":%b}]}'
        return [msgspec.Raw(item % raw)]
    return read_part(_raws, raw, "input") if given(raw) else []


def _instruct(said: Conversation, raw: msgspec.Raw) -> None:
    """Instructions come before all else."""
    if not given(raw):
        return
    if says(raw, "instructions"):
        said.system.insert(0, text_block(raw))


def _given(decode: Callable[[Any], T | None], raw: msgspec.Raw, param: str) -> T | None:
    if raw is NOTHING or not given(raw):
        return None
    return read_part(decode, raw, param)


def _at_least_one(raw: msgspec.Raw, param: str) -> int | None:
    number: int | None = _given(_whole, raw, param)
    if number is not None and number < 1:
        raise invalid_field(param, "it must be 1 or more")
    return number


def _within(raw: msgspec.Raw, most: int, param: str) -> float | None:
    number: float | None = _given(_number, raw, param)
    if number is not None and not 0 <= number <= most:
        raise invalid_field(param, f"it must be from 0 to {most}")
    return number


def _effort(told: _Reasoning | None) -> str | None:
    effort = told.effort if told is not None else None
    if effort is not None and effort not in EFFORTS:
        raise invalid_field("reasoning.effort", f"it must be one of {', '.join(EFFORTS)}")
    return effort


def _shape(raw: msgspec.Raw) -> ResponseFormat | None:
    told = _given(_text, raw, "text")
    form = told.format if told is not None else None
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return ResponseFormat(param="text.format")
    if form.type != "json_schema":
        raise invalid_field("text.format.type", "it must be text, json_object or json_schema")
    if kind(form.schema) != "{":
        raise invalid_field("text.format.schema", "it must be given, as an object")
    schema = bytes(form.schema)
    try:
        schema.decode()  # it may end up in a text
    except UnicodeDecodeError:
        raise invalid_field("text.format.schema", "it is not UTF-8") from None
    return ResponseFormat(schema, form.strict is True, "text.format")

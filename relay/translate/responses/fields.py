"""The members of a Responses request and of its parts, as msgspec reads them.

Members that may be long or of several types stay raw.
"""

from typing import Any, Final

import msgspec

from relay.translate.raw_json import NOTHING, kind


class RequestFields(msgspec.Struct, frozen=True, gc=False):
    """The fields that have an effect. Others are hints for other vendors' models."""

    model: str
    input: msgspec.Raw = NOTHING
    instructions: msgspec.Raw = NOTHING
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: msgspec.Raw = NOTHING
    max_output_tokens: msgspec.Raw = NOTHING
    max_tool_calls: msgspec.Raw = NOTHING
    temperature: msgspec.Raw = NOTHING
    top_p: msgspec.Raw = NOTHING
    tools: msgspec.Raw = NOTHING
    tool_choice: msgspec.Raw = NOTHING
    parallel_tool_calls: msgspec.Raw = NOTHING
    reasoning: msgspec.Raw = NOTHING
    text: msgspec.Raw = NOTHING
    truncation: msgspec.Raw = NOTHING
    metadata: msgspec.Raw = NOTHING
    prompt_cache_key: msgspec.Raw = NOTHING
    safety_identifier: msgspec.Raw = NOTHING
    presence_penalty: msgspec.Raw = NOTHING
    frequency_penalty: msgspec.Raw = NOTHING
    user: str | None = None
    background: bool | None = None
    conversation: msgspec.Raw = NOTHING
    prompt: msgspec.Raw = NOTHING
    top_logprobs: int | None = None

    # Of other dialects, to be refused.
    messages: msgspec.Raw = NOTHING
    system: msgspec.Raw = NOTHING
    max_tokens: msgspec.Raw = NOTHING
    max_completion_tokens: msgspec.Raw = NOTHING
    response_format: msgspec.Raw = NOTHING
    stop: msgspec.Raw = NOTHING
    stop_sequences: msgspec.Raw = NOTHING
    reasoning_effort: msgspec.Raw = NOTHING
    thinking: msgspec.Raw = NOTHING
    output_config: msgspec.Raw = NOTHING
    functions: msgspec.Raw = NOTHING
    function_call: msgspec.Raw = NOTHING
    web_search_options: msgspec.Raw = NOTHING


_NO_STOP: Final = "POST /v1/chat/completions with `stop`: the Responses API has no such field"

RIGHT_NAMES: Final = {
    "messages": "`input`, a text or an array of items",
    "system": "`instructions`",
    "max_tokens": "`max_output_tokens`",
    "max_completion_tokens": "`max_output_tokens`",
    "response_format": "`text.format`",
    "stop": _NO_STOP,
    "stop_sequences": _NO_STOP,
    "reasoning_effort": "`reasoning.effort`",
    "thinking": "`reasoning.effort`",
    "output_config": "`reasoning.effort` and `text.format`",
    "functions": "`tools`",
    "function_call": "`tool_choice`",
    "web_search_options": "`tools` with a tool of type web_search",
}
"""The fields of other dialects that would change the answer, and what to use in their place."""


class ContentPart(msgspec.Struct, frozen=True, gc=False):
    """A content part of any type."""

    type: str = ""
    text: msgspec.Raw = NOTHING
    refusal: msgspec.Raw = NOTHING
    image_url: msgspec.Raw = NOTHING
    file_id: msgspec.Raw = NOTHING
    file_data: msgspec.Raw = NOTHING
    file_url: msgspec.Raw = NOTHING
    filename: msgspec.Raw = NOTHING
    file: msgspec.Raw = NOTHING  # of chat completions
    source: msgspec.Raw = NOTHING  # of the Messages API
    title: msgspec.Raw = NOTHING


class InputItem(msgspec.Struct, frozen=True, gc=False):
    """An item of any type. Members that may be of several types stay raw."""

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
    error: msgspec.Raw = NOTHING
    server_label: str | None = None
    tools: msgspec.Raw = NOTHING
    summary: msgspec.Raw = NOTHING
    encrypted_content: msgspec.Raw = NOTHING

    @property
    def pairing_id(self) -> str | None:
        """The id that pairs a call with its output: a local shell's output has it as `id`."""
        if self.call_id is not None:
            return self.call_id
        return self.id if self.type == "local_shell_call_output" else None


class ShellOutput(msgspec.Struct, frozen=True, gc=False):
    """The output of one command line."""

    stdout: str = ""
    stderr: str = ""
    outcome: Any = None


class FoundTool(msgspec.Struct, frozen=True, gc=False):
    """A tool that a search has found."""

    name: str = ""


class OutputPart(msgspec.Struct, frozen=True, gc=False):
    """A part of an output."""

    type: str
    image_url: msgspec.Raw = NOTHING
    text: msgspec.Raw = NOTHING

    @property
    def is_complete(self) -> bool:
        """Whether it has the text that its type requires."""
        raw = {"input_image": self.image_url, "input_text": self.text}.get(self.type, NOTHING)
        return kind(raw) == '"' and len(memoryview(raw)) > len(b'""')


class ItemType(msgspec.Struct, frozen=True, gc=False):
    """The type of an item, which may be no string."""

    type: Any = None


class ItemId(msgspec.Struct, frozen=True, gc=False):
    """The id of an item."""

    id: str | None = None


class ToolParam(msgspec.Struct, frozen=True, gc=False):
    """A tool of any kind, or a choice of one."""

    type: str
    name: str | None = None
    namespace: str | None = None
    description: msgspec.Raw = NOTHING
    parameters: msgspec.Raw = NOTHING
    strict: bool | None = None
    format: msgspec.Raw = NOTHING
    tools: msgspec.Raw = NOTHING
    function: msgspec.Raw = NOTHING  # of chat completions
    mode: str | None = None
    execution: str | None = None
    defer_loading: bool | None = None
    user_location: msgspec.Raw = NOTHING
    filters: msgspec.Raw = NOTHING


class CustomFormat(msgspec.Struct, frozen=True):
    """The form of a custom tool's text."""

    type: str = "text"
    syntax: str = ""
    definition: str = ""


class SearchFilters(msgspec.Struct, frozen=True):
    """`filters` of a web search."""

    allowed_domains: list[str] | None = None


class EchoedTool(msgspec.Struct, frozen=True, gc=False):
    """A tool as an answer repeats it."""

    type: str
    description: msgspec.Raw = NOTHING
    parameters: msgspec.Raw = NOTHING
    strict: msgspec.Raw = NOTHING


class SearchArguments(msgspec.Struct, frozen=True):
    """The arguments of a web search."""

    query: str = ""


class AnswerItem(msgspec.Struct, frozen=True, gc=False):
    """An item of an answer."""

    id: str = ""


class ReasoningField(msgspec.Struct, frozen=True, gc=False):
    """`reasoning`."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class FormatField(msgspec.Struct, frozen=True, gc=False):
    """`text.format`."""

    type: str
    schema: msgspec.Raw = NOTHING
    strict: bool | None = None


class TextField(msgspec.Struct, frozen=True, gc=False):
    """`text`."""

    format: FormatField | None = None
    verbosity: str | None = None


class InputField(msgspec.Struct, frozen=True, gc=False):
    """The input alone."""

    input: msgspec.Raw = NOTHING


class PreviousResponse(msgspec.Struct, frozen=True, gc=False):
    """The response to go on from, alone."""

    previous_response_id: str | None = None


class SealedContent(msgspec.Struct, frozen=True):
    """The content of a seal."""

    family: str = ""
    text: msgspec.Raw = NOTHING
    signature: msgspec.Raw = NOTHING
    data: msgspec.Raw = NOTHING

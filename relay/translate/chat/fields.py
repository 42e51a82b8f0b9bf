"""The members of a chat completions request, as msgspec reads them.

Members that may be long or of several types stay raw. Must not know what they mean.
"""

import msgspec

from relay.translate.raw_json import NOTHING


class Part(msgspec.Struct, frozen=True, gc=False):
    """A content part of any type."""

    type: str
    text: msgspec.Raw = NOTHING
    refusal: msgspec.Raw = NOTHING
    image_url: msgspec.Raw = NOTHING
    file: msgspec.Raw = NOTHING
    source: msgspec.Raw = NOTHING
    title: msgspec.Raw = NOTHING
    context: msgspec.Raw = NOTHING
    citations: msgspec.Raw = NOTHING
    cache_control: msgspec.Raw = NOTHING
    # Of a call or a result in the Messages API's form.
    id: str = ""
    name: str = ""
    input: msgspec.Raw = NOTHING
    tool_use_id: str = ""
    content: msgspec.Raw = NOTHING
    is_error: bool | None = None


class FunctionCall(msgspec.Struct, frozen=True, gc=False):
    """The function that a call calls."""

    name: str = ""
    arguments: msgspec.Raw = NOTHING


class CustomCall(msgspec.Struct, frozen=True, gc=False):
    """The custom tool that a call calls."""

    name: str = ""
    input: msgspec.Raw = NOTHING


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """An element of `tool_calls`."""

    id: str
    type: str = "function"
    function: FunctionCall | None = None
    custom: CustomCall | None = None


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message of any role. Members that may be long or of several types stay raw."""

    role: str
    content: msgspec.Raw = NOTHING
    name: msgspec.Raw = NOTHING
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    is_error: bool | None = None
    refusal: msgspec.Raw = NOTHING
    function_call: FunctionCall | None = None
    reasoning_content: msgspec.Raw = NOTHING
    reasoning_details: msgspec.Raw = NOTHING
    thinking_blocks: msgspec.Raw = NOTHING
    provider_specific_fields: msgspec.Raw = NOTHING
    cache_control: msgspec.Raw = NOTHING


class FunctionDefinition(msgspec.Struct, frozen=True, gc=False):
    """A function, within a tool or in `functions`."""

    name: str
    description: msgspec.Raw = NOTHING
    parameters: msgspec.Raw = NOTHING
    strict: bool | None = None
    cache_control: msgspec.Raw = NOTHING


class Grammar(msgspec.Struct, frozen=True, gc=False):
    """The grammar of a custom tool's text."""

    syntax: str = ""
    definition: str = ""


class CustomFormat(msgspec.Struct, frozen=True, gc=False):
    """The form of a custom tool's text."""

    type: str = "text"
    grammar: Grammar | None = None


class CustomDefinition(msgspec.Struct, frozen=True, gc=False):
    """A custom tool, within a tool."""

    name: str
    description: msgspec.Raw = NOTHING
    format: CustomFormat | None = None


class ToolDefinition(msgspec.Struct, frozen=True, gc=False):
    """An element of `tools`."""

    type: str
    function: FunctionDefinition | None = None
    custom: CustomDefinition | None = None
    cache_control: msgspec.Raw = NOTHING


class FunctionName(msgspec.Struct, frozen=True, gc=False):
    """A function's or a custom tool's name, in an object."""

    name: str = ""


class ChosenTool(msgspec.Struct, frozen=True, gc=False):
    """One tool of a choice."""

    type: str = "function"
    name: str = ""  # where other APIs have it
    function: FunctionName | None = None
    custom: FunctionName | None = None

    @property
    def chosen(self) -> str:
        """The name of the chosen tool; empty if none is given."""
        given = self.custom if self.type == "custom" else self.function
        return given.name if given is not None else self.name


class AllowedTools(msgspec.Struct, frozen=True, gc=False):
    """The choice among some of the tools."""

    tools: list[ChosenTool]
    mode: str = "auto"


class ChoiceField(ChosenTool, frozen=True, kw_only=True, gc=False):
    """`tool_choice` as an object."""

    type: str
    allowed_tools: AllowedTools | None = None


class ApproximateLocation(msgspec.Struct, frozen=True, gc=False):
    """Where the user is, roughly."""

    city: str | None = None
    country: str | None = None
    region: str | None = None
    timezone: str | None = None


class LocationField(msgspec.Struct, frozen=True, gc=False):
    """`user_location` of a web search."""

    approximate: ApproximateLocation | None = None


class WebSearchOptions(msgspec.Struct, frozen=True, gc=False):
    """`web_search_options`."""

    user_location: LocationField | None = None


class JsonSchema(msgspec.Struct, frozen=True):
    """`json_schema` of a format."""

    schema: msgspec.Raw = NOTHING
    strict: bool | None = None


class FormatField(msgspec.Struct, frozen=True):
    """`response_format`."""

    type: str
    json_schema: JsonSchema | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    """`stream_options`."""

    include_usage: bool | None = None


class RequestFields(msgspec.Struct, frozen=True, gc=False):
    """The fields that have an effect. Others are hints for other vendors' models."""

    messages: list[Message] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: str | ChoiceField | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    thinking: msgspec.Raw = NOTHING
    response_format: FormatField | None = None
    web_search_options: WebSearchOptions | None = None
    n: int | None = None
    logprobs: bool | None = None
    modalities: list[str] | None = None
    functions: list[FunctionDefinition] | None = None
    function_call: str | FunctionName | None = None
    user: str | None = None
    safety_identifier: str | None = None

    # Of other dialects, to be refused.
    input: msgspec.Raw = NOTHING
    prompt: msgspec.Raw = NOTHING
    instructions: msgspec.Raw = NOTHING
    system: msgspec.Raw = NOTHING
    max_output_tokens: msgspec.Raw = NOTHING
    stop_sequences: msgspec.Raw = NOTHING
    text: msgspec.Raw = NOTHING
    output_config: msgspec.Raw = NOTHING
    previous_response_id: msgspec.Raw = NOTHING
    conversation: msgspec.Raw = NOTHING

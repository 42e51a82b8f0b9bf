"""The fields of a Responses request. Those that may be of several types stay raw."""

from typing import Final

import msgspec

from relay.translate.raw_json import NOTHING


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

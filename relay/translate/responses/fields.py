"""The fields of a Responses request. Those that may be of several types stay raw."""

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

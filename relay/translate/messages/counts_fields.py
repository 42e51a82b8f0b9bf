"""The members of an answer that state its usage, as msgspec reads them.

The odd ones take whatever a member holds, where the regular ones refuse it.
"""

from typing import Any

import msgspec


class CacheWrites(msgspec.Struct):
    """Tokens written into the prompt cache, by its lifetime."""

    ephemeral_1h_input_tokens: int = 0
    ephemeral_5m_input_tokens: int = 0


class ServerTools(msgspec.Struct):
    """Calls of the tools that the API runs itself."""

    web_search_requests: int = 0
    web_fetch_requests: int = 0
    code_execution_requests: int = 0


class OutputDetails(msgspec.Struct):
    """Parts of the output."""

    thinking_tokens: int | None = None


class CountFields(msgspec.Struct):
    """The members as the Messages API has them."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: CacheWrites | None = None
    output_tokens_details: OutputDetails | None = None
    server_tool_use: ServerTools | None = None
    iterations: list[Any] | None = None
    speed: str | None = None
    inference_geo: str | None = None
    service_tier: str | None = None


class MessageFields(msgspec.Struct):
    """A message, of which the usage is read."""

    model: str | None = None
    stop_reason: str | None = None
    usage: CountFields | None = None


class EventFields(msgspec.Struct):
    """An event of a stream, of which the usage is read."""

    type: str = ""
    message: MessageFields | None = None
    usage: CountFields | None = None
    delta: Any = None


class OddCounts(msgspec.Struct):
    """`CountFields` of any type."""

    input_tokens: Any = None
    output_tokens: Any = None
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None
    cache_creation: Any = None
    output_tokens_details: Any = None
    server_tool_use: Any = None
    iterations: Any = None
    speed: Any = None
    inference_geo: Any = None
    service_tier: Any = None


class OddMessage(msgspec.Struct):
    """`MessageFields` of any type."""

    model: Any = None
    stop_reason: Any = None
    usage: msgspec.Raw = msgspec.Raw()


class OddEvent(msgspec.Struct):
    """`EventFields` of any type."""

    type: Any = ""
    message: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    delta: Any = None

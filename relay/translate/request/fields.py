"""The members of parts that several dialects' requests have, as msgspec reads them.

Must not know what they mean.
"""

from typing import Any

import msgspec

from relay.translate.raw_json import NOTHING


class McpResource(msgspec.Struct, frozen=True, gc=False):
    """An MCP resource, with its content."""

    uri: str = ""
    mimeType: str = ""  # noqa: N815 - the protocol's name
    text: msgspec.Raw = NOTHING
    blob: msgspec.Raw = NOTHING


class McpContent(msgspec.Struct, frozen=True, gc=False):
    """A content part of MCP."""

    type: str
    data: msgspec.Raw = NOTHING
    mimeType: str = ""  # noqa: N815
    resource: McpResource | None = None
    uri: str = ""
    name: str = ""


class UrlField(msgspec.Struct, frozen=True, gc=False):
    """`image_url` as an object."""

    url: msgspec.Raw = NOTHING


class FileField(msgspec.Struct, frozen=True, gc=False):
    """`file` of a part."""

    file_data: msgspec.Raw = NOTHING
    file_id: msgspec.Raw = NOTHING
    filename: msgspec.Raw = NOTHING


class ReasoningDetail(msgspec.Struct, frozen=True, gc=False):
    """An entry of `reasoning_details`, as OpenRouter documents them."""

    type: str
    index: int | None = None
    id: str | None = None
    format: str | None = None
    text: msgspec.Raw = NOTHING
    signature: msgspec.Raw = NOTHING
    data: msgspec.Raw = NOTHING


class ThinkingBlock(msgspec.Struct, frozen=True, gc=False):
    """An entry of LiteLLM's `thinking_blocks`."""

    type: str
    thinking: msgspec.Raw = NOTHING
    signature: msgspec.Raw = NOTHING
    data: msgspec.Raw = NOTHING


class SpecificFields(msgspec.Struct, frozen=True, gc=False):
    """`provider_specific_fields`, LiteLLM's."""

    reasoning_details: msgspec.Raw = NOTHING
    thinking_blocks: msgspec.Raw = NOTHING


class TypeOnly(msgspec.Struct, frozen=True):
    """The type of an object, which may be no string."""

    type: Any = None

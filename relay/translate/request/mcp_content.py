"""Content of the Model Context Protocol, which clients pass on as their tools gave it.

Decides what each type of content block is in the Messages API (MCP specification, 2025-11-25,
"Tool Result"). Must not know the dialect.
"""

from typing import Final

import msgspec

from relay.translate.invalid import invalid_field, read
from relay.translate.raw_json import NOTHING, encode_string, has_text, kind
from relay.translate.request import media
from relay.translate.request.block import Block, text_block
from relay.translate.request.fields import McpContent, McpResource

TYPES: Final = frozenset({"image", "audio", "resource", "resource_link"})


_decode: Final = msgspec.json.Decoder(McpContent).decode


def block(raw: msgspec.Raw, cache: msgspec.Raw, param: str) -> Block | None:
    """The block of a content block of one of `TYPES`; None for a blank text.

    Args:
        cache: the caller's `cache_control`, which MCP itself has not.

    Raises:
        RelayError: 400, the models cannot take it.
    """
    content = read(_decode, raw, param)
    if content.type == "image":
        return media.base64_image(content.data, content.mimeType, cache, f"{param}.data")
    if content.type == "audio":
        raise invalid_field(param, "these models cannot hear; send a text instead")
    if content.type == "resource_link":
        words = f"{content.name}: {content.uri}" if content.name else content.uri
        return text_block(msgspec.Raw(encode_string(words)), cache) if words.strip() else None
    resource = content.resource or McpResource()
    if kind(resource.text) == '"':
        given = has_text(resource.text, f"{param}.resource")
        return text_block(resource.text, cache) if given else None
    if kind(resource.blob) != '"':
        raise invalid_field(f"{param}.resource", "it must have a `text` or a `blob`")
    title = msgspec.Raw(encode_string(resource.uri)) if resource.uri.strip() else NOTHING
    return media.base64_file(resource.blob, title, cache, f"{param}.resource.blob")

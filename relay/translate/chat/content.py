"""The content of a chat completions message, as blocks.

Decides what each type of content part is in the Messages API. Reads the parts of the Responses API,
of the Messages API and of MCP as well, which clients send in chat. Must not know turns.
"""

from collections import deque
from typing import Final

import msgspec

from relay.translate.chat.fields import Part
from relay.translate.invalid import invalid_field, read, unknown_type_error
from relay.translate.pacing import paced
from relay.translate.raw_json import NOTHING, has_text, is_given, kind, not_text_error
from relay.translate.request import mcp_content, media
from relay.translate.request.block import Block, text_block
from relay.translate.request.conversation import Conversation

_MEDIA_PARTS: Final = frozenset(
    {"image_url", "file", "image", "document", "input_image", "input_file", "resource"}
)
_MEDIA_HINT: Final = "send pictures and documents in a message of role user"
_TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text"})
_THOUGHT_PARTS: Final = frozenset({"thinking", "redacted_thinking"})
_PART_HINTS: Final = {
    "tool_use": "send calls in `tool_calls` of a message of role assistant",
    "tool_result": "send a result as a message of role tool",
    "thinking": "send thinking in `thinking_blocks` of a message of role assistant",
}
_DOCUMENT_MEMBERS: Final = ("title", "context", "citations")


_decode_parts: Final = msgspec.json.Decoder(list[Part]).decode
_decode_raws: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_cache_control(raw: msgspec.Raw, param: str) -> msgspec.Raw:
    """The caller's `cache_control`; `NOTHING` if there is none.

    Raises:
        RelayError: 400, it is not an object.
    """
    if not is_given(raw):
        return NOTHING
    if kind(raw) != "{":
        raise invalid_field(param, "it must be an object")
    return raw


def cache_control(conversation: Conversation, raw: msgspec.Raw, param: str) -> msgspec.Raw:
    """The same, of a part or a message of a conversation, which is then marked by its caller."""
    if raw is NOTHING:
        return raw
    mark = read_cache_control(raw, f"{param}.cache_control")
    conversation.has_cache_marks = conversation.has_cache_marks or mark is not NOTHING
    return mark


def content_blocks(
    conversation: Conversation,
    raw: msgspec.Raw,
    param: str,
    results: dict[str, deque[tuple[Part, str]]] | None = None,
) -> list[Block]:
    """The blocks of content that may hold text, images and documents; no blank texts.

    Args:
        results: where `tool_result` parts go, each with its place, by the call's id.
    """
    first = kind(raw)
    if first == '"':
        return [text_block(raw)] if has_text(raw, param) else []
    if first != "[":
        return no_content(raw, param)
    blocks: list[Block] = []
    raws: list[msgspec.Raw] | None = None
    for index, part in enumerate(paced(read(_decode_parts, raw, param))):
        if part.type == "text" and part.cache_control is NOTHING and kind(part.text) == '"':
            blocks.append(text_block(part.text))  # as nearly all are
            continue
        place = f"{param}[{index}]"
        mark = cache_control(conversation, part.cache_control, place)
        match part.type:
            case name if name in _TEXT_PARTS:
                blocks.append(_text_block(part.text, mark, f"{place}.text"))
            case "image_url" | "input_image":
                blocks.append(media.image(part.image_url, mark, f"{place}.image_url"))
            case "file":
                blocks.append(media.file(part.file, mark, f"{place}.file"))
            case "image" | "document" if part.source is not NOTHING or part.type == "document":
                names = _DOCUMENT_MEMBERS if part.type == "document" else ()
                members = tuple((name, getattr(part, name)) for name in names)
                blocks.append(media.native(part.type, part.source, members, mark, place))
            case "tool_result" if results is not None:
                results.setdefault(part.tool_use_id, deque()).append((part, place))
            case name if name == "input_file" or name in mcp_content.TYPES:
                raws = read(_decode_raws, raw, param) if raws is None else raws
                blocks += _whole_part(name, raws[index], mark, place)
            case "input_audio":
                raise invalid_field(place, "these models cannot hear; send a text instead")
            case _:
                hint = _PART_HINTS.get(part.type, "")
                raise unknown_type_error(f"{place}.type", ("text", "image_url", "file"), hint)
    return without_blank(blocks)


def _whole_part(name: str, raw: msgspec.Raw, mark: msgspec.Raw, param: str) -> list[Block]:
    """The block of a part that is read by itself."""
    if name == "input_file":
        return [media.file(raw, mark, param)]
    block = mcp_content.block(raw, mark, param)
    return [] if block is None else [block]


def text_blocks(
    conversation: Conversation,
    raw: msgspec.Raw,
    param: str,
    *,
    is_late_instruction: bool = False,
    calls: list[Part] | None = None,
) -> list[Block]:
    """The blocks of content that may hold text alone, blank ones too.

    Args:
        calls: of an assistant's message: where `tool_use` parts go. Refusals are texts in it. Parts
            of thinking are passed over: it comes back in members of the message.
    """
    if kind(raw) == '"':
        return [text_block(raw, late_instruction=is_late_instruction)]
    if kind(raw) != "[":
        return no_content(raw, param)
    blocks: list[Block] = []
    for index, part in enumerate(paced(read(_decode_parts, raw, param))):
        place = f"{param}[{index}]"
        mark = cache_control(conversation, part.cache_control, place)
        if part.type == "refusal" and calls is not None:
            blocks.append(_text_block(part.refusal, mark, f"{place}.refusal"))
        elif part.type in _TEXT_PARTS:
            text_param = f"{place}.text"
            blocks.append(
                _text_block(part.text, mark, text_param, is_late_instruction=is_late_instruction)
            )
        elif part.type == "tool_use" and calls is not None:
            calls.append(part)
        elif part.type not in _THOUGHT_PARTS or calls is None:
            accepted = ("text",) if calls is None else ("text", "refusal")
            hint = _MEDIA_HINT if part.type in _MEDIA_PARTS else _PART_HINTS.get(part.type, "")
            raise unknown_type_error(f"{place}.type", accepted, hint)
    return blocks


def _text_block(
    raw: msgspec.Raw, mark: msgspec.Raw, param: str, *, is_late_instruction: bool = False
) -> Block:
    if kind(raw) != '"':
        raise not_text_error(raw, param)
    return text_block(raw, mark, late_instruction=is_late_instruction)


def refusal_block(raw: msgspec.Raw, param: str) -> Block:
    """The block of a message's own `refusal`."""
    return _text_block(raw, NOTHING, param)


def without_blank(blocks: list[Block], param: str = "") -> list[Block]:
    """The blocks without blank texts, which the API refuses."""
    if len(blocks) == 1:  # as in most messages
        text = blocks[0].text
        return blocks if text is None or has_text(text, param) else []
    return [block for block in paced(blocks) if block.text is None or has_text(block.text, param)]


def no_content(raw: msgspec.Raw, param: str) -> list[Block]:
    """The blocks of content that is neither text nor parts: none if it is absent or null.

    Raises:
        RelayError: 400, it is a value of another type.
    """
    if is_given(raw):
        raise invalid_field(param, "it must be a text or an array of parts")
    return []

"""The content of a Responses message or output, as blocks.

Decides what each type of content part is in the Messages API. Reads the parts of chat
completions, of the Messages API and of MCP as well, which clients send here. Must not know items.
"""

from typing import Final

import msgspec

from relay.translate.invalid import invalid_field, read, unknown_type_error
from relay.translate.pacing import paced
from relay.translate.raw_json import NOTHING, has_text, is_given, kind, not_text_error
from relay.translate.request import mcp_content, media
from relay.translate.request.block import Block, text_block
from relay.translate.responses.fields import ContentPart

_TEXT_PARTS: Final = frozenset(
    {"input_text", "output_text", "text", "summary_text", "reasoning_text"}
)
_INPUT_PARTS: Final = ("input_text", "input_image", "input_file")
_MEDIA_PARTS: Final = frozenset({"input_image", "input_file", "input_audio", "input_video"})
_MEDIA_HINT: Final = "send pictures and documents in a message of role user"
PART_HINTS: Final = {
    "tool_use": "send a call as an item of type function_call",
    "tool_result": "send an output as an item of type function_call_output",
}
CONTENT_PARTS: Final = _TEXT_PARTS | _MEDIA_PARTS


_decode_parts: Final = msgspec.json.Decoder(list[ContentPart]).decode
_decode_part: Final = msgspec.json.Decoder(ContentPart).decode
_decode_raws: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def content_blocks(raw: msgspec.Raw, param: str) -> list[Block]:
    """The blocks of content that may hold text, images and documents."""
    if kind(raw) == '"':
        return [text_block(raw)] if has_text(raw, param) else []
    if not is_given(raw):
        return []
    parts = [
        (read(_decode_part, part, f"{param}[{index}]"), part)
        for index, part in enumerate(paced(read(_decode_raws, raw, param)))
    ]
    blocks = [
        _content_block(part, part_raw, f"{param}[{index}]")
        for index, (part, part_raw) in enumerate(paced(parts))
    ]
    return [block for block in blocks if block is not None]


def text_blocks(
    raw: msgspec.Raw,
    param: str,
    accepted: tuple[str, ...],
    *,
    is_late_instruction: bool = False,
) -> list[Block]:
    """The blocks of content that may hold text alone; `accepted` are its types of parts.

    Raises:
        RelayError: 400, there is a part of another type.
    """
    if kind(raw) == "[":
        for index, part in enumerate(paced(read(_decode_parts, raw, param))):
            if part.type not in _TEXT_PARTS and part.type != "refusal":
                hint = _MEDIA_HINT if part.type in _MEDIA_PARTS else PART_HINTS.get(part.type, "")
                raise unknown_type_error(f"{param}[{index}].type", accepted, hint)
    return readable_texts(raw, param, is_late_instruction=is_late_instruction)


def readable_texts(
    raw: msgspec.Raw, param: str, *, is_late_instruction: bool = False
) -> list[Block]:
    """The blocks of the texts in content; other parts are skipped."""
    if kind(raw) == '"':
        return (
            [text_block(raw, late_instruction=is_late_instruction)] if has_text(raw, param) else []
        )
    if not is_given(raw):
        return []
    texts = [
        part.refusal if part.type == "refusal" else part.text
        for part in paced(read(_decode_parts, raw, param))
    ]
    return [
        text_block(text, late_instruction=is_late_instruction)
        for text in paced(texts)
        if kind(text) == '"' and has_text(text, param)
    ]


def _content_block(part: ContentPart, raw: msgspec.Raw, param: str) -> Block | None:
    """The block of a content part; None for a blank text and for what cannot be replayed.

    Raises:
        RelayError: 400, the API takes no such part.
    """
    if part.type in _TEXT_PARTS or part.type == "refusal":
        text = part.refusal if part.type == "refusal" else part.text
        return text_block(text) if has_text(text, f"{param}.text") else None
    if part.type == "input_image":
        _refuse_file_id(part, param)
        if not is_given(part.image_url):
            raise not_text_error(NOTHING, f"{param}.image_url")
        return media.image(part.image_url, NOTHING, f"{param}.image_url")
    if part.type == "input_file":
        _refuse_file_id(part, param)
        if is_given(part.file_url):
            return media.linked(part.file_url, part.filename, f"{param}.file_url")
        return media.file(raw, NOTHING, param)
    if part.type == "image_url":
        return media.image(part.image_url, NOTHING, f"{param}.image_url")
    if part.type == "file":
        return media.file(part.file, NOTHING, f"{param}.file")
    if part.type == "document" or (part.type == "image" and is_given(part.source)):
        members = (("title", part.title),) if part.type == "document" else ()
        return media.native(part.type, part.source, members, NOTHING, param)
    if part.type in mcp_content.TYPES:
        return mcp_content.block(raw, NOTHING, param)
    if part.type in ("input_audio", "input_video"):
        raise invalid_field(param, "these models take text, pictures and documents; send a text")
    if part.type == "encrypted_content":  # of another agent, which only OpenAI can read
        return None
    raise unknown_type_error(f"{param}.type", _INPUT_PARTS, PART_HINTS.get(part.type, ""))


def _refuse_file_id(part: ContentPart, param: str) -> None:
    if is_given(part.file_id):
        raise invalid_field(f"{param}.file_id", "no files are kept here; send its content")

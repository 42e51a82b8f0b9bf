"""The messages of a chat completions request, read into a conversation.

Decides what each kind of message and content part is in the Messages API, and refuses those that
it has no equivalent for. How messages become turns is decided in `request.conversation`.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from relay.translate.invalid import invalid_field, read, unknown_type_error
from relay.translate.pacing import paced
from relay.translate.raw_json import (
    NOTHING,
    Octets,
    has_text,
    is_given,
    kind,
    not_text_error,
    object_in_string,
)
from relay.translate.request import media
from relay.translate.request.block import Block, text_block, write
from relay.translate.request.conversation import Conversation
from relay.translate.request.thinking_replay import ThinkingMessage, Thought, read_thoughts
from relay.translate.request.tools import check_name

_MAX_MESSAGES: Final = 100_000  # Anthropic API reference, Create a Message
_ROLES: Final = ("system", "developer", "user", "assistant", "tool")
_MEDIA_PARTS: Final = frozenset({"image_url", "file", "image", "document"})
_MEDIA_HINT: Final = "send pictures and documents in a message of role user"
_PART_HINTS: Final = {
    "input_text": "what is input_text in the Responses API is text here",
    "output_text": "what is output_text in the Responses API is text here",
    "input_image": "what is input_image in the Responses API is image_url here",
    "input_file": "what is input_file in the Responses API is file here",
    "tool_use": "send calls in `tool_calls` of a message of role assistant",
    "tool_result": "send a result as a message of role tool",
    "thinking": "send thinking in `thinking_blocks` of a message of role assistant",
}
_DOCUMENT_MEMBERS: Final = ("title", "context", "citations")
_RESULT: Final = b'{"type":"tool_result","tool_use_id":"%b"'


class _FunctionCall(msgspec.Struct, frozen=True, gc=False):
    name: str
    arguments: msgspec.Raw


class _ToolCall(msgspec.Struct, frozen=True, gc=False):
    id: str
    type: str = "function"
    function: _FunctionCall | None = None


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message of any role. Members that may be long or of several types stay raw."""

    role: str
    content: msgspec.Raw = NOTHING
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    is_error: bool | None = None
    refusal: msgspec.Raw = NOTHING
    function_call: msgspec.Raw = NOTHING
    reasoning_content: msgspec.Raw = NOTHING
    reasoning_details: msgspec.Raw = NOTHING
    thinking_blocks: msgspec.Raw = NOTHING
    provider_specific_fields: msgspec.Raw = NOTHING
    cache_control: msgspec.Raw = NOTHING


class _ContentPart(msgspec.Struct, frozen=True, gc=False):
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


_decode_parts: Final = msgspec.json.Decoder(list[_ContentPart]).decode


def read_conversation(messages: list[Message]) -> Conversation:
    """The conversation that these messages make up.

    Raises:
        RelayError: 400, a message cannot be translated; `param` says which and where.
    """
    if len(messages) > _MAX_MESSAGES:
        raise invalid_field(
            "messages", f"there are {len(messages)} of them, and {_MAX_MESSAGES} is the most"
        )
    conversation = Conversation()
    in_preamble = True  # only instructions so far
    for index, message in enumerate(paced(messages)):
        role = message.role
        if role == "user":
            in_preamble = False
            if blocks := _user_blocks(conversation, message, index):
                conversation.user_turn().blocks += blocks
            elif index == len(messages) - 1:
                raise invalid_field(
                    f"messages[{index}].content", "there is nothing in it to answer"
                )
        elif role == "assistant":
            in_preamble = False
            _add_assistant_message(conversation, message, index)
        elif role == "tool":
            in_preamble = False
            _add_tool_result(conversation, message, index)
        elif role in ("system", "developer"):
            _add_instructions(conversation, message, index, in_preamble=in_preamble)
        elif role == "function":
            raise invalid_field(
                f"messages[{index}].role", "use tools, and messages with role 'tool'"
            )
        else:
            raise unknown_type_error(f"messages[{index}].role", _ROLES)
    conversation.finish()
    if not conversation.turns:
        raise invalid_field("messages", "there is nothing in them that the model could answer")
    return conversation


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


def _user_blocks(conversation: Conversation, message: Message, index: int) -> list[Block]:
    """The blocks of a user's message; empty if all of it is blank."""
    raw = message.content
    first = kind(raw)
    if first == '"':
        blocks = [text_block(raw)] if has_text(raw, f"messages[{index}].content") else []
    elif first == "[":
        blocks = _without_blank(_content_blocks(conversation, raw, f"messages[{index}].content"))
    else:
        blocks = _no_content(raw, index)
    if message.cache_control is not NOTHING:
        _mark_last_block(conversation, message, blocks, index)
    return blocks


def _add_instructions(
    conversation: Conversation, message: Message, index: int, *, in_preamble: bool
) -> None:
    """Add a system or developer message: to the system prompt, or as a late instruction."""
    raw = message.content
    if kind(raw) == '"':
        blocks = [text_block(raw, late_instruction=not in_preamble)]
    elif kind(raw) == "[":
        blocks = _text_blocks(
            conversation, raw, f"messages[{index}].content", is_late_instruction=not in_preamble
        )
    else:
        blocks = _no_content(raw, index)
    blocks = _without_blank(blocks, f"messages[{index}].content")
    if message.cache_control is not NOTHING:
        _mark_last_block(conversation, message, blocks, index)
    if in_preamble:
        conversation.system += blocks
    elif blocks:
        turn = conversation.user_turn()
        turn.blocks += blocks
        turn.late_instructions += len(blocks)


def _add_assistant_message(conversation: Conversation, message: Message, index: int) -> None:
    if is_given(message.function_call):
        raise invalid_field(f"messages[{index}].function_call", "use tool_calls instead")
    raw = message.content
    param = f"messages[{index}]"
    if kind(raw) == '"':
        texts = [text_block(raw)]
    elif kind(raw) == "[":
        texts = _text_blocks(conversation, raw, f"{param}.content", refusals=True)
    else:
        texts = _no_content(raw, index)
    if is_given(message.refusal):
        texts.append(_text_block(message.refusal, NOTHING, f"{param}.refusal"))
    visible = _without_blank(texts, f"{param}.content")
    thinking = _thinking(message, param)
    if not visible and not thinking and not message.tool_calls:
        return
    turn = conversation.assistant_turn()
    calls = _tool_use_blocks(conversation, message.tool_calls or (), f"{param}.tool_calls")
    if message.cache_control is not NOTHING:
        # Never on thinking: the API refuses a cache mark there.
        _mark_last_block(conversation, message, calls or visible, index)
    if thinking:
        if not calls and message.cache_control is not NOTHING and visible:
            texts = [visible[-1] if text.text is visible[-1].text else text for text in texts]
        turn.thinking_messages.append((len(turn.blocks), ThinkingMessage(texts, calls, thinking)))
    else:
        turn.blocks += visible
        turn.blocks += calls


def _thinking(message: Message, param: str) -> list[Thought]:
    details, blocks = message.reasoning_details, message.thinking_blocks
    specific, content = message.provider_specific_fields, message.reasoning_content
    if details is blocks is specific is content:  # all `NOTHING`, as in most messages
        return []
    return read_thoughts(details, blocks, specific, content, param)


def _tool_use_blocks(
    conversation: Conversation, calls: Iterable[_ToolCall], param: str
) -> list[Block]:
    blocks: list[Block] = []
    for index, call in enumerate(paced(calls)):
        call_param = f"{param}[{index}]"
        if call.type != "function":
            raise unknown_type_error(f"{call_param}.type", ("function",))
        if call.function is None:
            raise invalid_field(f"{call_param}.function", "it must be given")
        name = check_name(call.function.name, f"{call_param}.function.name")
        arguments = _parse_arguments(call.function.arguments, f"{call_param}.function.arguments")
        blocks.append(conversation.add_call(call.id, name, arguments, param))
    return blocks


def _parse_arguments(raw: msgspec.Raw, param: str) -> bytes:
    """The JSON object within the text of a call's arguments."""
    octets = object_in_string(raw, param)
    if octets is None:
        raise invalid_field(param, "it must be a JSON object, as a text")
    return octets


def _add_tool_result(conversation: Conversation, message: Message, index: int) -> None:
    param = f"messages[{index}]"
    if message.tool_call_id is None:
        raise invalid_field(f"{param}.tool_call_id", "it must be given")
    tool_use_id = conversation.take_open_call(message.tool_call_id, f"{param}.tool_call_id")
    raw = message.content
    if kind(raw) == '"':
        blocks = _without_blank([text_block(raw)])
    elif kind(raw) == "[":
        blocks = _without_blank(_content_blocks(conversation, raw, f"{param}.content"))
    else:
        blocks = _no_content(raw, index)
    octets: list[Octets] = [_RESULT % tool_use_id.encode()]
    if blocks:
        octets.append(b',"content":[')
        write(octets, blocks)
        octets.append(b"]")
    if message.is_error:
        octets.append(b',"is_error":true')
    result = [Block(tuple(octets))]
    if message.cache_control is not NOTHING:
        _mark_last_block(conversation, message, result, index)
    conversation.user_turn().results += result


def _content_blocks(conversation: Conversation, raw: msgspec.Raw, param: str) -> list[Block]:
    """The parts of a message that may hold text, images and documents."""
    blocks: list[Block] = []
    for index, part in enumerate(paced(read(_decode_parts, raw, param))):
        part_param = f"{param}[{index}]"
        mark = _cache_control(conversation, part.cache_control, part_param)
        match part.type:
            case "text":
                blocks.append(_text_block(part.text, mark, f"{part_param}.text"))
            case "image_url":
                blocks.append(media.image(part.image_url, mark, f"{part_param}.image_url"))
            case "file":
                blocks.append(media.file(part.file, mark, f"{part_param}.file"))
            case "image" | "document":
                names = _DOCUMENT_MEMBERS if part.type == "document" else ()
                members = tuple((name, getattr(part, name)) for name in names)
                blocks.append(media.native(part.type, part.source, members, mark, part_param))
            case "input_audio":
                raise invalid_field(part_param, "these models cannot hear; send a text instead")
            case _:
                hint = _PART_HINTS.get(part.type, "")
                raise unknown_type_error(f"{part_param}.type", ("text", "image_url", "file"), hint)
    return blocks


def _text_blocks(
    conversation: Conversation,
    raw: msgspec.Raw,
    param: str,
    *,
    is_late_instruction: bool = False,
    refusals: bool = False,
) -> list[Block]:
    """The parts of a message that may hold text alone, or `refusals` as well."""
    blocks: list[Block] = []
    for index, part in enumerate(paced(read(_decode_parts, raw, param))):
        part_param = f"{param}[{index}]"
        mark = _cache_control(conversation, part.cache_control, part_param)
        if part.type == "refusal" and refusals:
            blocks.append(_text_block(part.refusal, mark, f"{part_param}.refusal"))
        elif part.type == "text":
            text_param = f"{part_param}.text"
            blocks.append(
                _text_block(part.text, mark, text_param, is_late_instruction=is_late_instruction)
            )
        else:
            accepted = ("text", "refusal") if refusals else ("text",)
            hint = _MEDIA_HINT if part.type in _MEDIA_PARTS else _PART_HINTS.get(part.type, "")
            raise unknown_type_error(f"{part_param}.type", accepted, hint)
    return blocks


def _text_block(
    raw: msgspec.Raw, mark: msgspec.Raw, param: str, *, is_late_instruction: bool = False
) -> Block:
    if kind(raw) != '"':
        raise not_text_error(raw, param)
    return text_block(raw, mark, late_instruction=is_late_instruction)


def _without_blank(blocks: list[Block], param: str = "") -> list[Block]:
    """The blocks without blank texts, which the API refuses."""
    return [block for block in paced(blocks) if block.text is None or has_text(block.text, param)]


def _no_content(raw: msgspec.Raw, index: int) -> list[Block]:
    """The blocks of content that is neither text nor parts: none if it is absent or null.

    Raises:
        RelayError: 400, it is a value of another type.
    """
    if is_given(raw):
        raise invalid_field(f"messages[{index}].content", "it must be a text or an array of parts")
    return []


def _cache_control(conversation: Conversation, raw: msgspec.Raw, param: str) -> msgspec.Raw:
    if raw is NOTHING:
        return raw
    mark = read_cache_control(raw, f"{param}.cache_control")
    conversation.has_cache_marks = conversation.has_cache_marks or mark is not NOTHING
    return mark


def _mark_last_block(
    conversation: Conversation, message: Message, blocks: list[Block], index: int
) -> None:
    """Move a message's own `cache_control`, a LiteLLM extension, to its last block."""
    mark = _cache_control(conversation, message.cache_control, f"messages[{index}]")
    if blocks and mark is not NOTHING and blocks[-1].cache is NOTHING:
        blocks[-1] = blocks[-1].with_cache(mark)

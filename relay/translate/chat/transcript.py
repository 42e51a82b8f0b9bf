"""The messages of a chat completions request, read into a conversation.

Decides what each kind of message and each of its parts is in the Messages API's terms, and
refuses those that it has no word for. How turns are made of them is decided in `turns`.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from relay.translate.invalid import UNREADABLE, invalid_field, read
from relay.translate.raw_json import NOTHING, Octets, has_text, is_given, kind, not_text_error, utf8
from relay.translate.request import media
from relay.translate.request.block import Block, text_block, write
from relay.translate.request.conversation import Conversation
from relay.translate.request.thinking_replay import ThinkingMessage, Thought, read_thoughts
from relay.translate.request.tools import check_name

_MOST: Final = 100_000  # docs: api/messages
_OF_DOCUMENTS: Final = ("title", "context", "citations")
_NO_ARGUMENTS: Final = b"{}"
_RESULT: Final = b'{"type":"tool_result","tool_use_id":"%b"'


class _Called(msgspec.Struct, frozen=True, gc=False):
    name: str
    arguments: msgspec.Raw


class _Call(msgspec.Struct, frozen=True, gc=False):
    id: str
    type: str = "function"
    function: _Called | None = None


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message of any role; what may be long or of several types is not looked into."""

    role: str
    content: msgspec.Raw = NOTHING
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    is_error: bool | None = None
    refusal: msgspec.Raw = NOTHING
    function_call: msgspec.Raw = NOTHING
    reasoning_content: msgspec.Raw = NOTHING
    reasoning_details: msgspec.Raw = NOTHING
    thinking_blocks: msgspec.Raw = NOTHING
    provider_specific_fields: msgspec.Raw = NOTHING
    cache_control: msgspec.Raw = NOTHING


class _Part(msgspec.Struct, frozen=True, gc=False):
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


class _Object(msgspec.Struct, frozen=True):
    """Any object: all its members are passed over."""


_parts = msgspec.json.Decoder(list[_Part]).decode
_object = msgspec.json.Decoder(_Object).decode


def conversation(messages: list[Message]) -> Conversation:
    """The conversation that the messages are.

    Raises:
        RelayError: 400, one of them cannot be honoured; `param` says which and where.
    """
    if len(messages) > _MOST:
        raise invalid_field(
            "messages", f"there are {len(messages)} of them, and {_MOST} is the most"
        )
    said = Conversation()
    leading = True  # nobody has said anything so far
    for number, message in enumerate(messages):
        role = message.role
        if role == "user":
            leading = False
            if blocks := _user(said, message, number):
                said.user_turn().blocks += blocks
            elif number == len(messages) - 1:
                raise invalid_field(
                    f"messages[{number}].content", "there is nothing in it to answer"
                )
        elif role == "assistant":
            leading = False
            _assistant(said, message, number)
        elif role == "tool":
            leading = False
            _result(said, message, number)
        elif role in ("system", "developer"):
            _instruct(said, message, number, leading=leading)
        elif role == "function":
            raise invalid_field(
                f"messages[{number}].role", "use tools, and messages with role 'tool'"
            )
        else:
            raise invalid_field(
                f"messages[{number}].role",
                "it must be one of system, developer, user, assistant and tool",
            )
    said.finish()
    if not said.turns:
        raise invalid_field("messages", "there is nothing in them that the model could answer")
    return said


def cache(raw: msgspec.Raw, at: str) -> msgspec.Raw:
    """A `cache_control` that somebody set; `NOTHING`: they set none.

    Raises:
        RelayError: 400, it is no object; `at` is its place.
    """
    if not is_given(raw):
        return NOTHING
    if kind(raw) != "{":
        raise invalid_field(at, "it must be an object")
    return raw


def _user(said: Conversation, message: Message, number: int) -> list[Block]:
    """What a user's message says; empty: nothing."""
    raw = message.content
    first = kind(raw)
    if first == '"':
        blocks = [text_block(raw)] if has_text(raw, f"messages[{number}].content") else []
    elif first == "[":
        blocks = _saying(_rich(said, raw, f"messages[{number}].content"))
    else:
        blocks = _none(raw, number)
    if message.cache_control is not NOTHING:
        _mark_last(said, message, blocks, number)
    return blocks


def _instruct(said: Conversation, message: Message, number: int, *, leading: bool) -> None:
    """A system or developer message: before all else, or an aside later."""
    raw = message.content
    if kind(raw) == '"':
        blocks = [text_block(raw, late_instruction=not leading)]
    elif kind(raw) == "[":
        blocks = _texts(said, raw, f"messages[{number}].content", aside=not leading)
    else:
        blocks = _none(raw, number)
    blocks = _saying(blocks, f"messages[{number}].content")
    if message.cache_control is not NOTHING:
        _mark_last(said, message, blocks, number)
    if leading:
        said.system += blocks
    elif blocks:
        turn = said.user_turn()
        turn.blocks += blocks
        turn.late_instructions += len(blocks)


def _assistant(said: Conversation, message: Message, number: int) -> None:
    if is_given(message.function_call):
        raise invalid_field(f"messages[{number}].function_call", "use tool_calls instead")
    raw = message.content
    at = f"messages[{number}]"
    if kind(raw) == '"':
        texts = [text_block(raw)]
    elif kind(raw) == "[":
        texts = _texts(said, raw, f"{at}.content", refusals=True)
    else:
        texts = _none(raw, number)
    if is_given(message.refusal):
        texts.append(_text(message.refusal, NOTHING, f"{at}.refusal"))
    saying = _saying(texts, f"{at}.content")
    thinking = _thoughts(message, at)
    if not saying and not thinking and not message.tool_calls:
        return
    turn = said.assistant_turn()
    calls = _calls(said, message.tool_calls or (), f"{at}.tool_calls")
    if message.cache_control is not NOTHING:
        # Never on thinking, which the API refuses to have marked.
        _mark_last(said, message, calls or saying, number)
    if thinking:
        if not calls and message.cache_control is not NOTHING and saying:
            texts = [saying[-1] if text.text is saying[-1].text else text for text in texts]
        turn.thinking_messages.append((len(turn.blocks), ThinkingMessage(texts, calls, thinking)))
    else:
        turn.blocks += saying
        turn.blocks += calls


def _thoughts(message: Message, at: str) -> list[Thought]:
    details, blocks = message.reasoning_details, message.thinking_blocks
    specific, content = message.provider_specific_fields, message.reasoning_content
    if details is blocks is specific is content:  # most messages have none of them
        return []
    return read_thoughts(details, blocks, specific, content, at)


def _calls(said: Conversation, calls: Iterable[_Call], at: str) -> list[Block]:
    blocks: list[Block] = []
    for number, call in enumerate(calls):
        here = f"{at}[{number}]"
        if call.type != "function":
            raise invalid_field(f"{here}.type", "only 'function' is known here")
        if call.function is None:
            raise invalid_field(f"{here}.function", "it must be given")
        name = check_name(call.function.name, f"{here}.function.name")
        arguments = _arguments(call.function.arguments, f"{here}.function.arguments")
        blocks.append(said.add_call(call.id, name, arguments, at))
    return blocks


def _arguments(raw: msgspec.Raw, at: str) -> bytes:
    """The arguments of a call, a JSON object within a text, as that object."""
    octets = utf8(raw, at).strip()
    if not octets:
        return _NO_ARGUMENTS
    try:
        _object(octets)
    except UNREADABLE:
        raise invalid_field(at, "it must be a JSON object, as a text") from None
    return octets


def _result(said: Conversation, message: Message, number: int) -> None:
    at = f"messages[{number}]"
    if message.tool_call_id is None:
        raise invalid_field(f"{at}.tool_call_id", "it must be given")
    known = said.take_open_call(message.tool_call_id, f"{at}.tool_call_id")
    raw = message.content
    if kind(raw) == '"':
        blocks = _saying([text_block(raw)])
    elif kind(raw) == "[":
        blocks = _saying(_rich(said, raw, f"{at}.content"))
    else:
        blocks = _none(raw, number)
    octets: list[Octets] = [_RESULT % known.encode()]
    if blocks:
        octets.append(b',"content":[')
        write(octets, blocks)
        octets.append(b"]")
    if message.is_error:
        octets.append(b',"is_error":true')
    result = [Block(tuple(octets))]
    if message.cache_control is not NOTHING:
        _mark_last(said, message, result, number)
    said.user_turn().results += result


def _rich(said: Conversation, raw: msgspec.Raw, at: str) -> list[Block]:
    """The parts of a message that may have pictures and documents."""
    blocks: list[Block] = []
    for number, part in enumerate(read(_parts, raw, at)):
        here = f"{at}[{number}]"
        mark = _mark(said, part.cache_control, here)
        match part.type:
            case "text":
                blocks.append(_text(part.text, mark, f"{here}.text"))
            case "image_url":
                blocks.append(media.image(part.image_url, mark, f"{here}.image_url"))
            case "file":
                blocks.append(media.file(part.file, mark, f"{here}.file"))
            case "image" | "document":
                others = _OF_DOCUMENTS if part.type == "document" else ()
                members = tuple((name, getattr(part, name)) for name in others)
                blocks.append(media.native(part.type, part.source, members, mark, here))
            case "input_audio":
                raise invalid_field(here, "these models cannot hear; send a text instead")
            case _:
                raise invalid_field(f"{here}.type", "it must be one of text, image_url and file")
    return blocks


def _texts(
    said: Conversation, raw: msgspec.Raw, at: str, *, aside: bool = False, refusals: bool = False
) -> list[Block]:
    """The parts of a message that may have nothing but words."""
    blocks: list[Block] = []
    for number, part in enumerate(read(_parts, raw, at)):
        here = f"{at}[{number}]"
        mark = _mark(said, part.cache_control, here)
        if part.type == "refusal" and refusals:
            blocks.append(_text(part.refusal, mark, f"{here}.refusal"))
        elif part.type == "text":
            blocks.append(_text(part.text, mark, f"{here}.text", aside=aside))
        else:
            raise invalid_field(f"{here}.type", "only text can be here")
    return blocks


def _text(raw: msgspec.Raw, mark: msgspec.Raw, at: str, *, aside: bool = False) -> Block:
    if kind(raw) != '"':
        raise not_text_error(raw, at)
    return text_block(raw, mark, late_instruction=aside)


def _saying(blocks: list[Block], at: str = "") -> list[Block]:
    """Without the texts that say nothing."""
    return [block for block in blocks if block.text is None or has_text(block.text, at)]


def _none(raw: msgspec.Raw, number: int) -> list[Block]:
    """What content is that is neither text nor parts: nothing at all, or an error."""
    if is_given(raw):
        raise invalid_field(f"messages[{number}].content", "it must be a text or an array of parts")
    return []


def _mark(said: Conversation, raw: msgspec.Raw, at: str) -> msgspec.Raw:
    if raw is NOTHING:
        return raw
    mark = cache(raw, f"{at}.cache_control")
    said.has_cache_marks = said.has_cache_marks or mark is not NOTHING
    return mark


def _mark_last(said: Conversation, message: Message, blocks: list[Block], number: int) -> None:
    """Put the mark of a whole message, as LiteLLM has it, at its last block."""
    mark = _mark(said, message.cache_control, f"messages[{number}]")
    if blocks and mark is not NOTHING and blocks[-1].cache is NOTHING:
        blocks[-1] = blocks[-1].with_cache(mark)

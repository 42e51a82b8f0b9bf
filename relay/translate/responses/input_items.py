"""The items of a Responses request, read into a conversation.

Decides what each type of item is in the Messages API, and which output belongs to which call.
Items that cannot be replayed are skipped: a conversation may come from another model or from a
newer client, and its turn must not fail.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from relay.translate.invalid import UNREADABLE, invalid_field, read
from relay.translate.pacing import paced
from relay.translate.raw_json import (
    NOTHING,
    Octets,
    encode_string,
    has_text,
    is_given,
    kind,
    not_text_error,
    string_content,
)
from relay.translate.request import media
from relay.translate.request.block import Block, text_block, write
from relay.translate.request.conversation import Conversation, Turn
from relay.translate.request.thinking_replay import ThinkingMessage, Thought
from relay.translate.responses.seal import Seal
from relay.translate.responses.tool_calls import (
    CALLS,
    OUTPUTS,
    InputItem,
    function_and_arguments,
    output_content,
)
from relay.translate.responses.tools import OfferedTools

_MAX_ITEMS: Final = 100_000  # Anthropic API reference, Create a Message
_TEXT_PARTS: Final = frozenset(
    {"input_text", "output_text", "text", "summary_text", "reasoning_text"}
)
_KNOWN_TYPES: Final = CALLS | {*OUTPUTS, "message", "reasoning", "compaction", "additional_tools"}
_RESULT: Final = b'{"type":"tool_result","tool_use_id":"%b"'
_NO_OUTPUT: Final = encode_string("This call has no output: it did not run, or was interrupted.")
_CONTINUE: Final = msgspec.Raw(encode_string("Continue."))
_SUMMARY_INTRODUCTION: Final = encode_string(
    "What was said before was made short. This is the summary of it:\n\n"
)


class _ContentPart(msgspec.Struct, frozen=True, gc=False):
    type: str = ""
    text: msgspec.Raw = NOTHING
    refusal: msgspec.Raw = NOTHING
    image_url: msgspec.Raw = NOTHING
    file_id: msgspec.Raw = NOTHING
    file_data: msgspec.Raw = NOTHING
    file_url: msgspec.Raw = NOTHING
    filename: msgspec.Raw = NOTHING


class _ItemType(msgspec.Struct, frozen=True, gc=False):
    type: Any = None


class _ItemId(msgspec.Struct, frozen=True, gc=False):
    id: str | None = None


_decode_item: Final = msgspec.json.Decoder(InputItem).decode
_decode_parts: Final = msgspec.json.Decoder(list[_ContentPart]).decode
_decode_part: Final = msgspec.json.Decoder(_ContentPart).decode
_decode_raws: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_type: Final = msgspec.json.Decoder(_ItemType).decode
_decode_id: Final = msgspec.json.Decoder(_ItemId).decode


def read_conversation(
    raws: Sequence[msgspec.Raw],
    seal: Seal,
    offered: OfferedTools,
    before: Sequence[msgspec.Raw] = (),
) -> Conversation:
    """The conversation that the items make up, those `before` them first.

    Tools that the items contain are added to `offered`.

    Raises:
        RelayError: 400, an item cannot be honoured; `param` says which and where.
    """
    if len(raws) + len(before) > _MAX_ITEMS:
        raise invalid_field("input", f"there are more than {_MAX_ITEMS} items in it")
    stored_items = _by_id(before) if before else {}
    items: list[tuple[InputItem, str]] = []
    for index, raw in enumerate(paced((*before, *raws)), -len(before)):
        # A stored item was read before; its index would mean nothing to the caller.
        param = f"input[{index}]" if index >= 0 else "previous_response_id"
        item = _read_item(raw, param)
        if item.type == "item_reference":
            # Each one once: repeated references would make a request of any length out of one item.
            stored = stored_items.pop(item.id or "", None)
            if stored is None:
                raise invalid_field(
                    param, "items are not kept here, or this one came before: send the item itself"
                )
            item = _read_item(stored, param)
        items.append((item, param))
    return _ItemReader(seal, offered, items).conversation()


def _read_item(raw: msgspec.Raw, param: str) -> InputItem:
    """An item; an unreadable one of an unknown type has its `type` alone.

    Raises:
        RelayError: 400, an item of a known type cannot be read.
    """
    try:
        item = _decode_item(raw)
    except UNREADABLE:
        try:
            item_type = _decode_type(raw).type
        except UNREADABLE:
            item_type = ""
        if isinstance(item_type, str) and item_type and item_type not in _KNOWN_TYPES:
            return InputItem(type=item_type)
        item = read(_decode_item, raw, param)
    if not item.type and item.role is not None:
        return msgspec.structs.replace(item, type="message")
    return item


def _by_id(raws: Sequence[msgspec.Raw]) -> dict[str, msgspec.Raw]:
    items: dict[str, msgspec.Raw] = {}
    for raw in raws:
        id = read(_decode_id, raw, "previous_response_id").id
        if id is not None:
            items[id] = raw
    return items


class _ItemReader:
    """Turns items into a conversation in one pass."""

    __slots__ = (
        "_conversation",
        "_items",
        "_offered",
        "_outputs",
        "_paired",
        "_pending_calls",
        "_pending_ids",
        "_seal",
    )

    def __init__(
        self, seal: Seal, offered: OfferedTools, items: list[tuple[InputItem, str]]
    ) -> None:
        self._seal = seal
        self._offered = offered
        self._items = items
        self._conversation = Conversation()
        # The ids of the current turn's calls, in their order and for look-ups.
        self._pending_calls: list[str] = []
        self._pending_ids: set[str] = set()
        # The first call with an id gets the first output with that id, wherever they stand, the
        # second call the second output, and so on.
        self._outputs: dict[str, deque[tuple[InputItem, str]]] = {}
        self._paired: set[int] = set()  # id() of the outputs that belong to a call
        calls: dict[str | None, int] = {}
        for item, _ in paced(items):
            if item.type in CALLS:
                calls[item.pairing_id] = calls.get(item.pairing_id, 0) + 1
        if not calls:
            return
        for item, param in paced(items):
            call_id = item.pairing_id
            if item.type in OUTPUTS and call_id is not None and calls.get(call_id):
                calls[call_id] -= 1
                self._paired.add(id(item))
                self._outputs.setdefault(call_id, deque()).append((item, param))

    def conversation(self) -> Conversation:
        """The conversation that the items make up.

        Raises:
            RelayError: 400, an item cannot be honoured, or there is nothing to answer.
        """
        conversation = self._conversation
        in_preamble = True  # only instructions so far
        for item, param in paced(self._items):
            match item.type:
                case "message":
                    in_preamble = self._add_message(item, param, in_preamble=in_preamble)
                case "reasoning":
                    in_preamble = False
                    self._add_thinking(item, param)
                case "compaction":
                    in_preamble = not self._add_summary(item) and in_preamble
                case name if name in CALLS:
                    in_preamble = False
                    self._add_call(item, param)
                case name if name in OUTPUTS:
                    in_preamble = False
                    self._add_output(item, param)
                case "additional_tools":
                    self._offered.add(item.tools, f"{param}.tools", found=True)
        self._answer_calls()
        conversation.finish()
        if not conversation.turns:
            raise invalid_field("input", "there is nothing in it that the model could answer")
        if conversation.turns[-1].assistant and conversation.turns[-1].blocks:
            # Codex sends the part of an answer that was cut off. Models would not continue it,
            # or would write on within its last sentence.
            conversation.user_turn().blocks.append(text_block(_CONTINUE))
        return conversation

    # --- messages, thinking and summaries ---

    def _add_message(self, item: InputItem, param: str, *, in_preamble: bool) -> bool:
        """Add a message; whether there are still only instructions."""
        role = item.role
        if role == "user":
            if blocks := self._content_blocks(item.content, f"{param}.content"):
                self._answer_calls()
                self._conversation.user_turn().blocks += blocks
            return False
        if role == "assistant":
            blocks = self._text_blocks(item.content, f"{param}.content")
            if blocks:
                self._assistant_turn().blocks += blocks
            return False
        if role not in ("system", "developer"):
            raise invalid_field(
                f"{param}.role", "it must be one of user, assistant, system and developer"
            )
        blocks = self._text_blocks(
            item.content, f"{param}.content", is_late_instruction=not in_preamble
        )
        if in_preamble:
            self._conversation.system += blocks
        elif blocks:
            self._answer_calls()
            turn = self._conversation.user_turn()
            turn.blocks += blocks
            turn.late_instructions += len(blocks)
        return in_preamble

    def _content_blocks(self, raw: msgspec.Raw, param: str) -> list[Block]:
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

    def _text_blocks(
        self, raw: msgspec.Raw, param: str, *, is_late_instruction: bool = False
    ) -> list[Block]:
        """The blocks of content that may hold text alone; other parts are skipped."""
        if kind(raw) == '"':
            return (
                [text_block(raw, late_instruction=is_late_instruction)]
                if has_text(raw, param)
                else []
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

    def _add_thinking(self, item: InputItem, param: str) -> None:
        thought = self._seal.opened(item.encrypted_content)
        if thought is None:
            blocks = self._text_blocks(item.summary, f"{param}.summary")
            if kind(item.content) == "[":
                blocks += self._text_blocks(item.content, f"{param}.content")
            texts = [string_content(block.text) for block in blocks if block.text is not None]
            if not texts:
                return
            joined = b"\\n\\n".join(texts)
            thought = Thought("", msgspec.Raw(b'"%b"' % joined))
        turn = self._assistant_turn()
        turn.thinking_messages.append((len(turn.blocks), ThinkingMessage([], [], [thought])))

    def _add_summary(self, item: InputItem) -> bool:
        """Add the summary of a compacted conversation; False if its seal cannot be opened."""
        text = self._seal.opened_summary(item.encrypted_content)
        if text is None:
            return False
        self._answer_calls()
        summary = b"".join(
            (b'"', string_content(_SUMMARY_INTRODUCTION), string_content(text), b'"')
        )
        self._conversation.user_turn().blocks.append(text_block(msgspec.Raw(summary)))
        return True

    # --- calls and their outputs ---

    def _add_call(self, item: InputItem, param: str) -> None:
        call_id = item.pairing_id or item.id
        if call_id is None:
            raise invalid_field(f"{param}.call_id", "it must be given")
        name, arguments = function_and_arguments(item, param)
        turn = self._assistant_turn()
        turn.blocks.append(self._conversation.add_call(call_id, name, arguments, "input"))
        self._pending_calls.append(call_id)
        self._pending_ids.add(call_id)

    def _add_output(self, item: InputItem, param: str) -> None:
        """Take an output. One that belongs to no call becomes part of a user's message."""
        if item.type == "tool_search_output":
            self._offered.add(item.tools, f"{param}.tools", found=True)
        if id(item) in self._paired:
            if item.pairing_id in self._pending_ids:
                self._answer_calls()
            return
        self._answer_calls()
        call_id = encode_string((item.pairing_id or "?")[:80])
        pieces = (b'"Output of the call ', string_content(call_id), b', which is not known here:"')
        blocks = self._content_blocks(output_content(item, param), f"{param}.output")
        introduction = text_block(msgspec.Raw(b"".join(pieces)))
        self._conversation.user_turn().blocks += [introduction, *blocks]

    def _answer_calls(self) -> None:
        """End the turn that has called tools: add a result for each of its calls."""
        if not self._pending_calls:
            return
        call_ids, self._pending_calls = self._pending_calls, []
        self._pending_ids.clear()
        for call_id in paced(call_ids):
            tool_use_id = self._conversation.take_open_call(call_id, "input")
            octets: list[Octets] = [_RESULT % tool_use_id.encode()]
            outputs = self._outputs.get(call_id)
            if outputs:
                item, param = outputs.popleft()
                blocks = self._content_blocks(output_content(item, param), f"{param}.output")
                if blocks:
                    octets.append(b',"content":[')
                    write(octets, blocks)
                    octets.append(b"]")
            else:
                octets += (b',"content":', _NO_OUTPUT, b',"is_error":true')
            self._conversation.user_turn().results.append(Block(tuple(octets)))

    def _assistant_turn(self) -> Turn:
        """The assistant's turn; the same one until its calls are answered."""
        if not self._pending_calls:
            return self._conversation.assistant_turn()
        return self._conversation.turns[-1]


def _content_block(part: _ContentPart, raw: msgspec.Raw, param: str) -> Block | None:
    """The block of a content part; None for a blank text and for parts of unknown types.

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
    if part.type in ("input_audio", "input_video"):
        raise invalid_field(param, "these models take text, pictures and documents; send a text")
    if kind(part.text) == '"' and has_text(part.text, param):
        return text_block(part.text)
    return None


def _refuse_file_id(part: _ContentPart, param: str) -> None:
    if is_given(part.file_id):
        raise invalid_field(f"{param}.file_id", "no files are kept here; send its content")

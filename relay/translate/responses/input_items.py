"""The items of a Responses request, read into a conversation.

Decides what each type of item is in the Messages API, and which output belongs to which call.
Items of a known type that cannot be replayed are skipped: a conversation may come from another
model, and its turn must not fail. An item or part of an unknown type is refused: the model would
answer without it, and nobody would know.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from relay.translate.invalid import UNREADABLE, invalid_field, read, unknown_type_error
from relay.translate.pacing import paced
from relay.translate.raw_json import encode_string, is_given, kind, string_content
from relay.translate.request.block import CONTINUE, text_block
from relay.translate.request.conversation import Conversation, Output, Pairing
from relay.translate.request.thinking_replay import ThinkingMessage, Thought
from relay.translate.responses.content import (
    CONTENT_PARTS,
    PART_HINTS,
    content_blocks,
    readable_texts,
    text_blocks,
)
from relay.translate.responses.fields import InputItem, ItemId, ItemType
from relay.translate.responses.seal import Seal
from relay.translate.responses.tool_calls import (
    CALLS,
    OUTPUTS,
    function_and_arguments,
    output_content,
)
from relay.translate.responses.tools import OfferedTools

_MAX_ITEMS: Final = 100_000  # Anthropic API reference, Create a Message
_ROLES: Final = ("user", "assistant", "system", "developer")
_SUMMARIES: Final = ("compaction", "compaction_summary", "context_compaction")
_READ_TYPES: Final = (
    "message",
    "reasoning",
    *sorted(CALLS),
    *OUTPUTS,
    *_SUMMARIES,
    "additional_tools",
    "agent_message",
    "item_reference",
    "mcp_call",
)
# What OpenAI's own tools and Codex CLI leave in a conversation. There is nothing in it for another
# model, or nothing that it could make use of.
_SKIPPED_TYPES: Final = frozenset(
    {
        "code_interpreter_call",
        "compaction_trigger",
        "computer_call",
        "computer_call_output",
        "configuration_update",
        "file_search_call",
        "ghost_snapshot",
        "image_generation_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_list_tools",
        "other",
        "program",
        "program_output",
        "web_search_call",
    }
)
_SUMMARY_INTRODUCTION: Final = encode_string(
    "What was said before was made short. This is the summary of it:\n\n"
)


_REFERENCE: Final = re.compile(rb'"item_reference"')
_decode_item: Final = msgspec.json.Decoder(InputItem).decode
_decode_type: Final = msgspec.json.Decoder(ItemType).decode
_decode_id: Final = msgspec.json.Decoder(ItemId).decode


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
                    param,
                    "no such item is kept here for this account, or it came before; send the item "
                    "itself, and `store: false`, so that clients send items in place of references",
                )
            item = _read_item(stored, param)
        items.append((item, param))
    return _ItemReader(seal, offered, items).conversation()


def referenced_ids(items: Sequence[msgspec.Raw]) -> list[str]:
    """The ids that the references among items name, each once, in their order."""
    ids = (_referenced_id(raw) for raw in paced(items))
    return list(dict.fromkeys(filter(None, ids)))


def resolved(items: Sequence[msgspec.Raw], kept: Mapping[str, msgspec.Raw]) -> list[msgspec.Raw]:
    """The items, with each of the `kept` ones, by id, in place of the first reference to it."""
    if not kept:
        return list(items)
    left = dict(kept)
    return [left.pop(_referenced_id(raw), raw) for raw in paced(items)]


def _referenced_id(raw: msgspec.Raw) -> str:
    """The id that a reference names; empty for any other item."""
    if _REFERENCE.search(raw) is None:
        return ""
    try:
        item = _decode_item(raw)
    except UNREADABLE:  # it is refused or skipped where it is read
        return ""
    return item.id or "" if item.type == "item_reference" else ""


def _read_item(raw: msgspec.Raw, param: str) -> InputItem:
    """An item; one that is skipped may have its `type` alone.

    Raises:
        RelayError: 400, an item is of an unknown type, or cannot be read.
    """
    try:
        item = _decode_item(raw)
    except UNREADABLE:
        name = read(_decode_type, raw, param).type
        if isinstance(name, str) and name in _SKIPPED_TYPES:
            return InputItem(type=name)
        item = read(_decode_item, raw, param)
    if not item.type and item.role is not None:
        return msgspec.structs.replace(item, type="message")
    if item.type not in _READ_TYPES and item.type not in _SKIPPED_TYPES:
        hint = PART_HINTS.get(item.type, "")
        if item.type in CONTENT_PARTS:
            hint = "send a content part within `content` of a message"
        raise unknown_type_error(f"{param}.type", (*_READ_TYPES, *sorted(_SKIPPED_TYPES)), hint)
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
        self._pending_ids: set[str] = set()  # of the current turn's calls
        self._outputs: Pairing[tuple[InputItem, str]] = Pairing()
        self._paired: set[int] = set()  # id() of the outputs that belong to a call
        for item, _ in paced(items):
            if item.type in CALLS and item.pairing_id is not None:
                self._outputs.count_call(item.pairing_id)
        for item, param in paced(items):
            call_id = item.pairing_id
            if (
                item.type in OUTPUTS
                and call_id is not None
                and self._outputs.offer(call_id, (item, param))
            ):
                self._paired.add(id(item))

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
                case "agent_message":  # from another agent of Codex
                    in_preamble = False
                    if blocks := readable_texts(item.content, f"{param}.content"):
                        self._answer_calls()
                        self._conversation.user_turn().blocks += blocks
                case name if name in _SUMMARIES:
                    in_preamble = not self._add_summary(item) and in_preamble
                case name if name in CALLS:
                    in_preamble = False
                    self._add_call(item, param)
                case name if name in OUTPUTS:
                    in_preamble = False
                    self._add_output(item, param)
                case "mcp_call":
                    in_preamble = False
                    self._add_foreign_call(item, param)
                case "additional_tools":
                    self._offered.add(item.tools, f"{param}.tools", found=True)
        self._answer_calls()
        conversation.finish()
        if not conversation.turns:
            raise invalid_field("input", "there is nothing in it that the model could answer")
        if conversation.turns[-1].assistant and conversation.turns[-1].blocks:
            # Codex sends the part of an answer that was cut off. Models would not continue it,
            # or would write on within its last sentence.
            conversation.user_turn().blocks.append(text_block(CONTINUE))
        return conversation

    # --- messages, thinking and summaries ---

    def _add_message(self, item: InputItem, param: str, *, in_preamble: bool) -> bool:
        """Add a message; whether there are still only instructions."""
        role = item.role
        if role == "user":
            if blocks := content_blocks(item.content, f"{param}.content"):
                self._answer_calls()
                self._conversation.user_turn().blocks += blocks
            return False
        if role == "assistant":
            accepted = ("output_text", "refusal")
            blocks = text_blocks(item.content, f"{param}.content", accepted)
            if blocks:
                self._conversation.assistant_turn().blocks += blocks
            return False
        if role not in ("system", "developer"):
            hint = "send an output as an item of type function_call_output"
            raise unknown_type_error(f"{param}.role", _ROLES, hint if role == "tool" else "")
        content_param = f"{param}.content"
        blocks = text_blocks(
            item.content, content_param, ("input_text",), is_late_instruction=not in_preamble
        )
        if in_preamble:
            self._conversation.system += blocks
        elif blocks:
            self._answer_calls()
            turn = self._conversation.user_turn()
            turn.blocks += blocks
            turn.late_instructions += len(blocks)
        return in_preamble

    def _add_thinking(self, item: InputItem, param: str) -> None:
        thought = self._seal.opened(item.encrypted_content)
        if thought is None:
            blocks = readable_texts(item.summary, f"{param}.summary")
            if kind(item.content) == "[":
                blocks += readable_texts(item.content, f"{param}.content")
            texts = [string_content(block.text) for block in blocks if block.text is not None]
            if not texts:
                return
            joined = b"\\n\\n".join(texts)
            thought = Thought("", msgspec.Raw(b'"%b"' % joined))
        turn = self._conversation.assistant_turn()
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
        turn = self._conversation.assistant_turn()
        turn.blocks.append(self._conversation.add_call(call_id, name, arguments))
        self._pending_ids.add(call_id)

    def _add_foreign_call(self, item: InputItem, param: str) -> None:
        """Add a call that another server has run: it has its output within itself."""
        if not item.name or (not is_given(item.output) and not is_given(item.error)):
            return
        name, arguments = function_and_arguments(item, param)
        output = _output(item, param)
        self._answer_calls()
        turn = self._conversation.assistant_turn()
        turn.blocks.append(self._conversation.add_call(item.id or "mcp", name, arguments))
        self._conversation.answer_calls(lambda _: output)

    def _add_output(self, item: InputItem, param: str) -> None:
        """Take an output. One that belongs to no call becomes part of a user's message."""
        if item.type == "tool_search_output":
            self._offered.add(item.tools, f"{param}.tools", found=True)
        if id(item) in self._paired:
            if item.pairing_id in self._pending_ids:
                self._answer_calls()
            return
        self._answer_calls()
        self._conversation.add_orphan(item.pairing_id or "?", _output(item, param))

    def _answer_calls(self) -> None:
        """End the turn that has called tools."""
        if not self._conversation.pending_calls:
            return
        self._pending_ids.clear()
        self._conversation.answer_calls(self._output_of)

    def _output_of(self, call_id: str) -> Output | None:
        taken = self._outputs.take(call_id)
        return None if taken is None else _output(*taken)


def _output(item: InputItem, param: str) -> Output:
    return Output(content_blocks(output_content(item, param), f"{param}.output"))

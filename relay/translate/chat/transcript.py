"""The messages of a chat completions request, read into a conversation.

Decides what each kind of message is in the Messages API, and which output belongs to which call.
History never makes a conversation unsendable: odd names and arguments of calls, calls without an
output and outputs without a call are told to the model. What content is in the Messages API is
decided in `content`, how messages become turns in `request.conversation`.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from relay.translate.chat.content import (
    cache_control,
    content_blocks,
    refusal_block,
    text_blocks,
    without_blank,
)
from relay.translate.chat.fields import Message, Part, ToolCall
from relay.translate.invalid import invalid_field, unknown_type_error
from relay.translate.pacing import paced
from relay.translate.raw_json import NOTHING, Octets, decode_string, is_given, kind
from relay.translate.request.block import Block
from relay.translate.request.conversation import Conversation, Output, Pairing
from relay.translate.request.thinking_replay import ThinkingMessage, Thought, read_thoughts
from relay.translate.request.tool_names import function_name
from relay.translate.request.tools import call_arguments

_MAX_MESSAGES: Final = 100_000  # Anthropic API reference, Create a Message
_ROLES: Final = ("system", "developer", "user", "assistant", "tool")


def read_conversation(messages: list[Message]) -> Conversation:
    """The conversation that these messages make up.

    Raises:
        RelayError: 400, a message cannot be translated; `param` says which and where.
    """
    if len(messages) > _MAX_MESSAGES:
        raise invalid_field(
            "messages", f"there are {len(messages)} of them, and {_MAX_MESSAGES} is the most"
        )
    return _Reader(messages).conversation()


class _Reader:
    """Turns messages into a conversation in one pass."""

    __slots__ = ("_conversation", "_messages", "_outputs", "_paired", "_pending_ids", "_results")

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages
        self._conversation = Conversation()
        self._outputs: Pairing[tuple[Message, int]] | None = None
        self._paired: set[int] = set()  # indexes of the outputs that belong to a call
        self._pending_ids: set[str] = set()  # of the current turn's calls
        # The parts `tool_result` of a user's message, each with its place.
        self._results: dict[str, deque[tuple[Part, str]]] = {}
        for message in paced(messages):
            if message.tool_calls or message.function_call is not None:
                self._outputs = self._pair(messages)
                return

    def _pair(self, messages: list[Message]) -> Pairing[tuple[Message, int]]:
        """Find the output of each call."""
        pairing: Pairing[tuple[Message, int]] = Pairing()
        for message in paced(messages):
            for call in paced(message.tool_calls or ()):
                pairing.count_call(call.id)
            if message.function_call is not None:
                pairing.count_call(_function_call_id(message.function_call.name))
        for index, message in enumerate(paced(messages)):
            if message.role in ("tool", "function"):
                call_id = _call_id_of(message, index)
                if call_id is not None and pairing.offer(call_id, (message, index)):
                    self._paired.add(index)
        return pairing

    def conversation(self) -> Conversation:
        """The conversation that the messages make up.

        Raises:
            RelayError: 400, a message cannot be translated, or there is nothing to answer.
        """
        conversation = self._conversation
        in_preamble = True  # only instructions so far
        for index, message in enumerate(paced(self._messages)):
            role = message.role
            if role == "user":
                in_preamble = False
                self._add_user_message(message, index)
            elif role == "assistant":
                in_preamble = False
                self._add_assistant_message(message, index)
            elif role in ("tool", "function"):
                in_preamble = False
                self._add_output(message, index)
            elif role in ("system", "developer"):
                self._add_instructions(message, index, in_preamble=in_preamble)
            else:
                raise unknown_type_error(f"messages[{index}].role", _ROLES)
        if conversation.pending_calls:
            self._answer_calls()
        conversation.finish()
        if not conversation.turns:
            raise invalid_field("messages", "there is nothing in them that the model could answer")
        return conversation

    # --- messages ---

    def _add_user_message(self, message: Message, index: int) -> None:
        conversation = self._conversation
        blocks = content_blocks(
            conversation, message.content, f"messages[{index}].content", self._results
        )
        if message.cache_control is not NOTHING:
            self._mark_last_block(message, blocks, index)
        if conversation.pending_calls:
            self._answer_calls()
        if self._results:  # none of these is of a known call
            for call_id, parts in self._results.items():
                for part, param in paced(parts):
                    conversation.add_orphan(call_id, self._output_of_part(part, param))
            self._results.clear()
        if blocks:
            conversation.user_turn().blocks += blocks
        elif index == len(self._messages) - 1 and (
            not conversation.turns or conversation.turns[-1].assistant
        ):
            raise invalid_field(f"messages[{index}].content", "there is nothing in it to answer")

    def _add_instructions(self, message: Message, index: int, *, in_preamble: bool) -> None:
        """Add a system or developer message: to the system prompt, or as a late instruction."""
        param = f"messages[{index}].content"
        conversation = self._conversation
        blocks = without_blank(
            text_blocks(conversation, message.content, param, is_late_instruction=not in_preamble),
            param,
        )
        if message.cache_control is not NOTHING:
            self._mark_last_block(message, blocks, index)
        if in_preamble:
            conversation.system += blocks
        elif blocks:
            self._answer_calls()
            turn = conversation.user_turn()
            turn.blocks += blocks
            turn.late_instructions += len(blocks)

    def _add_assistant_message(self, message: Message, index: int) -> None:
        param = f"messages[{index}]"
        parts: list[Part] = []
        texts = text_blocks(self._conversation, message.content, f"{param}.content", calls=parts)
        if is_given(message.refusal):
            texts.append(refusal_block(message.refusal, f"{param}.refusal"))
        visible = without_blank(texts, f"{param}.content")
        thinking = _thinking(message, param)
        if not (
            visible or thinking or message.tool_calls or parts or message.function_call is not None
        ):
            return
        turn = self._conversation.assistant_turn()
        calls: list[Block] = []
        if message.tool_calls or parts or message.function_call is not None:
            calls = self._calls(message, parts, param)
        if message.cache_control is not NOTHING:
            # Never on thinking: the API refuses a cache mark there.
            self._mark_last_block(message, calls or visible, index)
        if thinking:
            if not calls and message.cache_control is not NOTHING and visible:
                texts = [visible[-1] if text.text is visible[-1].text else text for text in texts]
            turn.thinking_messages.append(
                (len(turn.blocks), ThinkingMessage(texts, calls, thinking))
            )
        else:
            turn.blocks += visible
            turn.blocks += calls

    # --- calls and their outputs ---

    def _calls(self, message: Message, parts: Sequence[Part], param: str) -> list[Block]:
        """The blocks of a message's calls, in each of the forms that they come in."""
        blocks: list[Block] = []
        for index, call in enumerate(paced(message.tool_calls or ())):
            name, arguments = _named_arguments(call, f"{param}.tool_calls[{index}]")
            blocks.append(self._call(call.id, name, arguments))
        own = {call.id for call in message.tool_calls or ()}
        for part in paced(parts):  # clients that send both forms give the same id in them
            if part.id not in own:
                arguments = part.input if kind(part.input) == "{" else b"{}"
                blocks.append(self._call(part.id, function_name(part.name), arguments))
        function = message.function_call
        if function is not None:
            arguments = call_arguments(function.arguments, f"{param}.function_call.arguments")
            call_id = _function_call_id(function.name)
            blocks.append(self._call(call_id, function_name(function.name), arguments))
        return blocks

    def _call(self, call_id: str, name: str, arguments: Octets) -> Block:
        self._pending_ids.add(call_id)
        return self._conversation.add_call(call_id, name, arguments)

    def _add_output(self, message: Message, index: int) -> None:
        """Take an output. One that belongs to no call becomes part of a user's message."""
        call_id = _call_id_of(message, index)
        if call_id is None:
            raise invalid_field(f"messages[{index}].tool_call_id", "it must be given")
        if index in self._paired:
            if call_id in self._pending_ids:
                self._answer_calls()
            return
        self._answer_calls()
        self._conversation.add_orphan(call_id, self._output(message, index))

    def _answer_calls(self) -> None:
        """End the turn that has called tools."""
        if self._conversation.pending_calls:
            self._pending_ids.clear()
            self._conversation.answer_calls(self._output_of)

    def _output_of(self, call_id: str) -> Output | None:
        if results := self._results.get(call_id):
            return self._output_of_part(*results.popleft())
        taken = self._outputs.take(call_id) if self._outputs is not None else None
        return None if taken is None else self._output(*taken)

    def _output(self, message: Message, index: int) -> Output:
        blocks = content_blocks(self._conversation, message.content, f"messages[{index}].content")
        mark = cache_control(self._conversation, message.cache_control, f"messages[{index}]")
        return Output(blocks, is_error=message.is_error is True, cache=mark)

    def _output_of_part(self, part: Part, param: str) -> Output:
        blocks = content_blocks(self._conversation, part.content, f"{param}.content")
        mark = cache_control(self._conversation, part.cache_control, param)
        return Output(blocks, is_error=part.is_error is True, cache=mark)

    def _mark_last_block(self, message: Message, blocks: list[Block], index: int) -> None:
        """Move a message's own `cache_control`, a LiteLLM extension, to its last block."""
        mark = cache_control(self._conversation, message.cache_control, f"messages[{index}]")
        if blocks and mark is not NOTHING and blocks[-1].cache is NOTHING:
            blocks[-1] = blocks[-1].with_cache(mark)


def _thinking(message: Message, param: str) -> list[Thought]:
    details, blocks = message.reasoning_details, message.thinking_blocks
    specific, content = message.provider_specific_fields, message.reasoning_content
    if details is blocks is specific is content:  # all `NOTHING`, as in most messages
        return []
    return read_thoughts(details, blocks, specific, content, param)


def _call_id_of(message: Message, index: int) -> str | None:
    """The id of the call that an output belongs to."""
    if message.role == "tool":
        return message.tool_call_id
    return _function_call_id(decode_string(message.name, f"messages[{index}].name"))


def _function_call_id(name: str) -> str:
    """An id for calls of the old form `function_call`, which are paired by their names."""
    return f"function_{name}"


def _named_arguments(call: ToolCall, param: str) -> tuple[str, Octets]:
    """The function that a call stands for, and its arguments, a JSON object."""
    if call.type == "custom" and call.custom is not None:
        if kind(call.custom.input) != '"':
            raise invalid_field(f"{param}.custom.input", "it must be given, as a text")
        return function_name(call.custom.name), b"".join((b'{"input":', call.custom.input, b"}"))
    if call.type not in ("function", "custom"):
        raise unknown_type_error(f"{param}.type", ("function", "custom"))
    if call.function is None:
        raise invalid_field(f"{param}.{call.type}", "it must be given")
    arguments = call_arguments(call.function.arguments, f"{param}.function.arguments")
    return function_name(call.function.name), arguments

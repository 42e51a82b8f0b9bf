"""Writes a Messages request from another dialect's, once for each model that it goes to.

A dialect reads a request once; it may be written several times, because models accept different
things and upstreams have their own names for models. Decides where each part of the body stands;
`conversation`, `tools` and `options` decide what it contains. Must not know the dialect. The
octets depend on the request and the `TargetModel` alone. The parts that stay the same from turn
to turn come first, for the prompt cache.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from relay.config import Capabilities
from relay.translate.invalid import invalid_field
from relay.translate.pacing import free, paced
from relay.translate.raw_json import Octets, decode_string, encode_string
from relay.translate.request.block import CONTINUE, Block, as_user_text, text_block, write
from relay.translate.request.conversation import Conversation, Turn, fit_turns
from relay.translate.request.options import GenerationOptions
from relay.translate.request.thinking_replay import THINKING_PREFIXES
from relay.translate.request.tools import Toolset

_USER_HEAD: Final = b'{"role":"user","content":['
_ASSISTANT_HEAD: Final = b'{"role":"assistant","content":['
_SYSTEM_HEAD: Final = b'{"role":"system","content":['


@dataclass(frozen=True, slots=True)
class TargetModel:
    """A model at one upstream."""

    name: str  # the upstream's name for the model
    max_tokens: int  # the most output tokens in an answer
    family: str  # of its thinking blocks, see config.VendorSettings.thinking
    capabilities: Capabilities


class MessagesBuilder:
    """A caller's request, independent of the model."""

    __slots__ = ("_conversation", "_has_thinking", "_options", "_stream", "_tools")

    def __init__(
        self,
        conversation: Conversation,
        tools: Toolset,
        options: GenerationOptions,
        *,
        stream: bool,
    ) -> None:
        self._conversation = conversation
        self._tools = tools
        self._options = options
        self._stream = stream
        self._has_thinking = any(turn.thinking_messages for turn in conversation.turns)

    @property
    def max_tokens(self) -> int | None:
        """The caller's limit of output tokens; None if they set none."""
        return self._options.max_tokens

    @property
    def system_turns(self) -> bool:
        """Whether a late instruction may become a system turn.

        It says yes too often: for some models it becomes a part of a user turn.
        """
        return any(turn.late_instructions for turn in self._conversation.turns)

    def octets(
        self, target: TargetModel, *, breakpoints: bool, user: str | None, counting: bool = False
    ) -> bytes:
        """The body of `POST /v1/messages` for this model.

        Args:
            breakpoints: set prompt-cache marks if the caller has set none at all.
            user: an opaque id of the caller's user; None for no id.
            counting: for `POST /v1/messages/count_tokens`, which accepts fewer members.

        Raises:
            RelayError: 400, the model cannot do this.
        """
        capabilities = target.capabilities
        conversation = self._conversation
        turns, begins_thinking = self._turns_for(target)
        prefill = turns[-1].assistant
        tools, choice = self._tools.render(capabilities, conversation.tool_names)
        # A model that thinks by budget may think in a tool-use turn only if the turn began with
        # thinking, and never with a forced tool (Anthropic API docs, Extended thinking, Preserving
        # thinking blocks and Extended thinking with tool use).
        by_budget = capabilities.thinking == "budget"
        blocked = by_budget and bool(turns[-1].results) and not begins_thinking
        members, instruction = self._options.render(
            capabilities,
            target.max_tokens,
            thinking_excluded=prefill or blocked or (by_budget and self._tools.is_forced),
            counting=counting,
        )
        system = conversation.system
        if instruction:
            system = [*system, text_block(msgspec.Raw(instruction))]
        mark = breakpoints and not conversation.has_cache_marks
        out: list[Octets] = [b'{"model":', encode_string(target.name), members]
        if self._stream and not counting:
            out.append(b',"stream":true')
        if user is not None and not counting:
            out += (b',"metadata":{"user_id":', encode_string(user), b"}")
        if choice:
            out += (b',"tool_choice":', choice)
        if tools:
            out.append(b',"tools":[')
            write(out, tools, mark=mark)
            out.append(b"]")
        if system:
            out.append(b',"system":[')
            write(out, system, mark=mark)
            out.append(b"]")
        out.append(b',"messages":[')
        _write_turns(out, turns, capabilities, mark=mark)
        out.append(b"]}")
        return b"".join(out)

    def free(self) -> None:
        """Free the parts of the request, which cannot be written any more. See `pacing.free`."""
        for turn in paced(self._conversation.turns):
            free(turn.results)
            free(turn.blocks)
        free(self._conversation.turns)

    def _turns_for(self, target: TargetModel) -> tuple[list[Turn], bool]:
        """The turns for a model; whether the assistant's last one begins with thinking."""
        turns, begins_thinking = self._conversation.turns, False
        if self._has_thinking:
            turns, begins_thinking = fit_turns(turns, target.family)
        if turns and turns[-1].assistant:
            turns = _as_prefill(turns)
        if not turns:
            raise invalid_field("messages", "there is nothing in them that the model could answer")
        if turns[-1].assistant and not target.capabilities.prefill:
            turns = [*turns, _continued()]
        return turns, begins_thinking


def _continued() -> Turn:
    """The turn that asks a model to go on which cannot continue a message."""
    turn = Turn(assistant=False)
    turn.blocks.append(text_block(CONTINUE))
    return turn


def _as_prefill(turns: list[Turn]) -> list[Turn]:
    """The turns with the assistant's last one as the API can continue it.

    That is without thinking and without white space at its end.
    """
    last = Turn(assistant=True)
    last.blocks = list(turns[-1].blocks)
    while last.blocks and last.blocks[-1].octets[0] in THINKING_PREFIXES:
        last.blocks.pop()
    if not last.blocks:
        return turns[:-1]
    block = last.blocks[-1]
    if block.text is not None:
        text = decode_string(block.text, "messages")
        if (stripped := text.rstrip()) != text:
            last.blocks[-1] = text_block(msgspec.Raw(encode_string(stripped)), block.cache)
    return [*turns[:-1], last]


def _write_turns(
    out: list[Octets], turns: list[Turn], capabilities: Capabilities, *, mark: bool
) -> None:
    """Append the turns, with cache marks on the last two of the user.

    The first mark finds the cache entry of the previous request; the second one writes the entry
    for the next request.
    """
    first_marked = len(turns)
    if mark:
        users = [number for number, turn in enumerate(turns) if not turn.assistant]
        first_marked = users[-2] if len(users) > 1 else users[0] if users else first_marked
    comma = b""
    for number, turn in enumerate(paced(turns)):
        out.append(comma)
        comma = b","
        blocks = turn.blocks
        if turn.assistant:
            out.append(_ASSISTANT_HEAD)
            write(out, blocks)
            out.append(b"]}")
            continue
        system_turn: list[Block] = []
        if turn.late_instructions:
            if capabilities.system_turns and turn.has_user_content:
                # A system turn must follow a user turn, and an assistant turn must follow it
                # (Anthropic API docs, Mid-conversation system messages).
                system_turn = [block for block in blocks if block.late_instruction]
                blocks = [block for block in blocks if not block.late_instruction]
            else:
                blocks = [
                    as_user_text(block) if block.late_instruction else block for block in blocks
                ]
        out.append(_USER_HEAD)
        write(out, turn.results + blocks, mark=number >= first_marked)
        out.append(b"]}")
        if system_turn:
            out.append(b"," + _SYSTEM_HEAD)
            write(out, system_turn)
            out.append(b"]}")

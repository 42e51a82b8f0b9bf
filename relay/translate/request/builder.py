"""A Messages request on its way from another dialect, written for each model that it goes to.

It is read once, by the reader of its dialect, and may be written several times: what one model
takes another refuses, and upstreams know models by names of their own. Decides where each part
of the body stands; what stands there is decided in `turns`, `toolset` and `wishes`. The octets
depend on the draft and the `TargetModel` alone, and everything that stays the same from turn to
turn
comes before what does not.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from relay.config import Capabilities
from relay.translate.invalid import invalid_field
from relay.translate.raw_json import Octets, decode_string, encode_string
from relay.translate.request.block import Block, as_user_text, text_block, write
from relay.translate.request.conversation import Conversation, Turn, fit_turns
from relay.translate.request.options import GenerationOptions
from relay.translate.request.thinking_replay import THINKING_PREFIXES
from relay.translate.request.tools import Toolset

_USER: Final = b'{"role":"user","content":['
_ASSISTANT: Final = b'{"role":"assistant","content":['
_SYSTEM: Final = b'{"role":"system","content":['


@dataclass(frozen=True, slots=True)
class TargetModel:
    """A model as one upstream has it."""

    name: str  # the upstream's name for the model
    max_tokens: int  # output tokens that an answer may have
    family: str  # of its thinking blocks, see config.Vendor.thinking
    capabilities: Capabilities


class MessagesBuilder:
    """What a caller asked for, as far as it can be said without knowing the model."""

    __slots__ = ("_conversation", "_has_thinking", "_marked", "_options", "_stream", "_tools")

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
        """The most output tokens that the caller wants; None: they do not say."""
        return self._options.max_tokens

    @property
    def system_turns(self) -> bool:
        """Whether there are instructions that a model may take as turns of their own: what they
        follow may yet be another turn, where a model has to do without one between them."""
        return any(turn.late_instructions for turn in self._conversation.turns)

    def octets(
        self, target: TargetModel, *, breakpoints: bool, user: str | None, counting: bool = False
    ) -> bytes:
        """The body of `POST /v1/messages` for this model.

        Args:
            breakpoints: set prompt-cache marks where the caller has set none at all.
            user: an opaque id of the caller's user.
            counting: it is for `POST /v1/messages/count_tokens`, which takes less.

        Raises:
            RelayError: 400, the model cannot do what is asked.
        """
        capabilities = target.capabilities
        conversation = self._conversation
        turns, thinks = conversation.turns, False
        if self._has_thinking:
            turns, thinks = fit_turns(turns, target.family)
        if prefill := bool(turns) and turns[-1].assistant:
            turns = _to_be_continued(turns)
            prefill = bool(turns) and turns[-1].assistant
        if not turns:
            raise invalid_field("messages", "there is nothing in them that the model could answer")
        if prefill and not capabilities.prefill:
            raise invalid_field(
                "messages", "this model cannot continue a message: end with a user message"
            )
        tools, choice = self._tools.render(capabilities, conversation.tool_names)
        # A turn that the model is still in must have begun with thinking, if it is to think on
        # by budget (docs: build-with-claude/extended-thinking, on preserving thinking blocks).
        amid = capabilities.thinking == "budget" and bool(turns[-1].results) and not thinks
        members, instruction = self._options.render(
            capabilities,
            target.max_tokens,
            thinking_excluded=prefill or amid or self._tools.is_forced,
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


def _to_be_continued(turns: list[Turn]) -> list[Turn]:
    """The same with the last turn, the assistant's, as the API lets it be continued: with no
    thinking at its end, and no white space."""
    last = Turn(assistant=True)
    last.blocks = list(turns[-1].blocks)
    while last.blocks and last.blocks[-1].octets[0] in THINKING_PREFIXES:
        last.blocks.pop()
    if not last.blocks:
        return turns[:-1]
    block = last.blocks[-1]
    if block.text is not None:
        words = decode_string(block.text, "messages")
        if (cut := words.rstrip()) != words:
            last.blocks[-1] = text_block(msgspec.Raw(encode_string(cut)), block.cache)
    return [*turns[:-1], last]


def _write_turns(
    out: list[Octets], turns: list[Turn], capabilities: Capabilities, *, mark: bool
) -> None:
    """Append the turns, and cache marks at the user's last two: what the turn before this one
    has written is found there, and the next one finds what this one writes."""
    unmarked = len(turns)
    if mark:
        users = [number for number, turn in enumerate(turns) if not turn.assistant]
        unmarked = users[-2] if len(users) > 1 else users[0] if users else unmarked
    comma = b""
    for number, turn in enumerate(turns):
        out.append(comma)
        comma = b","
        blocks = turn.blocks
        if turn.assistant:
            out.append(_ASSISTANT)
            write(out, blocks)
            out.append(b"]}")
            continue
        asides: list[Block] = []
        if turn.late_instructions:
            if capabilities.system_turns and turn.has_user_content:
                # They may follow a user's turn, and only the assistant's may follow them (docs:
                # build-with-claude/mid-conversation-system-messages).
                asides = [block for block in blocks if block.late_instruction]
                blocks = [block for block in blocks if not block.late_instruction]
            else:
                blocks = [
                    as_user_text(block) if block.late_instruction else block for block in blocks
                ]
        out.append(_USER)
        write(out, turn.results + blocks, mark=number >= unmarked)
        out.append(b"]}")
        if asides:
            out.append(b"," + _SYSTEM)
            write(out, asides)
            out.append(b"]}")

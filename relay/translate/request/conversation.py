"""Arranges messages as the Messages API requires: turns of blocks, each call with its result.

Decides the order: consecutive messages of one role are one turn, and results come first in it.
Late instructions are marked, because not every model accepts them as system turns. Tool calls get
ids that the API accepts. Everything depends on earlier messages alone, so a longer conversation
begins with the same octets, as prompt caches require. Must not know the dialect.
"""

import re
from collections import deque
from typing import Final

from relay.translate.invalid import invalid_field
from relay.translate.pacing import paced
from relay.translate.raw_json import Octets
from relay.translate.request.block import Block
from relay.translate.request.thinking_replay import THINKING_PREFIXES, ThinkingMessage

_INVALID_ID_CHARACTER: Final = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_NAMES: Final = 5  # unanswered calls in an error text


class Turn:
    """The consecutive messages of one side.

    Only the user has `results`. Only the assistant has `thinking_messages`: messages with thinking,
    each with the number of blocks before it.
    """

    __slots__ = ("assistant", "blocks", "late_instructions", "results", "thinking_messages")

    def __init__(self, *, assistant: bool) -> None:
        self.assistant = assistant
        self.results: list[Block] = []
        self.blocks: list[Block] = []
        self.late_instructions = 0  # number of blocks that are late instructions
        self.thinking_messages: list[tuple[int, ThinkingMessage]] = []

    @property
    def has_user_content(self) -> bool:
        """Whether there is more than late instructions, so that they can follow it."""
        return bool(self.results) or len(self.blocks) > self.late_instructions


class Conversation:
    """Messages in, turns out. `system` has the blocks of the system prompt."""

    __slots__ = (
        "_counts",
        "_ids",
        "_open",
        "_open_param",
        "has_cache_marks",
        "system",
        "tool_names",
        "turns",
    )

    def __init__(self) -> None:
        self.system: list[Block] = []
        self.turns: list[Turn] = []
        self.tool_names: dict[str, None] = {}  # tools called so far, in order of first use
        self.has_cache_marks = False  # the caller has set cache marks
        self._ids: set[str] = set()
        self._counts: dict[str, int] = {}
        # The ids that the API gets for calls without a result, by the caller's id. Only calls of
        # the last assistant turn are open, and several may have the same id.
        self._open: dict[str, deque[str]] = {}
        self._open_param = ""

    def user_turn(self) -> Turn:
        """The turn of the user's next message."""
        turns = self.turns
        if not turns or turns[-1].assistant:
            turns.append(Turn(assistant=False))
        return turns[-1]

    def assistant_turn(self) -> Turn:
        """The turn of the assistant's next message.

        Raises:
            RelayError: 400, an earlier call has no result.
        """
        turns = self.turns
        if not turns or not turns[-1].assistant:
            if self._open:
                self._unanswered()
            turns.append(Turn(assistant=True))
        return turns[-1]

    def add_call(self, call_id: str, name: str, arguments: Octets, param: str) -> Block:
        """The block of a tool call with the caller's id; an error about results names `param`."""
        if not self._open:
            self._open_param = param
        api_id = self._unique_id(call_id)
        self._open.setdefault(call_id, deque()).append(api_id)
        self.tool_names[name] = None
        head = f'{{"type":"tool_use","id":"{api_id}","name":"{name}","input":'
        return Block((head.encode(), arguments))

    def take_open_call(self, call_id: str, param: str) -> str:
        """The API's id of the call that a result with this id belongs to.

        If several calls of a turn have the same id, it is the first without a result.

        Raises:
            RelayError: 400, no open call has the id at `param`.
        """
        waiting = self._open.get(call_id)
        if not waiting:
            raise invalid_field(
                param,
                "a message with role 'tool' must be a response to a preceding message with "
                f"'tool_calls', and none of the calls just before it has the id '{call_id[:80]}'",
            )
        api_id = waiting.popleft()
        if not waiting:
            del self._open[call_id]
        return api_id

    def finish(self) -> None:
        """End the conversation.

        Raises:
            RelayError: 400, a call has no result.
        """
        if self._open:
            self._unanswered()

    def _unanswered(self) -> None:
        names = [name[:80] for name, waiting in self._open.items() for _ in waiting]
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        raise invalid_field(
            self._open_param,
            "an assistant message with 'tool_calls' must be followed by a tool message for each "
            f"'tool_call_id'; these did not have response messages: {', '.join(names[:_MAX_NAMES])}"
            + more,
        )

    def _unique_id(self, call_id: str) -> str:
        """An id that the API accepts and that no earlier call has."""
        base = api_id = _INVALID_ID_CHARACTER.sub("_", call_id) or "call"
        count = self._counts.get(base, 1)
        while api_id in self._ids:
            count += 1
            api_id = f"{base}_{count}"
        if count > 1:
            self._counts[base] = count
        self._ids.add(api_id)
        return api_id


def fit_turns(turns: list[Turn], family: str) -> tuple[list[Turn], bool]:
    """The turns for a model of `family`, with its thinking blocks in their places.

    A turn without blocks is left out, and the turns around it become one. The second value is
    whether the assistant's last turn begins with thinking.
    """
    result: list[Turn] = []
    begins_thinking = False
    merged: Turn | None = None  # the last one, if it was made here of several
    for turn in paced(turns):
        if turn.assistant:
            full, begins = _insert_thinking(turn, family)
            if not full.blocks:
                continue
            begins_thinking = begins
            merged = None
            result.append(full)
        elif result and not result[-1].assistant:
            if merged is None:
                merged = Turn(assistant=False)
                _extend(merged, result.pop())
                result.append(merged)
            _extend(merged, turn)
        else:
            merged = None
            result.append(turn)
    return result, begins_thinking


def _insert_thinking(turn: Turn, family: str) -> tuple[Turn, bool]:
    full = Turn(assistant=True)
    thinks = False
    at = 0
    for before, message in paced(turn.thinking_messages):
        full.blocks += turn.blocks[at:before]
        blocks, first = message.blocks_for(family)
        thinks = thinks or (first and not full.blocks)
        full.blocks += blocks
        at = before
    full.blocks += turn.blocks[at:]
    # The API refuses a turn that ends with thinking ("the final block in an assistant message
    # cannot be `thinking`"). Such thinking led to nothing.
    while full.blocks and full.blocks[-1].octets[0] in THINKING_PREFIXES:
        full.blocks.pop()
    return full, thinks and bool(full.blocks)


def _extend(turn: Turn, other: Turn) -> None:
    """Add another user turn's contents."""
    turn.results += other.results
    turn.blocks += other.blocks
    turn.late_instructions += other.late_instructions

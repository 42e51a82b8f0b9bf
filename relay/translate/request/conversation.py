"""A conversation as the Messages API wants it: turns made of blocks, calls paired with results.

This decides what becomes of the order in which another dialect has its messages: consecutive
ones of a role are one turn, results come before all else in theirs, and instructions that came
later are kept apart, for not every model takes them as such. It also gives tool calls ids that
the API takes. All of it depends on nothing but what came before, so a conversation that goes on
begins with the very octets that it had: prompt caches live by that. Which dialect the messages
came in is not known here.
"""

import re
from typing import Final

from relay.translate.invalid import invalid_field
from relay.translate.raw_json import Octets
from relay.translate.request.block import Block
from relay.translate.request.thinking_replay import THINKING_PREFIXES, ThinkingMessage

_NOT_OF_IDS: Final = re.compile(r"[^a-zA-Z0-9_-]")
_NAMES: Final = 5  # of unanswered calls that an error names


class Turn:
    """What one side says until the other one does.

    `results` are the user's alone. `spoken` is the assistant's: messages with thinking, each
    with the number of the blocks that come before it.
    """

    __slots__ = ("assistant", "blocks", "late_instructions", "results", "thinking_messages")

    def __init__(self, *, assistant: bool) -> None:
        self.assistant = assistant
        self.results: list[Block] = []
        self.blocks: list[Block] = []
        self.late_instructions = 0  # how many of the blocks are
        self.thinking_messages: list[tuple[int, ThinkingMessage]] = []

    @property
    def has_user_content(self) -> bool:
        """Whether the user said something of their own, that asides could follow."""
        return bool(self.results) or len(self.blocks) > self.late_instructions


class Conversation:
    """Messages in, turns out. `system` is what stands before all of them."""

    __slots__ = (
        "_counts",
        "_ids",
        "_open",
        "_open_at",
        "has_cache_marks",
        "system",
        "tool_names",
        "turns",
    )

    def __init__(self) -> None:
        self.system: list[Block] = []
        self.turns: list[Turn] = []
        self.tool_names: dict[str, None] = {}  # of the tools called, in order of first use
        self.has_cache_marks = False  # the caller has set cache breakpoints
        self._ids: set[str] = set()
        self._counts: dict[str, int] = {}
        # Calls of the newest assistant's turn that have no result so far: what the API is to
        # know them by, under the caller's id. The same id may have been given to several.
        self._open: dict[str, list[str]] = {}
        self._open_at = ""

    def user_turn(self) -> Turn:
        """The turn that the user's next message belongs to."""
        turns = self.turns
        if not turns or turns[-1].assistant:
            turns.append(Turn(assistant=False))
        return turns[-1]

    def assistant_turn(self) -> Turn:
        """The turn that the assistant's next message belongs to.

        Raises:
            RelayError: 400, there are calls from before that nobody answered.
        """
        turns = self.turns
        if not turns or not turns[-1].assistant:
            if self._open:
                self._unanswered()
            turns.append(Turn(assistant=True))
        return turns[-1]

    def add_call(self, number: str, name: str, arguments: Octets, at: str) -> Block:
        """The block of a tool call with the caller's id for it; `at` is where calls are."""
        if not self._open:
            self._open_at = at
        known = self._known_as(number)
        self._open.setdefault(number, []).append(known)
        self.tool_names[name] = None
        head = f'{{"type":"tool_use","id":"{known}","name":"{name}","input":'
        return Block((head.encode(), arguments))

    def take_open_call(self, number: str, at: str) -> str:
        """What the API knows the call by that the result with this id belongs to.

        Of several calls of one turn with the same id it is the first without a result.

        Raises:
            RelayError: 400, there is no such call; `at` is where the id is.
        """
        waiting = self._open.get(number)
        if not waiting:
            raise invalid_field(
                at,
                "a message with role 'tool' must be a response to a preceding message with "
                f"'tool_calls', and none of the calls just before it has the id '{number[:80]}'",
            )
        known = waiting.pop(0)
        if not waiting:
            del self._open[number]
        return known

    def finish(self) -> None:
        """There are no more messages.

        Raises:
            RelayError: 400, there are calls that nobody answered.
        """
        if self._open:
            self._unanswered()

    def _unanswered(self) -> None:
        names = [name[:80] for name, waiting in self._open.items() for _ in waiting]
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        raise invalid_field(
            self._open_at,
            "an assistant message with 'tool_calls' must be followed by a tool message for each "
            f"'tool_call_id'; these did not have response messages: {', '.join(names[:_NAMES])}"
            + more,
        )

    def _known_as(self, number: str) -> str:
        """An id that the API takes and that no call so far has."""
        base = known = _NOT_OF_IDS.sub("_", number) or "call"
        count = self._counts.get(base, 1)
        while known in self._ids:
            count += 1
            known = f"{base}_{count}"
        if count > 1:
            self._counts[base] = count
        self._ids.add(known)
        return known


def fit_turns(turns: list[Turn], family: str) -> tuple[list[Turn], bool]:
    """The turns as a model of `family` is to have them: their thinking among the blocks.

    A turn of which nothing is left goes, and those around it are one then. Also tells whether
    the last turn of the assistant begins with thinking.
    """
    found: list[Turn] = []
    thinks = False
    for turn in turns:
        if turn.assistant:
            whole, first = _insert_thinking(turn, family)
            if not whole.blocks:
                continue
            thinks = first
            found.append(whole)
        elif found and not found[-1].assistant:
            found.append(_merge(found.pop(), turn))
        else:
            found.append(turn)
    return found, thinks


def _insert_thinking(turn: Turn, family: str) -> tuple[Turn, bool]:
    whole = Turn(assistant=True)
    thinks = False
    at = 0
    for before, message in turn.thinking_messages:
        whole.blocks += turn.blocks[at:before]
        blocks, first = message.blocks_for(family)
        thinks = thinks or (first and not whole.blocks)
        whole.blocks += blocks
        at = before
    whole.blocks += turn.blocks[at:]
    # A turn cannot end with thinking (the API: "the final block in an assistant message cannot be
    # `thinking`"): what was thought there led to nothing.
    while whole.blocks and whole.blocks[-1].octets[0] in THINKING_PREFIXES:
        whole.blocks.pop()
    return whole, thinks and bool(whole.blocks)


def _merge(first: Turn, second: Turn) -> Turn:
    turn = Turn(assistant=False)
    turn.results = first.results + second.results
    turn.blocks = first.blocks + second.blocks
    turn.late_instructions = first.late_instructions + second.late_instructions
    return turn

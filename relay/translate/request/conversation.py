"""Arranges messages as the Messages API requires: turns of blocks, each call with its result.

Decides the order: consecutive messages of one role are one turn, and results come first in it.
Late instructions are marked, because not every model accepts them as system turns. Tool calls get
ids that the API accepts, and a call without an output gets a result that says so: a person cannot
edit the history that their client keeps. Everything depends on earlier messages alone, so a longer
conversation begins with the same octets, as prompt caches require. Must not know the dialect.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

from relay.translate.pacing import paced
from relay.translate.raw_json import NOTHING, Octets, encode_string, string_content
from relay.translate.request.block import Block, text_block, write
from relay.translate.request.thinking_replay import THINKING_PREFIXES, ThinkingMessage
from relay.translate.request.tool_names import plain_name

T = TypeVar("T")

_MAX_ID_CHARACTERS: Final = 1024  # the API states no bound, and clients keep signatures in ids
_SHOWN_ID_CHARACTERS: Final = 80
_RESULT: Final = b'{"type":"tool_result","tool_use_id":"%b"'
_NO_OUTPUT: Final = (
    b',"content":',
    encode_string("This call has no output: it did not run, or was interrupted."),
    b',"is_error":true',
)


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


class Output:
    """What a tool call gave: blocks, whether they are an error, and the caller's cache mark."""

    __slots__ = ("blocks", "cache", "is_error")

    def __init__(
        self, blocks: list[Block], *, is_error: bool = False, cache: msgspec.Raw = NOTHING
    ) -> None:
        self.blocks = blocks
        self.is_error = is_error
        self.cache = cache

    def octets(self) -> tuple[Octets, ...]:
        """The members of a result."""
        octets: list[Octets] = []
        if self.blocks:
            octets.append(b',"content":[')
            write(octets, self.blocks)
            octets.append(b"]")
        if self.is_error:
            octets.append(b',"is_error":true')
        return tuple(octets)


class Pairing(Generic[T]):
    """Which output belongs to which call, wherever they stand.

    The first call with an id gets the first output with that id, the second call the second
    output, and so on. Count all calls first, then offer all outputs.
    """

    __slots__ = ("_calls", "_outputs")

    def __init__(self) -> None:
        self._calls: dict[str, int] = {}
        self._outputs: dict[str, deque[T]] = {}

    def count_call(self, call_id: str) -> None:
        """There is a call with this id."""
        self._calls[call_id] = self._calls.get(call_id, 0) + 1

    def offer(self, call_id: str, output: T) -> bool:
        """Whether an output belongs to a call."""
        if not self._calls.get(call_id):
            return False
        self._calls[call_id] -= 1
        self._outputs.setdefault(call_id, deque()).append(output)
        return True

    def take(self, call_id: str) -> T | None:
        """The output of the next call with this id."""
        outputs = self._outputs.get(call_id)
        return outputs.popleft() if outputs else None


class Conversation:
    """Messages in, turns out. `system` has the blocks of the system prompt."""

    __slots__ = (
        "_counts",
        "_ids",
        "has_cache_marks",
        "pending_calls",
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
        # Calls of the last turn without a result yet: the caller's id, the API's id. They are
        # answered before a user's turn.
        self.pending_calls: list[tuple[str, str]] = []

    def user_turn(self) -> Turn:
        """The turn of the user's next message."""
        turns = self.turns
        if not turns or turns[-1].assistant:
            turns.append(Turn(assistant=False))
        return turns[-1]

    def assistant_turn(self) -> Turn:
        """The turn of the assistant's next message: the same one until its calls are answered."""
        turns = self.turns
        if not turns or not turns[-1].assistant:
            turns.append(Turn(assistant=True))
        return turns[-1]

    def add_call(self, call_id: str, name: str, arguments: Octets) -> Block:
        """The block of a tool call with the caller's id."""
        api_id = self._unique_id(call_id)
        self.pending_calls.append((call_id, api_id))
        self.tool_names[name] = None
        head = f'{{"type":"tool_use","id":"{api_id}","name":"{name}","input":'
        return Block((head.encode(), arguments))

    def answer_calls(self, output_of: Callable[[str], Output | None]) -> None:
        """Give each pending call its result; `output_of` gets the caller's id of the call."""
        pending, self.pending_calls = self.pending_calls, []
        for call_id, api_id in paced(pending):
            output = output_of(call_id)
            members = _NO_OUTPUT if output is None else output.octets()
            cache = NOTHING if output is None else output.cache
            result = Block((_RESULT % api_id.encode(), *members), cache)
            self.user_turn().results.append(result)

    def add_orphan(self, call_id: str, output: Output) -> None:
        """Add an output that belongs to no call, as a part of a user's message."""
        shown = string_content(encode_string(call_id[:_SHOWN_ID_CHARACTERS]))
        pieces = (b'"Output of the call ', shown, b', which is not known here:"')
        introduction = text_block(msgspec.Raw(b"".join(pieces)))
        self.user_turn().blocks += [introduction, *output.blocks]

    def finish(self) -> None:
        """End the conversation. Instructions alone are the user's words."""
        if not self.turns and self.system:
            self.user_turn().blocks, self.system = self.system, []

    def _unique_id(self, call_id: str) -> str:
        """An id that the API accepts and that no earlier call has."""
        base = api_id = plain_name(call_id, _MAX_ID_CHARACTERS) or "call"
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

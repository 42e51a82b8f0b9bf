"""Conversations that are elsewhere than their hash says, as several machines share them.

All machines look for a conversation at the upstream that `rendezvous` gives. One that another
upstream had to serve has its prompt cache there, so this machine sends the move to the others: once
when it happens, and again when its binding would be over elsewhere. They know it for half as long
again, so that a slow conversation is not sent at each turn. Of two machines that hold a
conversation at the same time, the later one decides. Nothing waits for any of this.

Decides which moves are shared, a bounded number of a key and in all: the rest costs a prompt cache.
Moves of other machines do not count in it. Must not know how moves travel, nor routes.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from time import monotonic
from typing import Final

from relay.cluster.states import Move
from relay.pool.affinity import Binding, Bindings, Conversation

_MAX_MOVES: Final = 20_000
_MAX_MOVES_OF_A_KEY: Final = 500
_MAX_FOREIGN_MOVES: Final = 100_000
_BATCH: Final = 500
_LONGER: Final = 0.5  # by which the others know a binding longer than it lasts


class _Known:
    """Moves as the others know them, the oldest first, and their number by key; `limit` in all."""

    def __init__(self, limit: int) -> None:
        self.moves: OrderedDict[Conversation, Binding] = OrderedDict()
        self.numbers: Counter[str] = Counter()
        self._limit = limit

    def note(self, conversation: Conversation, binding: Binding) -> None:
        """Call `expired` first. The conversation is not known yet."""
        self.moves[conversation] = binding
        self.numbers[conversation[0]] += 1

    def forget(self, conversation: Conversation) -> None:
        """The conversation may be unknown."""
        if self.moves.pop(conversation, None) is not None:
            caller = conversation[0]
            self.numbers[caller] -= 1
            if not self.numbers[caller]:
                del self.numbers[caller]

    def expired(self, now: float) -> Conversation | None:
        """The oldest move if it is over or has to make room for another one."""
        oldest = next(iter(self.moves), None)
        if oldest is None or (len(self.moves) < self._limit and self.moves[oldest].until > now):
            return None
        return oldest


class SessionMoves:
    """See the module, and `relay.cluster.states.Sessions`."""

    def __init__(
        self,
        bindings: Bindings,
        wake: Callable[[], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`wake` lets what is here be sent soon."""
        self._bindings = bindings
        self._wake = wake
        self._clock = clock
        self._own = _Known(_MAX_MOVES)  # found here
        self._foreign = _Known(_MAX_FOREIGN_MOVES)
        self._waiting: dict[Conversation, Binding] = {}
        bindings.on_moved = self._moved

    def _moved(self, conversation: Conversation, binding: Binding) -> None:
        own = self._own.moves.get(conversation)
        known = own or self._foreign.moves.get(conversation)
        if known is not None and known.agrees_with(binding) and binding.until <= known.until:
            return
        if own is None and self._own.numbers[conversation[0]] >= _MAX_MOVES_OF_A_KEY:
            return
        until = binding.until + (binding.until - binding.since) * _LONGER
        shown = Binding(
            binding.upstream, binding.family, binding.mixed, until, binding.since, binding.moved
        )
        self._note(self._own, conversation, shown)
        self._waiting[conversation] = shown
        self._wake()

    def _note(self, place: _Known, conversation: Conversation, binding: Binding) -> None:
        """The others know this binding; those that are over are forgotten, the oldest first."""
        now = self._clock()
        self._forget(conversation)
        for _ in range(2):  # so that the number falls
            oldest = place.expired(now)
            if oldest is not None:
                self._forget(oldest)
        place.note(conversation, binding)

    def _forget(self, conversation: Conversation) -> None:
        self._own.forget(conversation)
        self._foreign.forget(conversation)
        self._waiting.pop(conversation, None)

    # --- to the others ---

    def take_moves(self) -> list[Move]:
        """See `Sessions`."""
        now = self._clock()
        moves = []
        for conversation in list(islice(self._waiting, _BATCH)):
            one = self._waiting.pop(conversation)
            left, age = int((one.until - now) * 1000), max(0, int((now - one.since) * 1000))
            if left > 0:
                caller, key = conversation
                moves.append(
                    Move(caller, key, one.upstream, one.family, one.mixed, one.moved, left, age)
                )
        return moves

    def put_back(self, moves: Sequence[Move]) -> None:
        """See `Sessions`."""
        for move in moves:
            conversation = (move.caller, move.key)
            if conversation in self._own.moves:
                self._waiting.setdefault(conversation, self._own.moves[conversation])

    # --- from the others ---

    def take(self, moves: Sequence[Move]) -> None:
        """See `Sessions`."""
        now = self._clock()
        for move in moves:
            conversation = (move.caller, move.key)
            binding = Binding(
                move.upstream, move.family, move.mixed, now + move.left / 1000,
                now - move.age / 1000, move.moved,
            )  # fmt: skip
            present = self._bindings.get(conversation)
            if present is None or present.until <= now or present.since < binding.since:
                self._note(self._foreign, conversation, binding)
                self._bindings.adopt(conversation, binding)
            elif present.upstream != binding.upstream:  # it was held here later
                self._note(self._foreign, conversation, binding)
                self._moved(conversation, present)

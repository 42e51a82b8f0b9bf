"""Conversations that are elsewhere than their hash says, as several machines share them.

All machines look for a conversation at the upstream that `rendezvous` gives. One that another
upstream had to serve has its prompt cache there, so the others are told: once when it moves, and
again when its binding would be over elsewhere. They know it for half as long again, so that a slow
conversation is not told of at each turn. Of two machines that hold a conversation at the same time,
the later one decides. Nothing waits for any of this.

Decides which moves are shared, a bounded number of a key and in all: the rest costs a prompt cache.
Must not know how they travel, nor routes.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

from relay.cluster.states import Move
from relay.pool.affinity import Binding, Bindings, Conversation

_MAX_MOVES: Final = 20_000
_MAX_MOVES_OF_A_KEY: Final = 500
_BATCH: Final = 500
_LONGER: Final = 0.5  # by which the others know a binding longer than it lasts


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
        self._known: dict[Conversation, Binding] = {}  # as the others know them, the oldest first
        self._numbers: Counter[str] = Counter()  # of these, by key
        self._waiting: dict[Conversation, Binding] = {}
        bindings.on_moved = self._moved

    def _moved(self, conversation: Conversation, binding: Binding) -> None:
        known = self._known.get(conversation)
        if known is not None:
            if _is_same(known, binding) and binding.until <= known.until:
                return
        elif self._numbers[conversation[0]] >= _MAX_MOVES_OF_A_KEY:
            return
        until = binding.until + (binding.until - binding.since) * _LONGER
        shown = Binding(
            binding.upstream, binding.family, binding.mixed, until, binding.since, binding.moved
        )
        self._note(conversation, shown)
        self._waiting[conversation] = shown
        self._wake()

    def _note(self, conversation: Conversation, binding: Binding) -> None:
        """The others know this binding; those that are over are forgotten, the oldest first."""
        known, now = self._known, self._clock()
        if conversation in known:
            self._forget(conversation)
        known[conversation] = binding
        self._numbers[conversation[0]] += 1
        for _ in range(2):  # so that the number falls
            oldest = next(iter(known))
            if len(known) > _MAX_MOVES or known[oldest].until <= now:
                self._forget(oldest)

    def _forget(self, conversation: Conversation) -> None:
        del self._known[conversation]
        self._waiting.pop(conversation, None)
        caller = conversation[0]
        self._numbers[caller] -= 1
        if not self._numbers[caller]:
            del self._numbers[caller]

    # --- to the others ---

    def take_moves(self) -> list[Move]:
        """See `Sessions`."""
        now = self._clock()
        moves = []
        for conversation in list(self._waiting)[:_BATCH]:
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
            if conversation in self._known:
                self._waiting.setdefault(conversation, self._known[conversation])

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
                self._note(conversation, binding)
                self._bindings.adopt(conversation, binding)
            elif present.upstream != binding.upstream:  # it was held here later
                self._note(conversation, binding)
                self._moved(conversation, present)


def _is_same(one: Binding, other: Binding) -> bool:
    return (one.upstream, one.family, one.mixed, one.moved) == (
        other.upstream, other.family, other.mixed, other.moved,
    )  # fmt: skip

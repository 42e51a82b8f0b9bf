"""Session affinity: the upstream of a conversation, and whose thinking is in its history.

A conversation that stays with its upstream finds its prompt cache there. So a binding lasts as
long as the cache, and moves when another upstream had to answer. The family outlives the binding:
the thinking that it signed is still in the history that the client sends.

Decides nothing about routing. Must not read a clock: the present time is an argument.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeAlias

Conversation: TypeAlias = tuple[str, bytes]  # the caller's id and the conversation's key


class Binding:
    """The upstream of one conversation; each `hold` replaces it. Immutable.

    `family` is the family of its latest upstream; `mixed`: there was another one before.
    `until` is the second at which the binding to `upstream` ends, `since` the latest `hold`.
    `moved`: other machines would choose another upstream.
    """

    __slots__ = ("family", "mixed", "moved", "since", "until", "upstream")

    def __init__(
        self, upstream: str, family: str, mixed: bool, until: float, since: float,
        moved: bool = False,
    ) -> None:  # fmt: skip
        self.upstream = upstream
        self.family = family
        self.mixed = mixed
        self.until = until
        self.since = since
        self.moved = moved

    def agrees_with(self, other: "Binding") -> bool:
        """Whether they differ in their moments alone."""
        return (self.upstream, self.family, self.mixed, self.moved) == (
            other.upstream, other.family, other.mixed, other.moved,
        )  # fmt: skip


class Bindings:
    """The bindings of all callers, by caller id and conversation key.

    Keeps at most `capacity` of them and evicts the least recently held. A binding lasts `keep`
    seconds from the latest `hold`, or `keep_long` with the one-hour cache, rounded up to a full
    second. The family is known for `keep_long` seconds more. `on_held`, if there is one, gets each
    conversation that was held, with its earlier binding and the present one. `on_moved` gets each
    that has moved, back to where others look for it, too, or is held where it has moved to.
    """

    def __init__(self, keep: float, keep_long: float = 3600.0, capacity: int = 100_000) -> None:
        self._keep = keep
        self._keep_long = keep_long
        self._capacity = capacity
        # By the latest `hold`. An OrderedDict pops its first entry in constant time; a plain
        # dict steps over all entries that were popped before.
        self._bindings: OrderedDict[Conversation, Binding] = OrderedDict()
        self._expiries: dict[str, dict[float, int]] = {}  # upstream → until → bindings
        self.on_held: Callable[[Conversation, Binding | None, Binding], None] | None = None
        self.on_moved: Callable[[Conversation, Binding], None] | None = None
        self._latest = -math.inf  # the latest moment that was given, for the repr

    def __len__(self) -> int:
        return len(self._bindings)

    def __repr__(self) -> str:
        counts = self.counts(self._latest)
        live = ", ".join(f"{number} with {name}" for name, number in sorted(counts.items()))
        return f"<Bindings {len(self)} of at most {self._capacity}: {live or 'none bound'}>"

    def keep_for(self, seconds: float) -> None:
        """Let bindings last so long from their next `hold` on."""
        self._keep = seconds

    def find(self, caller: str, key: bytes, now: float) -> Binding | None:
        """A conversation's latest binding, which may have ended (`until`)."""
        binding = self._bindings.get((caller, key))
        if binding is None or binding.until + self._keep_long <= now:
            return None
        return binding

    def hold(
        self,
        conversation: Conversation,
        upstream: str,
        family: str,
        now: float,
        long: bool = False,
        moved: bool | None = None,
    ) -> None:
        """Bind a conversation to an upstream, or extend its binding.

        It becomes `mixed` if `family` differs from the one before, and stays so. `moved`: see
        `Binding`; None: as before.
        """
        if now > self._latest:
            self._latest = now
        until = math.ceil(now + (self._keep_long if long else self._keep))
        mixed = False
        previous = self._bindings.get(conversation)
        if previous is not None:
            if previous.until + self._keep_long > now:
                mixed = previous.mixed or previous.family != family
            if moved is None:
                moved = previous.moved
        binding = Binding(upstream, family, mixed, until, now, moved is True)
        self._replace(conversation, previous, binding)
        if self.on_held is not None:
            self.on_held(conversation, previous, binding)

    def adopt(self, conversation: Conversation, binding: Binding) -> None:
        """Hold a conversation where another machine holds it."""
        previous = self._bindings.get(conversation)
        self._replace(conversation, previous, binding)
        if self.on_held is not None:
            self.on_held(conversation, previous, binding)

    def put(self, conversation: Conversation, binding: Binding) -> None:
        """Take over the binding of another process."""
        self._replace(conversation, self._bindings.get(conversation), binding)

    def _replace(
        self, conversation: Conversation, previous: Binding | None, binding: Binding
    ) -> None:
        if previous is not None:
            self._release(previous)
            self._bindings.move_to_end(conversation)
        elif len(self._bindings) >= self._capacity:
            self._release(self._bindings.popitem(last=False)[1])
        self._bindings[conversation] = binding
        expiries = self._expiries.get(binding.upstream)
        if expiries is None:
            expiries = self._expiries[binding.upstream] = {}
        expiries[binding.until] = expiries.get(binding.until, 0) + 1
        if self.on_moved is not None and (
            binding.moved or (previous is not None and previous.moved)
        ):
            self.on_moved(conversation, binding)

    def get(self, conversation: Conversation) -> Binding | None:
        """A conversation's latest binding, which may be over."""
        return self._bindings.get(conversation)

    def conversations(self) -> list[Conversation]:
        """All, by the latest `hold`."""
        return list(self._bindings)

    def is_known(self, binding: Binding, now: float) -> bool:
        """Whether its family is still of use."""
        return binding.until + self._keep_long > now

    def counts(self, now: float) -> dict[str, int]:
        """Number of live bindings of each upstream; an upstream without any is left out."""
        live = {
            upstream: sum(number for until, number in expiries.items() if until > now)
            for upstream, expiries in self._expiries.items()
        }
        return {upstream: number for upstream, number in live.items() if number}

    def sweep(self, now: float, limit: int = 500) -> None:
        """Remove at most `limit` expired bindings, the least recently held first.

        A binding that lasts longer hides those after it, for an hour at most: they occupy
        memory until then, but are not found.
        """
        if now > self._latest:
            self._latest = now
        bindings = self._bindings
        for _ in range(limit):
            if not bindings:
                return
            conversation = next(iter(bindings))
            if bindings[conversation].until + self._keep_long > now:
                return
            self._release(bindings.pop(conversation))

    def _release(self, binding: Binding) -> None:
        expiries = self._expiries[binding.upstream]
        remaining = expiries[binding.until] - 1
        if remaining:
            expiries[binding.until] = remaining
        else:
            del expiries[binding.until]

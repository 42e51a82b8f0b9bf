"""Which upstream a conversation is with, and whose thinking is in its history.

A conversation that stays with its upstream finds its prompt cache there, so the binding lasts
as long as the cache does, and moves with the conversation when another upstream had to answer.
The family outlives it: what it signed is still in the history that the client sends. This
decides nothing: whom to bind to is the caller's choice, and time comes in as an argument.
"""

import math
from collections import OrderedDict

import msgspec


class Session(msgspec.Struct, frozen=True, gc=False):
    """One conversation's state at one moment; another `hold` makes another one.

    `family` is that of the upstream it was last with, `mixed` whether there ever was another.
    `until` is the whole second at which the binding to `upstream` is over.
    """

    upstream: str
    family: str
    mixed: bool
    until: float


class Sessions:
    """The conversations of all callers, each found by its caller's id and its key.

    At most `most` are known: those held longest ago go first. A binding lasts `keep` seconds
    from the last `hold`, or `keep_long` where the one-hour cache is in use, rounded up to a
    whole second; what family it was with is known for `keep_long` after that.
    """

    def __init__(self, keep: float, keep_long: float = 3600.0, most: int = 100_000) -> None:
        self._keep = keep
        self._keep_long = keep_long
        self._most = most
        # By last `hold`. A plain dict would do, but for taking the first one out of it again
        # and again, where it steps over all that have been taken before.
        self._sessions: OrderedDict[tuple[str, bytes], Session] = OrderedDict()
        self._endings: dict[str, dict[float, int]] = {}  # upstream → until → how many
        self._now = -math.inf  # the latest moment that was told, for the repr

    def __len__(self) -> int:
        return len(self._sessions)

    def __repr__(self) -> str:
        counts = self.counts(self._now)
        live = ", ".join(f"{number} with {name}" for name, number in sorted(counts.items()))
        return f"<Sessions {len(self)} of at most {self._most}: {live or 'none bound'}>"

    def find(self, caller: str, key: bytes, now: float) -> Session | None:
        """What is known of a session; its binding may be over (`until`)."""
        session = self._sessions.get((caller, key))
        if session is None or session.until + self._keep_long <= now:
            return None
        return session

    def hold(
        self, caller: str, key: bytes, upstream: str, family: str, now: float, long: bool = False
    ) -> None:
        """Bind a session to an upstream from now on, or bind it for longer.

        It becomes `mixed` where `family` is not the one it was with before, and stays so.
        """
        if now > self._now:
            self._now = now
        name = (caller, key)
        until = math.ceil(now + (self._keep_long if long else self._keep))
        mixed = False
        last = self._sessions.get(name)
        if last is not None:
            self._release(last)
            if last.until + self._keep_long > now:
                mixed = last.mixed or last.family != family
            self._sessions.move_to_end(name)
        elif len(self._sessions) >= self._most:
            self._release(self._sessions.popitem(last=False)[1])
        self._sessions[name] = Session(upstream, family, mixed, until)
        endings = self._endings.get(upstream)
        if endings is None:
            endings = self._endings[upstream] = {}
        endings[until] = endings.get(until, 0) + 1

    def counts(self, now: float) -> dict[str, int]:
        """How many sessions are bound to each upstream; none of those without any."""
        live = {
            upstream: sum(number for until, number in endings.items() if until > now)
            for upstream, endings in self._endings.items()
        }
        return {upstream: number for upstream, number in live.items() if number}

    def sweep(self, now: float, most: int = 500) -> None:
        """Forget what is over, at most so many.

        Those held longest ago are looked at first, and one that lasts longer hides those after
        it, by an hour at most: they take room till then, but are not found.
        """
        if now > self._now:
            self._now = now
        sessions = self._sessions
        for _ in range(most):
            if not sessions:
                return
            name = next(iter(sessions))
            if sessions[name].until + self._keep_long > now:
                return
            self._release(sessions.pop(name))

    def _release(self, session: Session) -> None:
        endings = self._endings[session.upstream]
        left = endings[session.until] - 1
        if left:
            endings[session.until] = left
        else:
            del endings[session.until]

"""Session affinity and threads that several processes share.

A conversation's next request may reach any of them. A new or moved binding is sent at once. One
that is extended is sent only shortly before it would be over elsewhere, so a long conversation
costs a message for each lifetime of its binding. Of two processes that hold a conversation at the
same time, the later one decides.

Decides what is sent. Must not know the link.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar

from relay.pool.affinity import Binding, Bindings, Conversation
from relay.pool.threads import Threads

_AHEAD_SECONDS: Final = 5.0  # before a binding would be over elsewhere
_FAMILY_SECONDS: Final = 1800.0  # for which a family is known elsewhere at least
_PIECE: Final = 500  # values in a message

Row = Sequence[Any]  # of builtins
_Value = TypeVar("_Value")


class _Batch(Generic[_Value]):
    """Values of one turn of the loop, sent at its end in pieces."""

    def __init__(self, send: Callable[[list[_Value]], None]) -> None:
        self._send = send
        self._values: list[_Value] = []
        self._loop = asyncio.get_running_loop()

    def add(self, value: _Value) -> None:
        if not self._values:
            self._loop.call_soon(self._flush)
        self._values.append(value)

    def _flush(self) -> None:
        values, self._values = self._values, []
        for piece in pieces(values):
            self._send(piece)


class SharedBindings:
    """The bindings of this process, `send(rows)` sends some of them to the others. `is_sticky`:
    bindings are in use, not only the families that they tell of."""

    def __init__(
        self,
        bindings: Bindings,
        send: Callable[[list[Row]], None],
        is_sticky: Callable[[], bool],
    ) -> None:
        self._bindings = bindings
        self._is_sticky = is_sticky
        # Extended here: until when the others know them.
        self._extended: dict[Conversation, float] = {}
        self._due: dict[int, list[Conversation]] = {}  # by the second at which to send them
        self._sent_until = 0  # the second up to which that is done
        self._news = _Batch(send)
        bindings.on_held = self._on_held

    def conversations(self) -> list[Conversation]:
        """Those that a new process is to know, if they are not over."""
        return self._bindings.conversations()

    def row(self, conversation: Conversation, now: float) -> Row | None:
        """A binding by value; None: it is over."""
        binding = self._bindings.get(conversation)
        if binding is None or not self._bindings.is_known(binding, now):
            return None
        return _row(conversation, binding)

    def take(self, rows: Iterable[Row]) -> list[Row]:
        """Bindings of another process; returns those that are new here."""
        news = []
        for row in rows:
            caller, key, upstream, family, mixed, until, since, moved = row
            conversation = (caller, key)
            binding = Binding(upstream, family, mixed, until, since, moved)
            present = self._bindings.get(conversation)
            if present is None or (present.since, present.upstream) < (since, upstream):
                self._bindings.put(conversation, binding)
                self._extended.pop(conversation, None)
                news.append(row)
            elif present.upstream != upstream:
                self._news.add(_row(conversation, present))
        return news

    def send_due(self, now: float) -> None:
        """Send extended bindings that would soon be over elsewhere."""
        present = int(now)
        if present == self._sent_until:
            return
        self._sent_until = present
        for second in [one for one in self._due if one <= present]:
            for conversation in self._due.pop(second):
                known = self._extended.pop(conversation, None)
                binding = self._bindings.get(conversation)
                if binding is not None and known is not None and binding.until > known:
                    self._news.add(_row(conversation, binding))

    def _on_held(
        self, conversation: Conversation, previous: Binding | None, binding: Binding
    ) -> None:
        if previous is not None and previous.agrees_with(binding):
            known = self._extended.get(conversation, previous.until)
            due = self._sending_at(known)
            if due > binding.since and known <= binding.until:
                if conversation not in self._extended:
                    self._extended[conversation] = known
                    self._due.setdefault(int(due), []).append(conversation)
                return
        self._extended.pop(conversation, None)
        self._news.add(_row(conversation, binding))

    def _sending_at(self, known: float) -> float:
        """When to send a binding that the others know until then."""
        return known - _AHEAD_SECONDS if self._is_sticky() else known + _FAMILY_SECONDS


class SharedThreads:
    """The threads of this process; `send(rows)` sends the new ones to the others."""

    def __init__(self, threads: Threads, send: Callable[[list[Row]], None]) -> None:
        self._threads = threads
        self._news: _Batch[Row] = _Batch(send)
        threads.on_remembered = lambda *row: self._news.add(row)

    def rows(self) -> list[Row]:
        """All of them, the oldest first."""
        return list(self._threads.messages())

    def take(self, rows: Iterable[Row]) -> None:
        """Threads of another process."""
        for account, id, upstream in rows:
            self._threads.put(account, id, upstream)


def pieces(values: Sequence[_Value]) -> Iterator[list[_Value]]:
    """The values in messages of bounded size."""
    for begin in range(0, len(values), _PIECE):
        yield list(values[begin : begin + _PIECE])


def _row(conversation: Conversation, binding: Binding) -> Row:
    return (
        *conversation, binding.upstream, binding.family, binding.mixed, binding.until,
        binding.since, binding.moved,
    )  # fmt: skip

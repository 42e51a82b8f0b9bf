"""Lets long work on one request pause from time to time.

The readers and writers of requests wrap their loops over a request's parts in `paced`. For most
requests it does nothing. A large request is worked on in a thread, which must leave the event loop
its turns: there every few parts call the function that `run` was given.

Decides after how many parts a pause is due. Must not know threads or clocks.
"""

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Final, TypeVar

T = TypeVar("T")

_PARTS_PER_TURN: Final = 64  # a part takes 1 to 5 µs
_FREED_AT_ONCE: Final = 16


class _Pacer:
    """Counts the parts of all loops of one piece of work."""

    __slots__ = ("_left", "_pause")

    def __init__(self, pause: Callable[[], None]) -> None:
        self._pause = pause
        self._left = _PARTS_PER_TURN

    def over(self, parts: Iterable[T], cost: int = 1) -> Iterator[T]:
        for part in parts:
            self._left -= cost
            if self._left < 0:
                self._left = _PARTS_PER_TURN
                self._pause()
            yield part


_current: Final[ContextVar[_Pacer | None]] = ContextVar("pacer", default=None)


def paced(parts: Iterable[T], *, large: bool = False) -> Iterable[T]:
    """The same parts, with pauses between them if this work has any.

    `large`: work on each takes a millisecond or more, so that a pause is due after each.
    """
    pacer = _current.get()
    if pacer is None:
        return parts
    return pacer.over(parts, _PARTS_PER_TURN) if large else pacer.over(parts)


def free(parts: list[T]) -> None:
    """Free the parts, with pauses between them if this work has any; the list is empty then.

    Without pauses they are left to whoever drops the list.
    """
    pacer = _current.get()
    if pacer is not None:
        for start in pacer.over(range(len(parts), 0, -_FREED_AT_ONCE)):
            del parts[max(0, start - _FREED_AT_ONCE) :]


def run(work: Callable[[], T], pause: Callable[[], None]) -> T:
    """Do the work; `pause` is called every few parts, and decides whether to wait."""
    token = _current.set(_Pacer(pause))
    try:
        return work()
    finally:
        _current.reset(token)

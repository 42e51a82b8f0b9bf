"""Work on large requests, beside the event loop.

Reading a body of many MiB, or of many elements, takes up to half a second, and no other request may
wait for that. Such work runs on a thread. Python runs one thread at a time, so the thread rests as
long as it works, a millisecond at a time: `translate.pacing` calls it back between the parts of a
request.

Decides which requests are large. Must not know what is done with them.
"""

from collections.abc import Callable
from functools import partial
from time import perf_counter, sleep
from typing import Final, TypeVar

from relay.store.executor import ThreadExecutor
from relay.translate import pacing
from relay.translate.elements import check_elements, is_light
from relay.translate.messages.peek import RequestSummary, peek
from relay.wire.encoding import decoded, decoded_if_small

T = TypeVar("T")

LARGE_OCTETS: Final = 48 * 1024  # reading fewer takes 40 ms at most, of whatever elements
_TURN_SECONDS: Final = 0.001
_MAX_REST_SECONDS: Final = 0.02

_threads: Final[dict[str, ThreadExecutor]] = {}


def is_heavy(body: bytes) -> bool:
    """Whether work on a body of more than LARGE_OCTETS must not run on the event loop."""
    return not is_light(body)


async def in_turns(work: Callable[[], T]) -> T:
    """Do work on a large request on its thread, after earlier such work.

    A caller that is cancelled stops waiting; the work ends all the same.

    Raises:
        BaseException: `work` raised it.
    """
    return await _thread("reading").call(partial(_in_turns, work))


async def unfolded(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The body that was compressed so, at most `limit` octets.

    Raises:
        RelayError: 400, 413 or 415.
    """
    if len(body) <= LARGE_OCTETS:
        small = decoded_if_small(body, encoding, LARGE_OCTETS)
        if small is not None:
            return small
    return await _thread("unfolding").call(partial(decoded, body, encoding, limit))


def peek_at_large(body: bytes) -> RequestSummary:
    """What `peek` reads of a large body, if it has no more elements than are read here.

    Raises:
        RelayError: 413, it has more; 400, see `peek`.
    """
    check_elements(body)
    return peek(body)


def _in_turns(work: Callable[[], T]) -> T:
    return pacing.run(work, _Turns().pause)


def _thread(name: str) -> ThreadExecutor:
    """The thread for one kind of work, started with the first of it."""
    thread = _threads.get(name)
    if thread is None:
        thread = _threads[name] = ThreadExecutor(name)
    return thread


class _Turns:
    """Rests after each turn for as long as it took."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since = perf_counter()

    def pause(self) -> None:
        passed = perf_counter() - self._since
        if passed >= _TURN_SECONDS:
            sleep(min(passed, _MAX_REST_SECONDS))
            self._since = perf_counter()

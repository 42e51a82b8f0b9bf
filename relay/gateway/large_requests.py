"""Work on large requests, beside the event loop.

Reading a body of many MiB, or of many elements, takes up to half a second, and no other request may
wait for that. Such work runs on a thread, one piece for each key in turn. Python runs one thread at
a time, so the thread rests as long as it works, a millisecond at a time: `translate.pacing` calls
it back between the parts of a request.

Decides which requests are large. Must not know what is done with them.
"""

from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from relay.errors import RATE_LIMITED, RelayError
from relay.gateway.context import RequestContext
from relay.gateway.fair_thread import FairThread
from relay.store.executor import ThreadExecutor
from relay.translate import pacing
from relay.translate.elements import check_elements, is_light
from relay.translate.messages.peek import peek
from relay.translate.messages.request_summary import RequestSummary
from relay.wire.encoding import decoded, decoded_if_small

if TYPE_CHECKING:
    from relay.gateway.dialect import InboundRequest

T = TypeVar("T")

LARGE_OCTETS: Final = 48 * 1024  # reading fewer takes 40 ms at most, of whatever elements
PEEKED_OCTETS: Final = 1024 * 1024  # `peek_as_it_is` takes 12 ms at most, of whatever elements
_TURN_SECONDS: Final = 0.001
_MAX_REST_SECONDS: Final = 0.02

_MAX_AT_ONCE: Final = 8  # large requests of one key that are read and written
_reading: Final[Counter[str]] = Counter()  # large requests by key
_threads: Final[dict[str, FairThread]] = {}
_releasing: Final[list[ThreadExecutor]] = []  # one, once it is needed


def begin_reading(ctx: RequestContext, key: str) -> None:
    """Count a large request of a key until `end_reading`.

    Raises:
        RelayError: 429, so many of this key are being read that others would wait for them.
    """
    if _reading[key] >= _MAX_AT_ONCE:
        raise RelayError(
            RATE_LIMITED,
            "Too many large requests of this key are being read at once. Try again in a second.",
            headers=((b"retry-after", b"1"),),
        )
    _reading[key] += 1
    ctx.reading_key = key


def end_reading(ctx: RequestContext) -> None:
    """Stop counting a request that is written for its upstream, or has ended."""
    key, ctx.reading_key = ctx.reading_key, ""
    if key:
        _reading[key] -= 1
        if not _reading[key]:
            del _reading[key]


def is_heavy(body: bytes) -> bool:
    """Whether work on a body of more than LARGE_OCTETS must not run on the event loop."""
    return not is_light(body)


async def in_turns(key: str, work: Callable[[], T]) -> T:
    """Do work on a large request of a key on its thread; the keys take turns.

    Raises:
        BaseException: `work` raised it.
    """
    return await _on_thread("reading", key, partial(_paced, work))


async def released(inbound: "InboundRequest") -> None:
    """Release a large request."""
    await _releaser().call(partial(_paced, inbound.release))


def release_ended(ctx: RequestContext) -> None:
    """Release a large request that has ended, perhaps without an answer; nobody waits for it."""
    if ctx.inbound is not None:
        _releaser().post(partial(_paced, ctx.inbound.release))


async def unfolded(key: str, body: bytes, encoding: bytes, limit: int) -> bytes:
    """The body of a key's request that was compressed so, at most `limit` octets.

    Raises:
        RelayError: 400, 413 or 415.
    """
    if len(body) <= LARGE_OCTETS:
        small = decoded_if_small(body, encoding, LARGE_OCTETS)
        if small is not None:
            return small
    return await _on_thread("unfolding", key, partial(decoded, body, encoding, limit))


def peek_at_large(body: bytes) -> RequestSummary:
    """What `peek` reads of a large body, if it has no more elements than are read here.

    Raises:
        RelayError: 413, it has more; 400, see `peek`.
    """
    check_elements(body)
    return peek(body)


def _paced(work: Callable[[], T]) -> T:
    return pacing.run(work, _Turns().pause)


def _thread(name: str) -> FairThread:
    """The thread of this name, which the first work for it starts."""
    thread = _threads.get(name)
    if thread is None:
        thread = _threads[name] = FairThread(name)
    return thread


def _releaser() -> ThreadExecutor:
    """The thread on which large requests are released; it has nothing else to do."""
    if not _releasing:
        _releasing.append(ThreadExecutor("releasing"))
    return _releasing[0]


def _on_thread(name: str, key: str, work: Callable[[], T]) -> Coroutine[Any, Any, T]:
    """Do a key's work on the thread of this name.

    If the caller is cancelled, work that has not begun is dropped with the body that it holds;
    work that has begun ends all the same.
    """
    return _result_of(_thread(name), key, _Abandonable(work))  # a frame would hold the work


async def _result_of(thread: FairThread, key: str, abandonable: "_Abandonable[T]") -> T:
    try:
        result = await thread.call(key, abandonable.run)
    except CancelledError:
        abandonable.abandon()
        raise
    if not isinstance(result, _Refusal):
        return result
    error = result.error
    try:
        raise error
    finally:
        del error, result  # else the error's frames would refer to it, a cycle that holds the body


class _Refusal:
    """An error of the work, without the frames that hold what the work had built until then.

    They end on the thread: to free them on the loop would take long.
    """

    __slots__ = ("error",)

    def __init__(self, error: RelayError) -> None:
        self.error = error
        error.__traceback__ = error.__context__ = error.__cause__ = None


class _Abandonable(Generic[T]):
    """Work whose caller may leave before it begins or ends. Its result is freed on the thread."""

    __slots__ = ("_abandoned", "_work")

    def __init__(self, work: Callable[[], T]) -> None:
        self._work: Callable[[], T] | None = work
        self._abandoned = False

    def abandon(self) -> None:
        """The caller has left: drop the work with the body that it holds."""
        self._abandoned = True
        self._work = None

    def run(self) -> T | _Refusal:
        """On the thread."""
        work, self._work = self._work, None
        if work is None:
            raise CancelledError
        try:
            result: T | _Refusal = work()
        except RelayError as error:
            result = _Refusal(error)
        if self._abandoned:
            del work, result
            raise CancelledError
        return result


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

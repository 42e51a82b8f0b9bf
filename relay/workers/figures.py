"""The figures of all processes: the owner asks, workers answer.

Decides how long the owner waits for a worker, how often it asks while nobody looks, and which
figures stand for a worker that does not answer or has ended. Must not know their meaning.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from relay.api.explain import Explainer
from relay.api.figures import (
    Figures,
    decode,
    decode_all,
    encode,
    encode_all,
    encode_series,
    ended,
    merged,
)
from relay.api.live import RunningRequests, read_running
from relay.api.monitor import Monitor
from relay.api.others import OtherFigures
from relay.api.request_facts import Match
from relay.gateway.watch import Failure
from relay.net.off_loop import off_loop
from relay.workers.link import Link, LinkClosedError

_FIGURES: Final = "figures"
_LAST_FIGURES: Final = "figures.last"
_RUNNING: Final = "figures.running"
_FAILURES: Final = "figures.failures"
_MATCH: Final = "figures.match"

_PATIENCE_SECONDS: Final = 1.0  # for an answer
_EVERY_SECONDS: Final = 10.0  # a worker that is killed loses what it counted since
_PAUSE_SECONDS: Final = 0.0005  # of a thread, which leaves the loop its turns


class Operator(Protocol):
    """The operator's side of a process."""

    @property
    def monitor(self) -> Monitor: ...
    @property
    def explainer(self) -> Explainer: ...


class Process(Protocol):
    """A process of the relay."""

    @property
    def operator(self) -> Operator: ...


class Numbered(Protocol):
    """A worker of `workers.owner`."""

    @property
    def link(self) -> Link: ...
    @property
    def number(self) -> int: ...


class Workers(Protocol):
    """The workers, as the owner has them."""

    @property
    def live(self) -> Sequence[Numbered]: ...
    @property
    def restarts(self) -> int: ...
    @property
    def on_joined(self) -> list[Callable[[Link], None]]: ...
    @property
    def on_gone(self) -> list[Callable[[Link], None]]: ...


class _Worker:
    """One worker: its number, and the figures that it gave last, as octets."""

    __slots__ = ("asked_at", "asking", "has_failed", "last", "link", "longest_lag", "number")

    def __init__(self, link: Link, number: int) -> None:
        self.link = link
        self.number = number
        self.last: list[bytes] = []
        self.longest_lag = 0.0  # of all answers since `OtherFigures` were made
        self.asking: asyncio.Task[None] | None = None
        self.asked_at = 0.0
        self.has_failed = False  # to answer

    def is_silent(self) -> bool:
        """Whether it should have answered by now."""
        return self.has_failed or (self.asking is not None and not self.patience())

    def patience(self) -> float:
        """Seconds that are left for an answer."""
        return max(0.0, self.asked_at + _PATIENCE_SECONDS - time.monotonic())

    def ask(self) -> None:
        """Ask for figures, unless an answer is due. It counts however late it is."""
        if self.asking is None:
            self.asked_at = time.monotonic()
            self.asking = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        try:
            self.take(await self.link.ask(_FIGURES))
        except LinkClosedError:
            self.has_failed = True
        else:
            self.has_failed = False
        finally:
            self.asking = None

    def take(self, pieces: list[bytes]) -> None:
        """Keep these figures from now on."""
        self.last = pieces
        self.longest_lag = max(self.longest_lag, decode(pieces[0]).longest_lag)


class WorkerFigures:
    """What the owner knows of the workers' figures; see `api.others`."""

    def __init__(self, workers: Workers) -> None:
        self._all = workers
        self._workers: dict[Link, _Worker] = {}  # those that serve
        self._gone: list[_Worker] = []  # not in `_ended` yet
        self._ended: list[bytes] = []  # the counters of all that have ended
        self._adding = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None

    # --- workers come and go ---

    def joined(self, link: Link) -> None:
        """A worker serves."""
        number = next(one.number for one in self._all.live if one.link is link)
        worker = self._workers[link] = _Worker(link, number)
        link.on(_LAST_FIGURES, worker.take)
        if self._timer is None:
            self._tick()

    def gone(self, link: Link) -> None:
        """A worker has ended. Its counters stay."""
        worker = self._workers.pop(link, None)
        if worker is not None:
            self._gone.append(worker)

    def _tick(self) -> None:
        self._timer = None
        if self._workers:
            for worker in self._workers.values():
                worker.ask()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_EVERY_SECONDS, self._tick)

    # --- see `api.others` ---

    async def figures(self) -> OtherFigures:
        """The figures of all workers, also of those that have ended."""
        workers = list(self._workers.values())
        for worker in workers:
            worker.ask()
        asked = [worker.asking for worker in workers if worker.asking and worker.patience()]
        if asked:
            await asyncio.wait(asked, timeout=max(worker.patience() for worker in workers))
        async with self._adding:
            return await self._decoded()

    async def _decoded(self) -> OtherFigures:
        workers, gone = list(self._workers.values()), list(self._gone)
        last = {worker.number: worker.last for worker in workers}
        silent = frozenset(worker.number for worker in workers if worker.is_silent())
        left = [worker.last for worker in gone if worker.last]
        work = partial(_decode, last, self._ended, left)
        running, total, self._ended = await off_loop("figures", work)
        del self._gone[: len(gone)]
        for worker in workers:
            running[worker.number].longest_lag = worker.longest_lag
            worker.longest_lag = 0.0
        total.longest_lag = max((worker.longest_lag for worker in gone), default=0.0)
        return OtherFigures(running, total, silent, self._all.restarts)

    async def running(self) -> list[RunningRequests]:
        """Requests in flight of each worker that answers."""
        answers = await self._ask_all(_RUNNING)
        return [msgspec.convert(answer, RunningRequests) for answer in answers]

    async def failures(self) -> list[list[Failure]]:
        """The latest failures of each worker that answers."""
        answers = await self._ask_all(_FAILURES)
        return [msgspec.convert(answer, list[Failure]) for answer in answers]

    async def matches(self, prefix: str) -> list[Match]:
        """What each worker that answers has in memory of requests by the beginning of an id."""
        answers = await self._ask_all(_MATCH, prefix)
        return [msgspec.convert(answer, Match) for answer in answers]

    async def _ask_all(self, kind: str, *values: object) -> list[Any]:
        """The answers that come in time. A worker that owes one already is not waited for."""
        tasks = [
            asyncio.ensure_future(worker.link.ask(kind, *values))
            for worker in self._workers.values()
            if not worker.is_silent()
        ]
        if not tasks:
            return []
        try:
            done, _ = await asyncio.wait(tasks, timeout=_PATIENCE_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
        return [task.result() for task in tasks if task in done and task.exception() is None]


def _pause() -> None:
    time.sleep(_PAUSE_SECONDS)


def _decode(
    last: dict[int, list[bytes]], known: list[bytes], gone: Iterable[list[bytes]]
) -> tuple[dict[int, Figures], Figures, list[bytes]]:
    """The figures of the workers that run; of those that have ended; the latter as octets."""
    running = {
        number: decode_all(pieces, _pause) if pieces else Figures(processes=1)
        for number, pieces in last.items()
    }
    parts = [decode_all(known, _pause)] if known else [Figures()]
    left = [ended(decode_all(pieces, _pause)) for pieces in gone]
    total = merged([*parts, *left], _pause)
    if left:
        known = encode_all(total)
    return running, total, known


def share_figures_as_owner(app: Process, workers: Workers) -> WorkerFigures:
    """Show the workers' figures with the owner's own, from now on."""
    figures = WorkerFigures(workers)
    workers.on_joined.append(figures.joined)
    workers.on_gone.append(figures.gone)
    app.operator.monitor.others = figures
    return figures


def share_figures_as_worker(app: Process, link: Link) -> Callable[[], None]:
    """Answer the owner's questions. The function that is returned sends the last figures: it is to
    be called once no request is left, before the link ends."""
    monitor, explainer = app.operator.monitor, app.operator.explainer

    async def figures() -> list[bytes]:
        pieces = [encode_series(piece) async for piece in monitor.pieces()]
        return [encode(monitor.read()), *pieces]

    async def running() -> RunningRequests:
        return read_running(monitor.watch)

    async def failures() -> list[Failure]:
        return list(monitor.watch.failures)

    async def match(prefix: str) -> Match:
        return explainer.in_memory(prefix)

    def send_last() -> None:
        link.send(_LAST_FIGURES, encode_all(monitor.read_all()))

    link.answer(_FIGURES, figures)
    link.answer(_RUNNING, running)
    link.answer(_FAILURES, failures)
    link.answer(_MATCH, match)
    return send_last

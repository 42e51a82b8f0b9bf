"""The workers, as the owner sees them: started, replaced, and ended with it.

Decides when a worker is stuck, and when another one takes the place of one that ended. Must not
know what they serve.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from relay.app import App
from relay.workers.admissions import AdmissionService, OwnerAdmissions
from relay.workers.lending import Lender
from relay.workers.link import Link
from relay.workers.nursery import Nursery

_START_SECONDS: Final = 10.0  # for all workers to serve, before the relay says that it does
_PULSE_SECONDS: Final = 1.0
_LATE_SECONDS: Final = 2.0  # of the owner itself
_STUCK_SECONDS: Final = 15.0  # without a pulse
_FREEZE_SECONDS: Final = 2.0  # for slots to come back at a hand-over
_END_SECONDS: Final = 2.0  # beyond the time to drain
_CUT_SECONDS: Final = 1.0  # for workers to report the requests that they cut
_FIRST_PAUSE_SECONDS: Final = 0.1  # before a worker is replaced that ended at once
_LAST_PAUSE_SECONDS: Final = 30.0
_NURSERY_PAUSE_SECONDS: Final = 10.0  # before another try to start the process that forks workers
_HEALTHY_SECONDS: Final = 60.0  # of a life after which the pause is the first again
_LISTEN: Final = ("listen ", "passed")  # begin the names of the sockets that workers accept on

_log = logging.getLogger("relay.workers")


class Worker:
    """One process and its link."""

    def __init__(self, link: Link, lender: Lender, number: int, now: float) -> None:
        self.link = link
        self.lender = lender
        self.number = number
        self.pid = 0  # not known yet
        self.has_joined = False
        self.started = now
        self.pulse = now
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Workers:
    """All of them. `begin` gives what a worker needs to start: builtins, see `workers.worker`."""

    def __init__(self, app: App, nursery: Nursery, begin: Callable[[], object]) -> None:
        self._app = app
        self._nursery = nursery
        self._nursery_lock = asyncio.Lock()
        self._nursery_due = 0.0  # when it may be started again, if no worker waits for it
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self.count = app.settings.server.processes - 1
        self._live: list[Worker] = []
        self.restarts = 0
        self._pause = _FIRST_PAUSE_SECONDS
        self._ending = False  # none is replaced
        self._frozen = False
        self._handlers: list[tuple[str, Callable[..., None]]] = []
        self._answers: list[tuple[str, Callable[..., Awaitable[object]]]] = []
        self.on_joined: list[Callable[[Link], None]] = []
        self.on_gone: list[Callable[[Link], None]] = []
        self.on_ended: list[Callable[[], None]] = []  # called once none is left
        self._changed = asyncio.Event()
        self._timers: dict[int, asyncio.TimerHandle] = {}  # of workers that start later
        self._starting: set[asyncio.Task[None]] = set()
        self._beat_timer: asyncio.TimerHandle | None = None
        self._cut_timer: asyncio.TimerHandle | None = None
        self._beat_due = 0.0
        self._journal_state: tuple[bool, str] = (True, "")
        self.admissions = OwnerAdmissions(app.metering, self.lenders)
        self._service = AdmissionService(app.metering, self.admissions)

    # --- messages ---

    @property
    def links(self) -> list[Link]:
        """Those of the workers that serve."""
        return [one.link for one in self._live if one.has_joined]

    @property
    def live(self) -> Sequence[Worker]:
        """All that have started."""
        return self._live

    def lenders(self) -> list[Lender]:
        """Those of all live workers."""
        return [one.lender for one in self._live]

    def broadcast(self, kind: str, *values: object, but: Link | None = None) -> None:
        """Send a message to all workers that serve, but one."""
        for one in self._live:
            if one.has_joined and one.link is not but:
                one.link.send(kind, *values)

    def on(self, kind: str, handler: Callable[..., None]) -> None:
        """Call `handler` with the link and the values of each message of this kind. Before
        `start`."""
        self._handlers.append((kind, handler))

    def answer(self, kind: str, handler: Callable[..., Awaitable[object]]) -> None:
        """Answer questions of this kind with the handler's result; it gets the link first. Before
        `start`."""
        self._answers.append((kind, handler))

    # --- beginning ---

    async def start(self) -> None:
        """Start all, and wait until they serve; after some seconds the relay goes on without."""
        self._app.metering.admissions = self.admissions
        self._app.upstreams.recall = self.admissions.recall_limits
        self._app.ledger.call_back = self.admissions.recall
        for number in range(self.count):
            await self._start_one(number)
        self._beat()
        await self._all_joined(_START_SECONDS)

    async def _all_joined(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(self.links) < self.count:
                    self._changed.clear()
                    await self._changed.wait()
            return
        _log.error("%d of %d workers serve", len(self.links), self.count)

    async def _start_one(self, number: int) -> None:
        try:
            await self._fork(number)
        except OSError as error:
            _log.error("worker %d cannot be started; another try follows: %s", number, error)
            self._replace_later(number)

    async def _fork(self, number: int) -> None:
        """Raises OSError."""
        await self._keep_nursery()
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        link = await Link.open(mine)
        if self._frozen or self._ending:  # meanwhile
            theirs.close()
            link.close()
            return
        listeners = [
            (name, one.socket)
            for name, one in self._app.listeners.named
            if name.startswith(_LISTEN[0]) or name == _LISTEN[1]
        ]
        try:
            with theirs:
                self._nursery.start_worker(theirs, listeners, number)
        except OSError:
            link.close()
            raise
        lender = Lender(self._app, link, lambda: self.count + 1)
        worker = Worker(link, lender, number, self._loop.time())
        self._live.append(worker)
        self._connect(worker)
        link.start()

    async def _keep_nursery(self) -> None:
        """Start the process that forks workers again, if it was killed. Raises OSError."""
        async with self._nursery_lock:
            if self._ending or not self._nursery.is_gone:
                return
            _log.error("the process that starts workers is gone; another one starts")
            self._nursery_due = self._loop.time() + _NURSERY_PAUSE_SECONDS
            await self._loop.run_in_executor(None, self._nursery.start_again)
            if self._ending:  # meanwhile
                self._nursery.close()

    async def _keep_nursery_ready(self) -> None:
        """The same, while no worker waits for it."""
        try:
            await self._keep_nursery()
        except OSError as error:
            _log.error("the process that starts workers cannot be started: %s", error)

    def _connect(self, worker: Worker) -> None:
        link = worker.link
        self._service.serve(worker.lender)
        for kind, handler in self._handlers:
            link.on(kind, _with_link(handler, link))
        for kind, answer in self._answers:
            link.answer(kind, _answer_with_link(answer, link))

        async def begin(pid: int) -> object:
            worker.pid = pid
            return self._begin()

        async def join() -> None:
            if self._frozen or self._ending:
                self._kill(worker)
                return
            worker.has_joined = True
            for on_joined in self.on_joined:
                on_joined(link)
            link.send("journal", *self._journal_state)
            self._changed.set()

        def pulse() -> None:
            worker.pulse = self._loop.time()

        link.answer("begin", begin)
        link.answer("join", join)
        link.on("pulse", pulse)
        link.on_end = lambda: self._on_end(worker)

    # --- the end of one ---

    def _on_end(self, worker: Worker) -> None:
        self._live.remove(worker)
        worker.lender.end()
        for on_gone in self.on_gone:
            on_gone(worker.link)
        if not worker.gone.done():
            worker.gone.set_result(None)
        self._changed.set()
        if self._ending or self._frozen:
            return
        self.restarts += 1
        if self._loop.time() - worker.started > _HEALTHY_SECONDS:
            self._pause = _FIRST_PAUSE_SECONDS
        _log.error("worker %d (process %d) ended; another one starts", worker.number, worker.pid)
        self._replace_later(worker.number)

    def _replace_later(self, number: int) -> None:
        """Start another one, after a pause that doubles each time."""
        self._replace(number, self._pause)
        self._pause = min(2 * self._pause, _LAST_PAUSE_SECONDS)

    def _replace(self, number: int, pause: float) -> None:
        def start() -> None:
            del self._timers[number]
            if not self._ending and not self._frozen:
                self._background(self._start_one(number))

        if (timer := self._timers.get(number)) is not None:
            timer.cancel()
        self._timers[number] = self._loop.call_later(pause, start)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    def _beat(self) -> None:
        """Each second: end the workers that are stuck, and pass on whether the journal works; start
        the process that forks workers again."""
        self._beat_timer = self._loop.call_later(_PULSE_SECONDS, self._beat)
        now = self._loop.time()
        was_late = 0 < self._beat_due < now - _LATE_SECONDS  # pulses wait to be read
        self._beat_due = now + _PULSE_SECONDS
        for worker in list(self._live):
            if was_late:
                worker.pulse = now
            if now - worker.pulse > _STUCK_SECONDS:
                _log.error(
                    "worker %d (process %d) is stuck: it is ended", worker.number, worker.pid
                )
                self._kill(worker)
        if now >= self._nursery_due and self._nursery.is_gone:
            self._background(self._keep_nursery_ready())
        journal = self._app.journal
        state = (journal.healthy, journal.failure)
        if state != self._journal_state and not journal.is_elsewhere:
            self._journal_state = state
            self.broadcast("journal", *state)

    def _kill(self, worker: Worker) -> None:
        if worker.pid and not worker.link.closed:  # else the number may be another process's
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
        worker.link.close()

    # --- the end of all, and hand-over ---

    async def drain(self, seconds: float) -> None:
        """Let requests in flight finish within `seconds`, and end all workers."""
        self._ending = True
        self.broadcast("drain", seconds)
        await self._wait_for_end(seconds)

    async def _wait_for_end(self, seconds: float) -> None:
        for one in list(self._live):
            if not one.has_joined:
                self._kill(one)
        waiting = [one.gone for one in self._live]
        if waiting:
            await asyncio.wait(waiting, timeout=seconds + _END_SECONDS)
        self.abort()

    def cut(self) -> None:
        """End all requests now. Workers still report how they ended; one that does not is ended
        soon."""
        self._ending = True
        self.broadcast("cut")
        self._cut_timer = self._loop.call_later(_CUT_SECONDS, self.abort)

    def abort(self) -> None:
        """End all workers now."""
        self._ending = True
        for one in list(self._live):
            self._kill(one)
        for timer in (*self._timers.values(), self._beat_timer, self._cut_timer):
            if timer is not None:
                timer.cancel()
        self._nursery.close()
        for on_ended in self.on_ended:
            on_ended()

    async def freeze(self) -> None:
        """Have workers accept and admit nothing by themselves, and give all slots back."""
        self._frozen = True
        asked = [asyncio.ensure_future(one.ask("freeze")) for one in self.links]
        joined = [one for one in self._live if one.has_joined]
        if asked:
            await asyncio.wait(asked, timeout=_FREEZE_SECONDS)
        for one, question in zip(joined, asked, strict=True):
            if not question.done() or question.exception() is not None:
                question.cancel()
                self._kill(one)
        for one in list(self._live):
            if not one.has_joined:
                self._kill(one)
        for one in self._live:
            one.lender.return_unused()  # granted meanwhile: the worker may not use them

    def thaw(self) -> None:
        """No other process has taken over: workers go on."""
        self._frozen = False
        self.broadcast("thaw")
        numbers = {one.number for one in self._live}
        for number in range(self.count):
            if number not in numbers:
                self._replace(number, 0.0)

    def retire(self, idle_seconds: float) -> None:
        """Another process has taken over: let workers finish what they have."""
        self._ending = True
        self.broadcast("retire", idle_seconds, self._app.settings.server.timeouts.drain)

    async def finish(self, seconds: float) -> None:
        """Wait until all workers have ended after `retire`, for so many seconds."""
        await self._wait_for_end(seconds)


def _with_link(handler: Callable[..., None], link: Link) -> Callable[..., None]:
    return lambda *values: handler(link, *values)


def _answer_with_link(
    answer: Callable[..., Awaitable[object]], link: Link
) -> Callable[..., Awaitable[Any]]:
    return lambda *values: answer(link, *values)

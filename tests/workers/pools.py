"""The pools of several processes in one loop: real links between real pools, nothing is served."""

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

from relay import config
from relay.errors import RelayError
from relay.net.deadlines import Deadlines
from relay.net.runner import CoroutineRunner
from relay.pool.affinity import Bindings
from relay.pool.leases import Lease, Upstreams
from relay.pool.routes import Route, Routes
from relay.pool.selection import RoutingRequest
from relay.pool.threads import Threads
from relay.pool.upstream import Upstream
from relay.quota.ledger import Ledger
from relay.workers.link import Link
from relay.workers.pool_sharing import share_pool_as_owner, share_pool_as_worker
from tests.fakes.live import MODELS, PLANS

MODEL = "claude-sonnet-4-7"
_TURN_SECONDS = 0.0005
Options = dict[str, dict[str, Any]]


class CountingLink(Link):
    """Counts the messages of each kind that this end has sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: Counter[str] = Counter()

    def send(self, kind: str, *values: object) -> None:
        self.sent[kind] += 1
        super().send(kind, *values)


class Process:
    """The pool of one process."""

    def __init__(self, upstreams: Options, pool: dict[str, Any]) -> None:
        self._deadlines = Deadlines(asyncio.get_running_loop())
        settings = _settings(upstreams, pool)
        made = [Upstream(one, settings, self._deadlines) for one in settings.upstream]
        self.upstreams = Upstreams(made, settings.pool, Ledger(), self._deadlines)
        self.upstreams.restore([], {})
        self.bindings = Bindings(300.0)
        self.threads = Threads()
        self.route = self._route(settings, made)
        self._deadlines.start()

    @staticmethod
    def _route(settings: config.Settings, made: list[Upstream]) -> Route:
        return Routes(settings.model, made, config.ModelNames(settings.model)).find(MODEL)

    def __getitem__(self, name: str) -> Upstream:
        found = self.upstreams.named(name)
        assert found is not None
        return found

    def reload(self, upstreams: Options, pool: dict[str, Any] | None = None) -> None:
        """Exchange the settings, as `App.exchange` does."""
        settings = _settings(upstreams, pool or {})
        before = {one.name: one for one in self.upstreams}
        made = []
        for one in settings.upstream:
            fresh = Upstream(one, settings, self._deadlines)
            kept = before.get(one.name)
            if kept is not None and fresh.setup.is_same_place(kept.setup):
                kept.configure(fresh.setup)
                made.append(kept)
            else:
                made.append(fresh)
        self.upstreams.replace(made, settings.pool)
        self.route = self._route(settings, made)

    def request(self, caller: str = "k") -> RoutingRequest:
        return RoutingRequest(caller, self.route)

    async def lease(self, caller: str = "k") -> Lease:
        """A place, as `Dispatch` gets one."""
        request = self.request(caller)
        leased: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()

        async def wait() -> None:
            try:
                leased.set_result(
                    self.upstreams.take(request) or await self.upstreams.wait(request)
                )
            except RelayError as error:
                leased.set_exception(error)
            except asyncio.CancelledError:
                leased.cancel()

        runner = CoroutineRunner(wait())
        runner.step()
        try:
            return await asyncio.shield(leased)
        except asyncio.CancelledError:
            runner.cancel()
            raise

    def close(self) -> None:
        self._deadlines.stop()


class Cluster:
    """An owner and workers, in the places of `relay.workers.owner.Workers`."""

    def __init__(self, upstreams: Options, pool: dict[str, Any]) -> None:
        self._options = upstreams, pool
        self.owner = Process(upstreams, pool)
        self.workers: list[Process] = []
        self.links: list[CountingLink] = []  # the owner's ends
        self.ends: list[CountingLink] = []  # the workers' ends
        self._handlers: list[tuple[str, Callable[..., None]]] = []
        self.on_joined: list[Callable[[Link], None]] = []
        self.on_gone: list[Callable[[Link], None]] = []
        share_pool_as_owner(self.owner, self)

    def on(self, kind: str, handler: Callable[..., None]) -> None:
        self._handlers.append((kind, handler))

    def broadcast(self, kind: str, *values: object, but: Link | None = None) -> None:
        for link in self.links:
            if link is not but:
                link.send(kind, *values)

    @property
    def processes(self) -> list[Process]:
        return [self.owner, *self.workers]

    async def join(self) -> Process:
        """A further worker, which knows what the owner knows."""
        mine, theirs = socket.socketpair()
        owners, workers = await CountingLink.open(mine), await CountingLink.open(theirs)
        assert isinstance(owners, CountingLink)
        assert isinstance(workers, CountingLink)
        for kind, handler in self._handlers:
            owners.on(kind, _with_link(handler, owners))
        worker = Process(*self._options)
        share_pool_as_worker(worker, workers)
        owners.start()
        workers.start()
        self.links.append(owners)
        self.ends.append(workers)
        self.workers.append(worker)
        for on_joined in self.on_joined:
            on_joined(owners)
        owners.on_end = lambda: self._on_end(owners)
        await self.settled()
        return worker

    def kill(self, number: int) -> None:
        """End a worker, as by `kill -9`."""
        self.workers.pop(number).close()
        self.links[number].close()

    def _on_end(self, link: CountingLink) -> None:
        self.links.remove(link)
        for on_gone in self.on_gone:
            on_gone(link)

    def sent(self) -> Counter[str]:
        """The messages of all ends since the last call, by kind."""
        sent: Counter[str] = Counter()
        for link in (*self.links, *self.ends):
            sent += link.sent
            link.sent.clear()
        return sent

    async def settled(self) -> None:
        """Wait until nothing is on its way."""
        for _ in range(30):
            await asyncio.sleep(0.0005)


def _with_link(handler: Callable[..., None], link: Link) -> Callable[..., None]:
    return lambda *values: handler(link, *values)


def _settings(upstreams: Options, pool: dict[str, Any]) -> config.Settings:
    rows = [
        {"name": name, "base_url": "http://upstream.invalid", "api_key": "k", **more}
        for name, more in upstreams.items()
    ]
    models = [{**one, "price": {"input": 1.0, "output": 1.0}} for one in MODELS]
    return config.parse({"upstream": rows, "model": models, "plan": PLANS, "pool": pool})


@contextlib.asynccontextmanager
async def cluster(
    upstreams: Options, workers: int = 2, pool: dict[str, Any] | None = None
) -> AsyncIterator[Cluster]:
    """An owner with so many workers."""
    made = Cluster(upstreams, pool or {})
    for _ in range(workers):
        await made.join()
    try:
        yield made
    finally:
        for link in list(made.links):
            link.close()
        for process in made.processes:
            process.close()


async def within(seconds: float, condition: Callable[[], object]) -> None:
    """Wait until the condition holds: for these seconds, and as many turns of the loop as an idle
    machine has in them.

    Raises:
        AssertionError: it does not hold by then.
    """
    began, turns = time.monotonic(), 0
    while not condition():
        assert turns < seconds / _TURN_SECONDS or time.monotonic() - began < seconds
        await asyncio.sleep(_TURN_SECONDS)
        turns += 1

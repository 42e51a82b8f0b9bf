"""The figures of two relays over a real link: one shows the other's with its own."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from relay.workers.figures import share_figures_as_owner, share_figures_as_worker
from relay.workers.link import Link
from tests.api.admin_listener import LISTEN, admin
from tests.api.scrape import Samples, scraped, total
from tests.fakes.pool import Pool, refusing, running_pool
from tests.fakes.until import until
from tests.web.administration import new_admin
from tests.web.visitor import WEB, Visitor


@dataclass(frozen=True)
class Numbered:
    """A worker by its number."""

    link: Link
    number: int


@dataclass
class Workers:
    """Links that come and go, as the owner sees them."""

    live: list[Numbered] = field(default_factory=list)
    restarts: int = 0
    on_joined: list[Callable[[Link], None]] = field(default_factory=list)
    on_gone: list[Callable[[Link], None]] = field(default_factory=list)

    def join(self, link: Link) -> None:
        self.live.append(Numbered(link, len(self.live)))
        link.on_end = lambda: self.leave(link)
        for each in self.on_joined:
            each(link)

    def leave(self, link: Link) -> None:
        self.live = [one for one in self.live if one.link is not link]
        self.restarts += 1
        for each in self.on_gone:
            each(link)


@dataclass
class Both:
    """The owner and a worker, each with an upstream of the same name."""

    owner: Pool
    worker: Pool
    workers: Workers
    ends: list[Link] = field(default_factory=list)
    send_last: Callable[[], None] = lambda: None

    async def link(self) -> tuple[Link, Link]:
        """A link of the owner and the worker."""
        near, far = [await Link.open(sock) for sock in socket.socketpair()]
        self.ends += [near, far]
        self.send_last = share_figures_as_worker(self.worker.relay.app, far)
        for link in (far, near):
            link.start()
        return near, far

    async def join(self) -> Link:
        """Let the worker join; returns the owner's end."""
        near, _ = await self.link()
        self.workers.join(near)
        return near

    async def samples(self) -> Samples:
        return await scraped(self.owner.relay)


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    folders = [tmp_path / "owner", tmp_path / "worker"]
    for folder in folders:
        folder.mkdir()
    async with contextlib.AsyncExitStack() as stack:
        owner, worker = [
            await stack.enter_async_context(running_pool(folder, {"a": {}}, server=LISTEN, web=WEB))
            for folder in folders
        ]
        workers = Workers()
        share_figures_as_owner(owner.relay.app, workers)
        found = Both(owner, worker, workers)
        yield found
        for link in found.ends:
            link.close()


async def asked(*pools: Pool) -> None:
    for pool in pools:
        assert (await pool.ask()).status == 200


async def test_a_scrape_adds_up_all_processes(both: Both) -> None:
    await both.join()
    await asked(both.owner, both.worker, both.worker)
    both.worker["a"].instead = refusing(400)
    await both.worker.ask()
    samples = await both.samples()
    lines = both.owner.relay.log() + both.worker.relay.log()
    assert len(lines) == total(samples, "relay_requests_total") == 4
    assert total(samples, "relay_requests_total", code="2xx", upstream="a") == 3
    for kind in ("input", "output"):
        counted = sum(line.get(kind, 0) for line in lines)
        assert total(samples, "relay_tokens_total", type=kind) == counted > 0
    assert total(samples, "relay_request_duration_seconds_count") == 4
    assert total(samples, "relay_upstream_requests_total", upstream="a") == 4
    assert total(samples, "relay_upstream_connections_total") == 2
    assert total(samples, "relay_connections") == 2
    assert total(samples, "relay_workers") == 2
    assert total(samples, "relay_workers_silent") == 0
    names = [name for name, _ in samples]
    for name in ("relay_build_info", "relay_journal_healthy", "process_cpu_seconds_total"):
        assert names.count(name) == 1
    for name in ("owner", "0"):
        assert total(samples, "relay_process_cpu_seconds_total", process=name) > 0
    each = total(samples, "relay_process_resident_memory_bytes")
    assert each == total(samples, "process_resident_memory_bytes")


async def test_alone_nothing_of_it_is_shown(both: Both) -> None:
    both.owner.relay.app.operator.monitor.others = None
    names = {name for name, _ in await both.samples()}
    assert "relay_requests_in_flight" in names
    assert not [name for name in names if "worker" in name or name.startswith("relay_process_")]


async def test_a_stuck_worker_counts_with_its_last_figures(both: Both) -> None:
    near, far = await both.link()
    both.workers.join(near)
    await asked(both.owner, both.worker)
    assert total(await both.samples(), "relay_requests_total") == 2
    assert far._transport is not None
    far._transport.pause_reading()  # it does not get to its questions
    await asked(both.owner, both.worker)
    loop = asyncio.get_running_loop()
    before = loop.time()
    samples = await both.samples()
    assert loop.time() - before > 0.9
    assert total(samples, "relay_requests_total") == 3
    assert total(samples, "relay_workers_silent") == 1
    questions = near._numbers  # it is not asked, and so not waited for, again
    status = (await admin(both.owner.relay, "GET", "/status")).json()
    assert (await admin(both.owner.relay, "GET", "/explain/req_" + "0" * 32)).status_code == 404
    assert near._numbers == questions
    assert [one["answers"] for one in status["workers"]["processes"]] == [True, False]
    far._transport.resume_reading()
    samples = await both.samples()
    assert total(samples, "relay_requests_total") == 4
    assert total(samples, "relay_workers_silent") == 0


async def test_counters_of_a_dead_worker_are_kept(both: Both) -> None:
    near = await both.join()
    await asked(both.owner, both.worker, both.worker)
    before = await both.samples()
    near.close()
    after = await both.samples()
    assert total(after, "relay_workers") == 1
    assert total(after, "relay_connections") == 1
    counters = [key for key in before if key[0].endswith(("_total", "_count", "_sum", "_bucket"))]
    assert len(counters) > 50
    assert not [key for key in counters if after[key] < before[key]]
    await both.join()  # the same relay, so that all it counted is new again
    again = await both.samples()
    assert total(again, "relay_workers") == 2
    assert total(again, "relay_worker_restarts_total") == 1
    assert total(again, "relay_requests_total") == 5


async def test_the_last_figures_of_a_worker_are_counted(both: Both) -> None:
    near = await both.join()
    await both.samples()
    await asked(both.worker)
    ended = asyncio.Event()
    both.workers.on_gone.append(lambda link: ended.set())
    both.send_last()
    far = both.ends[-1]
    await far.flushed()
    far.close()
    await ended.wait()
    assert near.closed
    assert total(await both.samples(), "relay_requests_total") == 1


async def test_requests_in_flight_are_those_of_all(both: Both) -> None:
    await both.join()
    for pool in (both.owner, both.worker):
        pool["a"].hold()
    tasks = [asyncio.create_task(pool.ask()) for pool in (both.owner, both.worker, both.worker)]
    await until(lambda: both.owner["a"].held == 1 and both.worker["a"].held == 2)
    monitor = both.owner.relay.app.operations.monitor
    running = await monitor.running()
    assert running.total == len(running.rows) == 3
    assert running.rows == sorted(running.rows, key=lambda row: row.started_at)
    total_now = (await monitor.figures()).total
    assert (total_now.relayed, total_now.in_flight) == (3, 3)
    [row] = (await admin(both.owner.relay, "GET", "/upstreams")).json()["upstreams"]
    assert (row["in_flight"], row["requests"]) == (3, 3)
    theirs = next(iter(both.worker.relay.app.operations.watch.running))
    answer = (await admin(both.owner.relay, "GET", f"/explain/{theirs.id}")).json()["request"]
    assert (answer["state"], answer["stage"], answer["upstream"]) == ("in flight", "asking", "a")
    for pool in (both.owner, both.worker):
        pool["a"].let(2)
    await asyncio.gather(*tasks)


async def test_failures_of_a_worker_are_explained(both: Both) -> None:
    await both.join()
    both.worker["a"].instead = refusing(529)
    reply = await both.worker.ask()
    await until(lambda: both.worker.relay.app.operations.watch.failures)
    [failure] = await both.owner.relay.app.operations.monitor.failures()
    assert (failure.record.id, failure.record.status) == (reply.id, 529)
    answer = (await admin(both.owner.relay, "GET", f"/explain/{reply.id}")).json()
    assert "Not now." in answer["request"]["words"]
    assert answer["request"]["found_in"] == ["failures since the start"]


async def test_the_longest_lag_is_kept_until_a_scrape(both: Both) -> None:
    await both.join()
    lag = both.worker.relay.app.operations.measured.loop_lag
    lag._longest = 4.5
    both.owner.relay.app.operations.measured.loop_lag._longest = 3.0
    await admin(both.owner.relay, "GET", "/status")  # reads it, but is no scrape
    assert total(await both.samples(), "relay_loop_lag_longest_seconds") == 4.5
    assert total(await both.samples(), "relay_loop_lag_longest_seconds") < 3.0


async def test_pages_of_administrators_show_all_processes(both: Both) -> None:
    await both.join()
    both.worker["a"].hold()
    task = asyncio.create_task(both.worker.ask())
    await until(lambda: both.worker["a"].held)
    theirs = next(iter(both.worker.relay.app.operations.watch.running))
    async with Visitor(both.owner.relay) as visitor:
        await new_admin(both.owner.relay, visitor)
        first = (await visitor.get("/admin")).text
        live = (await visitor.get("/admin/live")).text
    both.worker["a"].let()
    assert (await task).status == 200
    assert "<dt>Processes</dt><dd>2</dd>" in first
    assert theirs.id in live
    assert "1 sent, 1 in flight" in first

"""Names of upstreams: looked up apart from connections, and remembered."""

import asyncio
import errno
import math
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from relay.config import ProxyUrl
from relay.errors import RelayError
from relay.net.deadlines import Deadlines
from relay.net.upstream.connection import FailureKind, Origin, UpstreamError
from relay.net.upstream.connection_pool import ConnectionPool
from relay.net.upstream.resolver import Ages, Resolver
from relay.pool.vendor_errors import of_failure
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import Live, RelayWith, upstream_row
from tests.fakes.proxy import Proxy, running_proxy
from tests.fakes.until import until
from tests.fakes.upstream import OK, UpstreamWith, always

DEAD = "203.0.113.1"  # TEST-NET-3


class Names:
    """A fake `getaddrinfo`: names and their addresses, which tests change."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.hanging: set[str] = set()
        self.over = threading.Event()

    def __call__(self, host: str, port: object, **_: object) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if host in self.hanging:
            self.over.wait(20)
        if not self.addresses.get(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        rows = self.addresses[host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (row, 0)) for row in rows]


@pytest.fixture
def names() -> Iterator[Names]:
    names = Names()
    yield names
    names.over.set()


@pytest.fixture
async def timers() -> AsyncIterator[Deadlines]:
    timers = Deadlines(asyncio.get_running_loop())
    timers.start()
    yield timers
    timers.stop()


async def status_of(relay: Live) -> tuple[int, float]:
    """The status of one request, and its seconds."""
    since = time.monotonic()
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key))
        return (await read_answer(reader))[0], time.monotonic() - since


# --- names that hang ---


@pytest.mark.parametrize("hanging", [1, 5])
async def test_a_hanging_name_blocks_no_other_upstream(
    upstream_with: UpstreamWith, relay_with: RelayWith, names: Names, hanging: int
) -> None:
    upstream = await upstream_with(always(OK))
    port = upstream.url.rpartition(":")[2]
    names.hanging = {f"silent{number}.test" for number in range(hanging)}
    names.addresses = {"good.test": ["127.0.0.1"]}
    rows = [
        upstream_row(host, f"http://{host}:{port}", {"timeouts": {"connect": 0.8}, "priority": 0})
        for host in sorted(names.hanging)
    ]
    rows.append(upstream_row("good.test", f"http://good.test:{port}", {"priority": 0}))
    relay = await relay_with(rows, resolver=Resolver(names), pool={"tries": 5, "sticky": "off"})
    results = await asyncio.gather(*(status_of(relay) for _ in range(hanging + 1)))
    assert [status for status, _ in results].count(200) >= 1
    assert min(seconds for _, seconds in results) < 0.3  # the one whose turn was the good one
    own = [one for one in relay.app.upstreams if one.name in {*names.hanging, "good.test"}]
    await until(lambda: not any(one.in_flight for one in own))
    good = relay.app.upstreams.named("good.test")
    assert good is not None
    assert (good.health.failures, dict(good.health.errors)) == (0, {})
    assert all(names.asked.count(host) == 1 for host in names.hanging)  # one look-up at a time
    status, _ = await status_of(relay)
    assert status == 200


async def test_one_lookup_serves_all_who_wait_for_it(names: Names) -> None:
    names.addresses = {"a.test": ["192.0.2.1"]}
    names.hanging = {"a.test"}
    resolver = Resolver(names)
    waiting = [asyncio.create_task(resolver.resolve("a.test")) for _ in range(50)]
    await until(lambda: names.asked)
    waiting[0].cancel()  # one who leaves takes nothing from the others
    names.over.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [[(socket.AF_INET, ("192.0.2.1",))]] * 49
    assert names.asked == ["a.test"]


async def test_a_lookup_that_hangs_ends_with_connect_time(names: Names, timers: Deadlines) -> None:
    names.hanging = {"a.test"}
    pool = ConnectionPool(Origin("a.test", 9, connect_time=0.1), timers, Resolver(names))
    for _ in range(3):
        with pytest.raises(UpstreamError, match=r"no connection within 0\.1 s"):
            await pool.connect()
    assert names.asked == ["a.test"]


@pytest.mark.parametrize("way", ["http", "socks5", "socks5h", "target"])
async def test_proxies_use_the_same_resolver(names: Names, timers: Deadlines, way: str) -> None:
    """`target`: a SOCKS5 proxy that is an address, and an upstream whose name is resolved here."""
    names.hanging = {"silent.test"}
    hosts = ("127.0.0.1", "silent.test") if way == "target" else ("silent.test", "127.0.0.1")
    proxy = ProxyUrl.parse(f"{'socks5' if way == 'target' else way}://{hosts[0]}:9", "egress")
    async with running_proxy(Proxy("socks5")) as server:
        if way == "target":
            proxy = ProxyUrl.parse(server.url(), "egress")
        origin = Origin(hosts[1], 9, connect_time=0.1, egress=proxy)
        with pytest.raises(UpstreamError, match=r"no connection within 0\.1 s"):
            await ConnectionPool(origin, timers, Resolver(names)).connect()
    assert names.asked == ["silent.test"]


# --- addresses that are remembered ---


async def first(resolver: Resolver, host: str = "a.test") -> str:
    return str((await resolver.resolve(host))[0][1][0])


async def test_fresh_addresses_are_not_looked_up_again(names: Names) -> None:
    names.addresses = {"a.test": ["192.0.2.1"]}
    resolver = Resolver(names)
    for _ in range(100):
        assert await first(resolver) == "192.0.2.1"
    assert names.asked == ["a.test"]


async def test_addresses_in_use_are_renewed_in_the_background(names: Names) -> None:
    names.addresses = {"a.test": ["192.0.2.1"]}
    resolver = Resolver(names, Ages(renew=-1, retry=-1))
    await first(resolver)
    names.addresses = {"a.test": ["192.0.2.2"]}
    assert await first(resolver) == "192.0.2.1"  # at once, while the renewal runs
    await until(lambda: len(names.asked) == 2)
    await asyncio.sleep(0.05)
    assert await first(resolver) == "192.0.2.2"


@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_the_last_good_addresses_serve_on(names: Names, how: str) -> None:
    names.addresses = {"a.test": ["192.0.2.1"]}
    resolver = Resolver(names, Ages(renew=-1, fresh=-1, wait=0.1, retry=-1))
    await first(resolver)
    names.addresses = {}
    if how == "hangs":
        names.hanging = {"a.test"}
    since = time.monotonic()
    for _ in range(20):
        assert await first(resolver) == "192.0.2.1"
    assert time.monotonic() - since < 0.5  # the wait for a renewal ends once, for all
    if how == "hangs":
        assert len(names.asked) == 2


async def test_old_addresses_wait_a_moment_for_their_renewal(names: Names) -> None:
    names.addresses = {"a.test": ["192.0.2.1"]}
    resolver = Resolver(names, Ages(renew=-1, fresh=-1, retry=-1))
    await first(resolver)
    names.addresses = {"a.test": ["192.0.2.2"]}
    assert await first(resolver) == "192.0.2.2"


async def test_a_failed_first_lookup_is_tried_again(names: Names, timers: Deadlines) -> None:
    pool = ConnectionPool(Origin("a.test", 9), timers, Resolver(names))
    for _ in range(2):
        with pytest.raises(UpstreamError, match="Name or service not known") as caught:
            await pool.connect()
        assert caught.value.kind is FailureKind.CONNECT
    assert len(names.asked) == 2


async def test_an_address_is_never_looked_up(names: Names) -> None:
    resolver = Resolver(names)
    assert await resolver.resolve("127.0.0.1") == [(socket.AF_INET, ("127.0.0.1",))]
    assert await resolver.resolve("::1") == [(socket.AF_INET6, ("::1",))]
    assert names.asked == []


# --- addresses that do not answer ---


async def test_a_dead_address_leaves_time_for_the_next(
    upstream_with: UpstreamWith, names: Names, timers: Deadlines
) -> None:
    upstream = await upstream_with(always(OK))
    with socket.socket() as full:  # a listener whose queue is full: it drops what comes
        full.bind(("127.0.0.2", int(upstream.url.rpartition(":")[2])))
        full.listen(0)
        fillers = [socket.socket() for _ in range(2)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        names.addresses = {"a.test": ["127.0.0.2", "127.0.0.1"]}
        port = int(upstream.url.rpartition(":")[2])
        pool = ConnectionPool(Origin("a.test", port, connect_time=0.9), timers, Resolver(names))
        since = time.monotonic()
        (await pool.connect()).close()
        assert 0.25 < time.monotonic() - since < 0.6
        since = time.monotonic()
        (await pool.connect()).close()  # the one that answers is tried first now
        assert time.monotonic() - since < 0.1
        for filler in fillers:
            filler.close()


async def test_refused_addresses_are_looked_up_anew(names: Names, timers: Deadlines) -> None:
    names.addresses = {"a.test": ["127.0.0.1", "127.0.0.2"]}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        pool = ConnectionPool(Origin("a.test", taken.getsockname()[1]), timers, Resolver(names))
        for _ in range(2):
            with pytest.raises(UpstreamError, match="Connection refused"):
                await pool.connect()
    assert names.asked == ["a.test"]  # not more often than every few seconds


async def test_a_name_without_an_address_is_a_failure(timers: Deadlines) -> None:
    pool = ConnectionPool(Origin("a.test", 9), timers, Resolver(lambda *_, **__: []))
    with pytest.raises(UpstreamError, match="the name has no address"):
        await pool.connect()


async def test_a_look_up_without_a_thread_is_a_failure_for_now(
    names: Names, timers: Deadlines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    names.addresses = {"a.test": ["192.0.2.1"], "b.test": ["192.0.2.2"]}
    resolver = Resolver(names, Ages(renew=0.0, fresh=0.0, wait=0.05, retry=0.0))
    assert await first(resolver, "b.test") == "192.0.2.2"
    pool = ConnectionPool(Origin("a.test", 9, connect_time=0.5), timers, resolver)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        for _ in range(2):
            with pytest.raises(UpstreamError, match="no thread is left") as raised:
                await pool.connect()
            assert raised.value.kind is FailureKind.CONNECT
        assert await first(resolver, "b.test") == "192.0.2.2"  # its last good address
    assert await first(resolver) == "192.0.2.1"


async def test_a_look_up_that_breaks_is_a_failure(timers: Deadlines) -> None:
    def look_up(*_: object, **__: object) -> list[tuple[Any, ...]]:
        raise ValueError("odd")

    pool = ConnectionPool(Origin("a.test", 9), timers, Resolver(look_up))
    async with asyncio.timeout(2):
        for _ in range(2):  # it ends, so the next one is not left to wait for it
            with pytest.raises(UpstreamError, match="the look-up failed: odd"):
                await pool.connect()


# --- descriptors ---


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("way", ["direct", "http", "socks5"])
async def test_running_out_of_descriptors_is_nobodys_failure(
    timers: Deadlines, number: int, way: str
) -> None:
    def look_up(*_: object, **__: object) -> list[tuple[Any, ...]]:
        raise OSError(number, "too many open files")

    egress = None if way == "direct" else ProxyUrl.parse(f"{way}://proxy.test:9", "egress")
    origin = Origin("a.test" if way == "direct" else "127.0.0.1", 9, egress=egress)
    with pytest.raises(RelayError, match="no connection to spare") as caught:
        await ConnectionPool(origin, timers, Resolver(look_up)).connect()
    assert caught.value.kind.status == 503


async def test_a_caller_gets_a_503_and_the_upstream_no_blame(relay_with: RelayWith) -> None:
    def look_up(*_: object, **__: object) -> list[tuple[Any, ...]]:
        raise OSError(errno.EMFILE, "too many open files")

    relay = await relay_with("http://a.test:9", resolver=Resolver(look_up))
    for _ in range(5):
        async with connected(relay.port) as (reader, writer):
            writer.write(request(relay.key))
            status, _, body = await read_answer(reader)
        assert status == 503
        assert b"The relay has no connection to spare" in body
    health = relay.app.upstreams[0].health
    assert (health.failures, dict(health.errors), health.account_outage) == (0, {}, None)


async def test_a_probe_without_a_descriptor_comes_again(relay_with: RelayWith) -> None:
    asked = 0

    def look_up(*_: object, **__: object) -> list[tuple[Any, ...]]:
        nonlocal asked
        asked += 1
        raise OSError(errno.EMFILE, "too many open files")

    relay = await relay_with("http://a.test:9", resolver=Resolver(look_up))
    health, now = relay.app.upstreams[0].health, relay.app.upstreams.now()
    for _ in range(3):
        health.failed(of_failure(FailureKind.CONNECT), "m", now)
    assert health.failing
    health.probe_at = now
    await until(lambda: asked > 0 and health.probe_at < math.inf, within=5)
    assert health.failing

"""A probe of the relay's own finds out whether an upstream answers, at no caller's risk."""

import asyncio
import contextlib
import json
import logging
import resource
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from relay import config
from relay.net.deadlines import Deadlines
from relay.pool import probing
from relay.pool.health import Health
from relay.pool.leases import Upstreams
from relay.pool.outages import Level
from relay.pool.probing import Prober
from relay.pool.upstream import Upstream
from relay.pool.vendor_errors import Scope, Verdict
from relay.quota.ledger import Ledger
from tests.fakes.answers import sized
from tests.fakes.live import MODELS, PLANS, UPSTREAM_KEY
from tests.fakes.until import until
from tests.fakes.upstream import Answer, Seen, UpstreamWith, always

COUNTED = sized(b'{"input_tokens":8}')
BROKEN = Verdict(Scope.FAILURE, 0.0, False, "it broke off")
M = "claude-sonnet-4-7"


class Probed:
    """One upstream that has just failed three times in a row, and its prober."""

    def __init__(self, url: str, deadlines: Deadlines) -> None:
        row = {"name": "one", "base_url": url, "api_key": UPSTREAM_KEY}
        settings = config.parse({"upstream": [row], "model": MODELS, "plan": PLANS})
        self.upstream = Upstream(settings.upstream[0], settings, deadlines)
        self.pool = Upstreams([self.upstream], settings.pool, Ledger(), deadlines)
        self.prober = Prober(self.pool, deadlines)
        self.fail(M)

    @property
    def health(self) -> Health:
        return self.upstream.health

    @property
    def level(self) -> Level:
        return self.health.level(M, self.pool.now())

    def fail(self, model: str) -> None:
        for _ in range(3):
            self.health.failed(BROKEN, model, self.pool.now())

    def due(self) -> None:
        """Let the time until the probe pass."""
        self.health.probe_at = self.pool.now()

    async def result(self) -> None:
        """Wait until a probe has been started and has ended."""
        self.due()
        running = self.prober._running
        await until(lambda: self.health.probe_at > self.pool.now())
        await until(lambda: not running)


@contextlib.asynccontextmanager
async def probed(url: str) -> AsyncIterator[Probed]:
    deadlines = Deadlines(asyncio.get_running_loop())
    one = Probed(url, deadlines)
    deadlines.start()
    try:
        yield one
    finally:
        one.prober.stop()
        deadlines.stop()
        one.upstream.pool.close()


def silent() -> Answer:
    """Read the request and answer nothing."""

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        await reader.read()

    return answer


@pytest.fixture
def closed_port() -> Iterator[str]:
    """The URL of a port that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 501])
async def test_any_answer_but_a_failure_ends_the_outage(
    upstream_with: UpstreamWith, status: int
) -> None:
    raw = await upstream_with(always(sized(b"{}", b"%d Some" % status)))
    async with probed(raw.url) as one:
        assert one.level is Level.DOUBTFUL
        await one.result()
        assert (one.level, one.health.failures, one.health.degraded) == (Level.FREE, 0, False)
    [seen] = raw.requests
    assert seen.head.startswith(b"POST /v1/messages/count_tokens HTTP/1.1\r\n")
    assert seen.fields[b"x-api-key"] == UPSTREAM_KEY.encode()
    assert json.loads(seen.body)["model"] == M


@pytest.mark.parametrize("status", [500, 502, 503, 529])
async def test_a_failure_prolongs_the_outage(upstream_with: UpstreamWith, status: int) -> None:
    raw = await upstream_with(always(sized(b"{}", b"%d Some" % status)))
    async with probed(raw.url) as one:
        await one.result()
        now = one.pool.now()
        assert one.health.failing
        assert now + 5 < one.health.probe_at <= now + 10
        assert one.health.describe(M, now).startswith(f"a probe: {status}; ")
    assert len(raw.requests) == 1


async def test_no_connection_is_a_failure(closed_port: str) -> None:
    async with probed(closed_port) as one:
        await one.result()
        assert one.health.describe(M, one.pool.now()).startswith("a probe: cannot be reached: ")


async def test_a_closed_connection_is_a_failure(upstream_with: UpstreamWith) -> None:
    raw = await upstream_with(always(b"", close=True))
    async with probed(raw.url) as one:
        await one.result()
        assert "closed the connection early" in one.health.describe(M, one.pool.now())


async def test_silence_is_a_failure_after_a_few_seconds(
    upstream_with: UpstreamWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "_PROBE_SECONDS", 0.3)
    raw = await upstream_with(silent())
    async with probed(raw.url) as one:
        await one.result()
        assert "did not answer in time" in one.health.describe(M, one.pool.now())
        await until(raw.closed.is_set)  # the relay keeps no connection that it has given up


async def test_only_a_working_upstreams_failed_probe_is_logged(
    closed_port: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "relay.gateway")
    async with probed(closed_port) as one:
        await one.result()
        assert not caplog.records  # its failures have been logged
        one.health.clear()
        silence = Verdict(Scope.FAILURE, 0.0, False, "did not answer in time", silent=True)
        one.health.failed(silence, M, one.pool.now())  # a silent upstream is probed at once
        await one.result()
    [record] = caplog.records
    assert record.getMessage().startswith("upstream one: a probe: cannot be reached")


async def test_one_probe_runs_at_a_time_and_none_while_paused(
    upstream_with: UpstreamWith,
) -> None:
    raw = await upstream_with(silent())
    async with probed(raw.url) as one:
        one.due()
        await until(raw.asked.is_set)
        one.due()
        await asyncio.sleep(0.6)
        assert len(raw.requests) == 1
    raw.asked.clear()
    async with probed(raw.url) as one:
        one.health.pause()
        one.due()
        await asyncio.sleep(0.6)
        assert len(raw.requests) == 1


@pytest.mark.parametrize("connected", [True, False], ids=["unanswered", "connecting"])
async def test_a_stopped_prober_leaves_nothing_open(
    upstream_with: UpstreamWith, connected: bool
) -> None:
    raw = await upstream_with(silent())
    async with probed(raw.url) as one:
        one.due()
        if connected:
            await until(raw.asked.is_set)
        else:
            one.prober._on_tick()
        assert one.prober._running
        one.prober.stop()
        await until(lambda: not one.prober._running)
        assert one.level is Level.DOUBTFUL  # nothing was found out
    if connected:
        await until(raw.closed.is_set)


async def test_without_a_descriptor_the_probe_is_put_off(upstream_with: UpstreamWith) -> None:
    raw = await upstream_with(always(COUNTED))
    async with probed(raw.url) as one:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))
        try:
            await one.result()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        now = one.pool.now()
        assert now + 5 < one.health.probe_at <= now + 10
        assert "it broke off" in one.health.describe(M, now)
        await one.result()
        assert one.level is Level.FREE


async def test_a_probe_that_cannot_be_written_is_put_off(
    upstream_with: UpstreamWith, caplog: pytest.LogCaptureFixture
) -> None:
    """No model has such a name, but a fault of the relay's own must not end its probes."""
    raw = await upstream_with(always(COUNTED))
    async with probed(raw.url) as one:
        one.health.probe_model = "half a character: \ud83d"
        await one.result()
        now = one.pool.now()
        assert now + 5 < one.health.probe_at <= now + 10
        assert "its probe failed" in caplog.text
        one.health.probe_model = M
        await one.result()
        assert one.level is Level.FREE

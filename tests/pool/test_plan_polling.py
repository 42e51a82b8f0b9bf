"""Polls of a vendor's quota are rare, end outages that are over, and harm nothing."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import config
from relay.net.deadlines import Deadlines
from relay.pool import plan_polling
from relay.pool.leases import Upstreams
from relay.pool.outages import Level
from relay.pool.plan_polling import PlanPoller, PollState, remaining
from relay.pool.upstream import Upstream
from relay.pool.vendor_errors import Scope, Verdict
from relay.quota.ledger import Ledger
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.live import UPSTREAM_KEY, running_relay
from tests.fakes.until import until
from tests.fakes.upstream import JSON_ANSWER, OK, Answer, Seen, always, raw_upstream
from tests.fakes.upstream import Upstream as Raw

KIMI = [["usage", "remaining"], ["limits", "*", "detail", "remaining"]]
FULL = Verdict(Scope.ACCOUNT, 0.0, False, "403: usage limit reached")


def usages(week: object = "812", hours: object = "97") -> dict[str, Any]:
    """Kimi's answer: numbers as strings, the week, then the five hours."""
    return {
        "user": {"userId": "u", "membership": {"level": "LEVEL_BASIC"}},
        "usage": {"limit": "1024", "remaining": week, "resetTime": "2026-01-13T00:00:00Z"},
        "limits": [
            {
                "window": {"duration": 300, "timeUnit": "TIME_UNIT_MINUTE"},
                "detail": {"limit": "100", "remaining": hours, "resetTime": "2026-01-09T15:00:00Z"},
            }
        ],
    }


def answer_with(document: object) -> bytes:
    return answers.sized(json.dumps(document).encode())


# --- numbers in a document ---

DOCUMENTS: list[tuple[str, object, list[list[str]], list[float]]] = [
    ("Kimi's", usages(), KIMI, [812, 97]),
    ("Kimi's newer one, without a week", {"limits": usages()["limits"]}, KIMI, [97]),
    ("plain numbers", {"a": 3, "b": 2.5}, [["a"], ["b"]], [3, 2.5]),
    ("every value of a table", {"a": {"x": 1, "y": "2"}}, [["a", "*"]], [1, 2]),
    ("every element, of several", {"a": [[1, 2], [3]]}, [["a", "*", "*"]], [1, 2, 3]),
    ("a list at the top", [{"n": 7}, {"n": "8"}], [["*", "n"]], [7, 8]),
    ("more than there is", {"a": 1e300, "b": 10**400, "c": -1e30}, [["*"]], []),
    ("less than nothing", {"a": -3, "b": "-0.5"}, [["a"], ["b"]], [-3, -0.5]),
    ("nothing there", {"b": 1}, [["a"], ["b", "c"], ["b", "*"]], []),
    ("no numbers", {"a": True, "b": None, "c": "soon", "d": "", "e": [], "f": "nan"}, [["*"]], []),
    ("no endless ones", {"a": "inf", "b": "1e999", "c": "9" * 400}, [["*"]], []),
    ("a list has no names", {"a": [1]}, [["a", "0"]], []),
    ("no document", "812", KIMI, []),
]


@pytest.mark.parametrize(
    ("document", "paths", "numbers"),
    [row[1:] for row in DOCUMENTS],
    ids=[row[0] for row in DOCUMENTS],
)
def test_numbers_are_found_at_their_paths(
    document: object, paths: list[list[str]], numbers: list[float]
) -> None:
    assert remaining(document, paths) == numbers


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["usage", "limits", "detail", "remaining"]), inner)
    ),
    max_leaves=12,
)


@given(JSON, st.lists(st.sampled_from(["usage", "limits", "*", "detail", "remaining"]), max_size=4))
def test_any_document_yields_only_numbers(document: object, path: list[str]) -> None:
    for number in remaining(document, [path, *KIMI]):
        assert isinstance(number, float)


# --- when a poll is due ---


@contextlib.asynccontextmanager
async def pooled(*urls: str, every: float = 300.0) -> AsyncIterator[Upstreams]:
    """Upstreams of a vendor that can be polled."""
    tree = {
        "vendor": [
            {
                "name": "plan",
                "quota": {
                    "path": "/coding/v1/usages",
                    "left": "usage.remaining, limits.*.detail.remaining",
                    "every": every,
                },
            }
        ],
        "upstream": [
            {
                "name": f"u{number}",
                "base_url": f"{url}/coding",
                "api_key": UPSTREAM_KEY,
                "auth": "bearer",
                "vendor": "plan",
            }
            for number, url in enumerate(urls)
        ],
    }
    settings = config.parse(tree)
    timers = Deadlines(asyncio.get_running_loop())
    made = [Upstream(one, settings, timers) for one in settings.upstream]
    pool = Upstreams(made, settings.pool, Ledger(), timers)
    timers.start()
    try:
        yield pool
    finally:
        timers.stop()
        for upstream in pool:
            upstream.pool.close()


async def poll_state(now: float) -> PollState:
    async with pooled("http://127.0.0.1:9") as pool:
        quota = pool[0].vendor.quota
        assert quota is not None
        return PollState(pool[0], quota, now)


async def test_the_first_poll_comes_after_one_interval() -> None:
    now = 1_000_000.0
    one = await poll_state(now)
    assert not one.is_due(now + 299)
    assert one.is_due(now + 300)


@pytest.mark.parametrize("stated", [True, False], ids=["stated", "guessed"])
async def test_the_first_poll_comes_soon_after_a_quota_outage(stated: bool) -> None:
    now = 1_000_000.0
    one = await poll_state(now)
    assert not one.is_due(now + 50)
    outage = Verdict(Scope.ACCOUNT, now + 3000, stated, "limit")
    one.upstream.health.failed(outage, "m", now + 100)
    assert not one.is_due(now + 109)
    one.upstream.health.failed(outage, "m", now + 109)  # does not put the poll off
    assert one.is_due(now + 110)


@pytest.mark.parametrize("scope", [Scope.CREDENTIAL, Scope.MODEL, Scope.REQUEST, Scope.FAILURE])
async def test_no_other_outage_makes_a_poll_due(scope: Scope) -> None:
    now = 1_000_000.0
    one = await poll_state(now)
    one.upstream.health.failed(Verdict(scope, now + 3000, True, "trouble"), "m", now)
    assert not one.is_due(now + 299)


async def test_no_vendor_is_polled_more_often_than_its_interval() -> None:
    now = 1_000_000.0
    one = await poll_state(now)
    one.start(now)
    one.upstream.health.failed(Verdict(Scope.ACCOUNT, now + 3000, True, "limit"), "m", now + 1)
    assert not one.is_due(now + 299)
    assert one.is_due(now + 300)


async def test_a_paused_upstream_is_not_polled() -> None:
    now = 1_000_000.0
    one = await poll_state(now)
    one.upstream.health.pause()
    assert not one.is_due(now + 10_000)
    one.upstream.health.resume()
    assert one.is_due(now + 10_000)


# --- over real connections ---


@contextlib.asynccontextmanager
async def polled_once(answer: Answer) -> AsyncIterator[tuple[Raw, Upstream, PlanPoller]]:
    """One upstream with an outage for want of quota, after its first poll."""
    async with raw_upstream(answer) as raw, pooled(raw.url) as pool:
        upstream = pool[0]
        now = time.time()
        upstream.health.failed(FULL._replace(until=now + 600), "m", now - 1)
        poller = PlanPoller(pool)
        poller.check(now + 301)
        await until(lambda: poller._polls[0].runner is None)
        yield raw, upstream, poller


async def test_a_poll_asks_the_origin_with_the_upstreams_key() -> None:
    async with polled_once(always(answer_with(usages()))) as (raw, upstream, _):
        [seen] = raw.requests
        assert seen.head.startswith(b"GET /coding/v1/usages HTTP/1.1\r\n")
        assert seen.fields[b"authorization"] == f"Bearer {UPSTREAM_KEY}".encode()
        assert seen.fields[b"host"] == raw.url.removeprefix("http://").encode()
        assert b"content-length" not in seen.fields
        assert upstream.quota_left == 97
        assert "idle=1" in repr(upstream.pool)


@pytest.mark.parametrize(
    "octets",
    [
        answer_with(usages()),
        answers.chunked([json.dumps(usages()).encode()[:50], json.dumps(usages()).encode()[50:]]),
    ],
    ids=["sized", "chunked"],
)
async def test_remaining_quota_ends_the_outage(octets: bytes) -> None:
    async with polled_once(always(octets)) as (_, upstream, _):
        assert upstream.health.account_outage is None
        assert upstream.health.level("m", time.time()) is Level.FREE
        assert not upstream.health.degraded


@pytest.mark.parametrize(
    ("document", "number"),
    [(usages(hours="0"), 0), (usages(week=0), 0), (usages(week="-1"), -1)],
)
async def test_an_empty_quota_leaves_the_outage(document: object, number: int) -> None:
    async with polled_once(always(answer_with(document))) as (_, upstream, _):
        assert upstream.quota_left == number
        assert upstream.health.account_outage is not None


async def test_an_outage_that_began_after_the_poll_stays() -> None:
    gate = asyncio.Event()

    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        await gate.wait()
        writer.write(answer_with(usages()))

    async with raw_upstream(answer) as raw, pooled(raw.url) as pool:
        poller = PlanPoller(pool)
        now = time.time() + 301
        poller.check(now)
        await raw.asked.wait()
        pool[0].health.failed(FULL._replace(until=now + 600), "m", now + 1)
        gate.set()
        await until(lambda: poller._polls[0].runner is None)
        assert pool[0].quota_left == 97
        assert pool[0].health.account_outage is not None


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(Scope.CREDENTIAL, 2e9, False, "401: does not accept the credential"),
        Verdict(Scope.FAILURE, 2e9, True, "503: it failed"),
        Verdict(Scope.MODEL, 2e9, True, "429: limit of this model reached"),
    ],
)
async def test_an_outage_that_is_not_about_quota_stays(verdict: Verdict) -> None:
    async with raw_upstream(always(answer_with(usages()))) as raw, pooled(raw.url) as pool:
        poller = PlanPoller(pool)
        pool[0].health.failed(verdict, "m", time.time() - 1)
        poller.check(time.time() + 301)
        await until(lambda: pool[0].quota_left == 97)
        assert pool[0].health.level("m", time.time()) > Level.STRAINED


FAILING: dict[str, bytes] = {
    "401": answers.sized(b'{"error":{"message":"no"}}', b"401 Unauthorized"),
    "404-without-a-body": answers.sized(b"", b"404 Not Found"),
    "500": answers.sized(json.dumps(usages()).encode(), b"500 Oops"),
    "html": answers.sized(b"<html></html>", kind=b"text/html"),
    "no-number": answer_with({"usage": {}, "limits": []}),
    "not-even-a-table": answer_with(None),
    "no-http": b"\x16\x03\x01 this is no HTTP\r\n\r\n",
    "too-long": answers.sized(b'{"usage":{"remaining":1},"x":"' + b"x" * 2_000_000 + b'"}'),
    "cut": answers.head(b"200 OK", b"content-length: 400") + b'{"usage":',
}


@pytest.mark.parametrize("name", FAILING)
async def test_a_failed_poll_changes_nothing_and_is_logged_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="relay.pool")
    async with polled_once(always(FAILING[name], close=True)) as (raw, upstream, poller):
        assert upstream.quota_left is None
        assert upstream.health.account_outage is not None
        assert (upstream.in_flight, upstream.health.failures) == (0, 0)
        poller.check(time.time() + 700)
        await until(lambda: len(raw.requests) == 2)
        await until(lambda: poller._polls[0].runner is None)
    [entry] = [one for one in caplog.records if one.name == "relay.pool"]
    assert entry.levelno == logging.INFO
    assert "cannot read the quota" in entry.message
    assert UPSTREAM_KEY not in entry.message


async def test_a_failure_after_a_successful_poll_is_logged_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="relay.pool")
    script = [FAILING["401"], FAILING["401"], answer_with(usages()), FAILING["401"]]

    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        writer.write(script.pop(0))

    async with raw_upstream(answer) as raw, pooled(raw.url) as pool:
        poller = PlanPoller(pool)
        for count in range(1, 5):
            poller.check(time.time() + 301 * count)
            await until(lambda: poller._polls[0].runner is None)
        assert pool[0].quota_left == 97
    said = [one.message for one in caplog.records if "cannot read the quota" in one.message]
    assert len(said) == 2


async def test_a_closed_idle_connection_is_no_failed_poll(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="relay.pool")

    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        if (seen.connection, len(raw.requests)) == (1, 2):
            writer.close()  # as the second request arrives
        else:
            writer.write(answer_with(usages()))

    async with raw_upstream(answer) as raw, pooled(raw.url) as pool:
        poller = PlanPoller(pool)
        poller.check(time.time() + 301)
        await until(lambda: pool[0].quota_left == 97)
        pool[0].quota_left = None
        poller.check(time.time() + 1000)
        await until(lambda: pool[0].quota_left == 97)
        assert (raw.connections, len(raw.requests)) == (2, 3)
    assert caplog.records == []


async def test_a_silent_vendor_times_out_and_delays_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="relay.pool")

    async def silent(reader: asyncio.StreamReader, writer: object, seen: Seen) -> None:
        await reader.read(1)

    async with (
        raw_upstream(silent) as one,
        raw_upstream(always(answer_with(usages()))) as other,
        pooled(one.url, other.url) as pool,
    ):
        poller = PlanPoller(pool)
        now = time.time() + 301
        poller.check(now)
        await until(lambda: pool[1].quota_left == 97)
        poller.check(now + 29)
        assert poller._polls[0].runner is not None
        poller.check(now + 31)
        await until(lambda: poller._polls[0].runner is None)
        await one.closed.wait()
    assert "no answer within 30 s" in caplog.text


async def test_polls_in_flight_end_with_the_relay() -> None:
    async def silent(reader: asyncio.StreamReader, writer: object, seen: Seen) -> None:
        await reader.read(1)

    async with raw_upstream(silent) as raw, pooled(raw.url) as pool:
        poller = PlanPoller(pool)
        running = asyncio.ensure_future(poller.run())
        poller.check(time.time() + 301)
        await raw.asked.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await raw.closed.wait()
        assert poller._polls[0].runner is None


async def test_without_a_vendor_to_poll_the_poller_returns(tmp_path: Path) -> None:
    async with running_relay(tmp_path, "http://127.0.0.1:9") as relay:
        await asyncio.wait_for(PlanPoller(relay.app.upstreams).run(), 1)


# --- end to end ---


async def test_an_upstream_is_used_again_once_its_plan_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upstream that was out is polled, and requests return to it."""
    monkeypatch.setattr(plan_polling, "_CHECK_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(plan_polling, "_FIRST_POLL_SECONDS", 0.05)
    refusal = answers.sized(
        b'{"error":{"type":"access_terminated_error","message":'
        b'"You\'ve reached your usage limit for this billing cycle."}}',
        b"403 Forbidden",
    )

    async def kimi(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        if seen.head.startswith(b"GET /coding/v1/usages "):
            writer.write(answer_with(usages()))
        else:
            writer.write(refusal if len(raw.requests) == 1 else OK)

    async with raw_upstream(kimi) as raw, raw_upstream(always(OK)) as spare:
        upstreams = [
            {
                "name": "plan",
                "base_url": f"{raw.url}/coding",
                "api_key": UPSTREAM_KEY,
                "vendor": "kimi",
            },
            {"name": "spare", "base_url": spare.url, "api_key": UPSTREAM_KEY, "priority": 1},
        ]
        routes = [{"upstream": "plan", "model": "k3"}, {"upstream": "spare"}]
        models = [{"id": "claude-sonnet-4-7", "routes": routes}]
        async with (
            running_relay(tmp_path, "", upstream=upstreams, model=models) as relay,
            connected(relay.port) as (reader, writer),
        ):
            polling = asyncio.ensure_future(PlanPoller(relay.app.upstreams).run())
            writer.write(request(relay.key))
            assert (await read_answer(reader))[::2] == (200, JSON_ANSWER)
            assert len(spare.requests) == 1
            assert relay.app.upstreams[0].health.account_outage is not None
            await until(lambda: relay.app.upstreams[0].health.account_outage is None)
            other = [{"role": "user", "content": "another session, as the first one stays"}]
            writer.write(request(relay.key, {**BODY, "messages": other}))
            assert (await read_answer(reader))[0] == 200
            assert len(spare.requests) == 1
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
            view = {one["name"]: one for one in relay.app.upstreams.view()}
        assert (view["plan"]["left"], view["plan"]["state"]) == (97, "ok")

"""One caller's requests, refused for reasons of their own, take no upstream from anybody else."""

import asyncio
import json
import time
from typing import Any

import pytest

from relay.pool import clock
from tests.attacks.verdicts import COUNT, MARK, NAMES, PROBED, Scene, answering, error, scene
from tests.fakes import answers
from tests.fakes.live import RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import OK, Answer, Seen, UpstreamWith

PAGE = b"<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head></html>"
RETRY = b"retry-after: 3000"
ROWS: dict[str, bytes | None] = {
    "fast-mode-by-its-fields": error(
        429, "rate_limit_error", "Too fast", RETRY, b"anthropic-fast-input-tokens-remaining: 0"
    ),
    "fast-mode-by-its-words": error(
        429, "rate_limit_error", "This would exceed the rate limit of fast mode", RETRY
    ),
    "fast-mode-without-a-word": error(429, "rate_limit_error", "Rate limited", RETRY),
    "a-429-without-anything": error(429, "rate_limit_error", "Error"),
    "long-context": error(
        429, "rate_limit_error", "Extra usage is required for long context requests.", RETRY
    ),
    "a-firewalls-403": answers.sized(PAGE, b"403 Forbidden", kind=b"text/html"),
    "a-firewalls-401": answers.sized(PAGE, b"401 Unauthorized", kind=b"text/html"),
    "a-bare-403": answers.sized(b"", b"403 Forbidden"),
    "a-bare-401": answers.sized(b"", b"401 Unauthorized"),
    "a-beta-that-is-not-allowed": error(
        403, "permission_error", "This beta feature is not enabled for your organization"
    ),
    "a-file-that-is-not-there": error(404, "not_found_error", "File not found: file_x"),
    "a-container-that-is-not-there": error(404, "not_found_error", "Container c was not found"),
    "a-404-without-words": answers.sized(b"", b"404 Not Found"),
    "an-echo-of-the-words-of-a-balance": error(
        400, "invalid_request_error", "credit balance is too low: Extra inputs are not permitted"
    ),
    "a-closed-connection": None,
    "an-error-of-500": error(500, "api_error", "Internal server error"),
    "an-error-of-503-that-says-when": error(503, "api_error", "Unavailable", RETRY),
    "an-answer-that-is-none": answers.sized(b"hello", kind=b"text/plain"),
    "no-http": b"\x16\x03\x01 garbage \r\n\r\n",
}


@pytest.mark.matrix(share=2)
@pytest.mark.parametrize(
    ("target", "vendor"),
    [("/v1/messages", "anthropic"), (COUNT, "generic")],
    ids=["messages", "count"],
)
@pytest.mark.parametrize("bad", ROWS.values(), ids=ROWS)
async def test_a_refused_request_harms_no_other_caller(
    upstream_with: UpstreamWith, relay_with: RelayWith, bad: bytes | None, target: str, vendor: str
) -> None:
    at = await scene(upstream_with, relay_with, answering(bad), vendor=vendor)
    for reply in await at.attack(4, target=target):
        assert reply.status >= 400
    await at.assert_nobody_else_is_harmed()


@pytest.mark.parametrize("target", ["/v1/messages", COUNT], ids=["messages", "count"])
@pytest.mark.parametrize("name", ["a-file-that-is-not-there", "a-container-that-is-not-there"])
async def test_a_missing_file_is_asked_for_once(
    upstream_with: UpstreamWith, relay_with: RelayWith, name: str, target: str
) -> None:
    bad = ROWS[name]
    at = await scene(upstream_with, relay_with, answering(bad))
    [reply] = await at.attack(target=target)
    assert (reply.status, sum(at.bad_requests())) == (404, 1)
    assert bad is not None
    assert bad.endswith(reply.payload)


async def test_a_firewalls_page_becomes_an_error_that_says_so(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    at = await scene(upstream_with, relay_with, answering(ROWS["a-firewalls-403"]))
    [reply] = await at.attack()
    assert reply.status == 403
    assert "firewall" in reply.message
    assert sum(at.bad_requests()) == 2


@pytest.mark.parametrize("name", ["a-closed-connection", "an-error-of-500", "no-http"])
async def test_a_body_that_breaks_two_upstreams_goes_to_no_third(
    upstream_with: UpstreamWith, relay_with: RelayWith, name: str
) -> None:
    at = await scene(upstream_with, relay_with, answering(ROWS[name]))
    [reply] = await at.attack()
    assert (reply.status, sorted(at.bad_requests())) == (502, [0, 1, 1])
    assert "Change the request" in reply.message
    assert reply.fields[b"x-should-retry"] == b"false"
    failures = [one.health.failures for one in at.relay.app.upstreams if one.name in NAMES]
    assert failures == [0, 0, 0]


async def test_two_broken_upstreams_hide_no_third(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    """What fails for every request, the relay's own included, is no fault of a body."""
    broken: set[int] = set()

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        port = writer.get_extra_info("sockname")[1]
        if port in broken:
            writer.transport.abort()
        else:
            writer.write(PROBED if b"count_tokens" in seen.head else OK)

    at = await scene(upstream_with, relay_with, answer)
    broken.update(int(upstream.url.rpartition(":")[2]) for upstream in at.upstreams[:2])
    for number in range(20):
        assert (await at.ask(f"{number}")).status == 200


# --- connections that die -----------------------------------------------------------


def dying(bad: bytes | None, after: float, once: bool = True) -> Answer:
    """Serve a connection's first request; let later ones of the attacker die after a while."""
    first: set[int] = set()

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        if seen.connection not in first or MARK.encode() not in seen.body:
            first.add(seen.connection)
            writer.write(PROBED if b"count_tokens" in seen.head else OK)
            return
        await asyncio.sleep(after)
        if bad is not None:
            writer.write(bad)
        writer.close()

    return answer


async def warmed(at: Scene) -> None:
    """Each upstream has a used connection."""
    for number in range(6):
        assert (await at.ask(f"warm {number}")).status == 200


GOODBYE = answers.sized(b"", b"408 Request Timeout", b"connection: close")


@pytest.mark.parametrize("bad", [None, GOODBYE], ids=["closes", "408"])
async def test_a_connection_that_dies_at_once_is_replaced(
    upstream_with: UpstreamWith, relay_with: RelayWith, bad: bytes | None
) -> None:
    at = await scene(upstream_with, relay_with, dying(bad, 0.0))
    await warmed(at)
    for reply in await at.attack(6):
        assert reply.status == 200
    assert "tried" not in at.relay.log()[-1]  # no failure of an upstream


@pytest.mark.parametrize("bad", [None, GOODBYE], ids=["closes", "408"])
async def test_a_connection_that_dies_late_is_a_failure(
    upstream_with: UpstreamWith, relay_with: RelayWith, bad: bytes | None
) -> None:
    """The upstream may have worked on the request: it does not get it twice."""
    at = await scene(upstream_with, relay_with, dying(bad, 1.1))
    await warmed(at)
    [reply] = await at.attack()
    assert reply.status == 200  # of another upstream
    assert max(at.bad_requests()) == 1


async def test_a_408_is_never_shown(upstream_with: UpstreamWith, relay_with: RelayWith) -> None:
    at = await scene(upstream_with, relay_with, answering(GOODBYE))
    for reply in await at.attack(3):
        assert reply.status == 502


# --- silence ------------------------------------------------------------------------


async def test_only_one_caller_meets_a_silent_upstream(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    silent = False

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        if not silent or writer.get_extra_info("sockname")[1] != port:
            writer.write(PROBED if b"count_tokens" in seen.head else OK)

    port = 0
    times = {"first_byte": 0.5}
    at = await scene(upstream_with, relay_with, answer, timeouts=times)
    port = int(at.upstreams[0].url.rpartition(":")[2])
    silent = True
    replies = [await at.ask(f"{number}") for number in range(3)]
    assert sorted(reply.status for reply in replies) == [200, 200, 504]
    health = at.relay.app.upstreams[0].health
    await until(lambda: health.failing, within=3)
    for again in range(3):
        health.probe_at = 0.0  # its ten seconds are over
        asked = [at.ask(f"{again} {number}", key=at.honest) for number in range(6)]
        assert {reply.status for reply in await asyncio.gather(*asked)} == {200}
        await until(lambda: health.failing and health.probe_at > 1, within=3)
    silent = False

    def works_again() -> bool:
        if health.probe_at > 1:  # a probe that was on its way has set the next one's time
            health.probe_at = 0.0
        return not health.failing

    await until(works_again, within=3)
    came = len(at.upstreams[0].requests)
    assert (await at.ask("it works again")).status == 200
    assert len(at.upstreams[0].requests) == came + 1


async def test_a_request_that_is_answered_late_harms_nobody(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    at = await scene(
        upstream_with, relay_with, answering(OK, delay=2.0), timeouts={"first_byte": 0.3}
    )
    for reply in await at.attack(3):
        assert reply.status == 504
    await asyncio.sleep(0.5)
    await at.assert_nobody_else_is_harmed()


# --- what two callers show ----------------------------------------------------------


@pytest.mark.parametrize("name", ["a-bare-401", "a-bare-403", "fast-mode-without-a-word"])
async def test_two_callers_take_an_upstream_out(
    upstream_with: UpstreamWith, relay_with: RelayWith, name: str
) -> None:
    at = await scene(upstream_with, relay_with, answering(ROWS[name]))
    await at.attack()
    await at.attack(key=at.honest)
    states = {row["state"] for row in at.view()}
    assert states <= {"down", "cooling"}


ACCOUNT: dict[str, dict[str, Any]] = {
    "disabled": {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "This organization has been disabled.",
        },
    },
    "quota": {
        "code": 0,
        "message": "Insufficient quota available for instant inference",
        "type": "invalid_request_error",
    },
    "balance": {"error": {"message": "Insufficient Balance", "type": "unknown_error"}},
}


@pytest.mark.parametrize("target", ["/v1/messages", "/v1/chat/completions"])
@pytest.mark.parametrize("vendor", ["generic", "anthropic"])
@pytest.mark.parametrize("document", ACCOUNT.values(), ids=ACCOUNT)
async def test_an_operators_account_is_no_callers_fault(
    upstream_with: UpstreamWith,
    relay_with: RelayWith,
    document: dict[str, Any],
    vendor: str,
    target: str,
) -> None:
    bad = answers.sized(json.dumps(document).encode(), b"400 Bad Request")
    at = await scene(upstream_with, relay_with, answering(bad), vendor=vendor)
    [reply] = await at.attack(target=target)
    assert reply.status == 503
    assert sum(at.bad_requests()) == 3
    assert "disabled" not in reply.message
    assert "nsufficient" not in reply.message
    assert {row["state"] for row in at.view()} == {"down"}


# --- the clock ----------------------------------------------------------------------


@pytest.mark.parametrize("step", [-3600.0, 3600.0], ids=["back", "forward"])
async def test_a_stepped_clock_changes_no_cooldown(
    upstream_with: UpstreamWith,
    relay_with: RelayWith,
    monkeypatch: pytest.MonkeyPatch,
    step: float,
) -> None:
    bad = error(429, "rate_limit_error", "Rate limited", b"retry-after: 1")
    upstream = await upstream_with(answering(bad))
    relay = await relay_with(upstream, pool={"wait": 0})
    at = Scene(relay, [upstream], relay.key)
    await at.attack()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + step)
    refused = await at.ask("too early")
    assert (refused.status, refused.fields[b"retry-after"]) == (503, b"1")
    await asyncio.sleep(1.1)
    assert (await at.ask("in time")).status == 200


def test_a_stated_date_is_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    assert clock.converted(time.time() + 20) == pytest.approx(clock.now() + 20, abs=0.1)
    assert clock.shown(clock.now() + 20) == pytest.approx(time.time() + 20, abs=0.1)

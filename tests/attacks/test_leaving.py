"""A caller who leaves pays for the work that they caused, and leaves nothing behind."""

import asyncio

import pytest

from relay.gateway import large_requests
from tests.attacks.verdicts import MARK, error, scene
from tests.fakes import caller
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import OK, Seen, UpstreamWith

PARTS = b'{"type":"text","text":"a"},' * 30_000
BODY = b'{"model":"claude-haiku-4-5","messages":[{"role":"user","content":[' + PARTS[:-1] + b"]}]}"


async def test_a_caller_who_leaves_while_it_is_read_pays(relay_with: RelayWith) -> None:
    relay = await relay_with(plan=[{"id": "free", "limits": [{"requests": 5, "per": "1m"}]}])
    for _ in range(20):
        async with connected(relay.port) as (_, writer):
            writer.write(request(relay.key, BODY, target="/v1/chat/completions"))
            await writer.drain()
            await asyncio.sleep(0.02)  # the body is read meanwhile
    assert not large_requests._reading
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key))
        assert (await read_answer(reader))[0] == 429


@pytest.mark.parametrize("bad", [None, error(500, "api_error", "No")], ids=["closes", "500"])
async def test_a_caller_who_leaves_during_probes_hides_no_failure(
    upstream_with: UpstreamWith, relay_with: RelayWith, bad: bytes | None
) -> None:
    probes = 0

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        nonlocal probes
        if b"count_tokens" in seen.head:  # a probe, which hangs
            probes += 1
        elif MARK.encode() not in seen.body:
            writer.write(OK)
        elif bad is None:
            writer.close()
        else:
            writer.write(bad)

    at = await scene(upstream_with, relay_with, answer)
    body = {**caller.BODY, "messages": [{"role": "user", "content": MARK}]}
    async with connected(at.relay.port) as (_, writer):
        writer.write(request(at.relay.key, body))
        await until(lambda: probes)
    await until(lambda: len(at.relay.log()) == 1)
    upstreams = list(at.relay.app.upstreams)
    failures = [one.health.failures for one in upstreams]
    assert sorted(failures) == [0, 1, 1]
    assert [bool(one.health.errors) for one in upstreams] == [bool(one) for one in failures]
    assert [one.in_flight for one in upstreams] == [0, 0, 0]


@pytest.mark.parametrize("step", ["RoutingRequest", "KeepAlive"])
@pytest.mark.parametrize("stream", [False, True], ids=["document", "stream"])
async def test_no_failure_after_the_admission_keeps_a_reservation(
    relay_with: RelayWith, monkeypatch: pytest.MonkeyPatch, step: str, stream: bool
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    plan = {"id": "free", "limits": [{"requests": 5, "per": "5h"}], "max_concurrency": 1}
    relay = await relay_with(plan=[plan])
    with monkeypatch.context() as patched:
        patched.setattr(f"relay.gateway.relay.{step}", fail)
        async with connected(relay.port) as (reader, writer):
            writer.write(request(relay.key, {**caller.BODY, "stream": stream}))
            status, fields, _ = await read_answer(reader)
    if step == "RoutingRequest" or stream:
        assert (status, fields[b"x-ratelimit-remaining"]) == (500, b"5")
    async with connected(relay.port) as (reader, writer):
        writer.write(request(relay.key))
        assert (await read_answer(reader))[0] == 200

"""Upstreams that cannot be reached, die between two requests, or fail at random."""

import asyncio
import contextlib
import json
import random
import re
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.simulator.script import parse
from tests.clients.conftest import TRUST
from tests.fakes.caller import BODY
from tests.fakes.listening import listening
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until
from tests.faults.conftest import DEADLINE, IN_TIME, Setup, starting
from tests.faults.outcomes import OUTCOMES

ACCOUNT = (
    r"upstream main 40[123]: "
    r"(does not accept the credential|payment required|the account is short)"
)
TIMES = {"connect": DEADLINE, "first_byte": DEADLINE, "silence": DEADLINE}
QUICK = {"upstream_options": {"timeouts": TIMES}}


def client_of(relay: Live, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=relay.url, headers=relay.headers, verify=TRUST, **{"timeout": 5, **options}
    )


def unreachable(answer: httpx.Response) -> bool:
    error = answer.json()["error"]
    return (answer.status_code, error["type"]) == (503, "overloaded_error")


# --- no connection ------------------------------------------------------------------


async def test_a_down_upstream_fails_at_once(relay_with: RelayWith) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    relay = await relay_with(f"http://127.0.0.1:{port}", **QUICK)
    async with client_of(relay) as client:
        answer = await client.post("/v1/messages", json=BODY)
        assert unreachable(answer)
        assert answer.elapsed.total_seconds() < 0.3
        assert str(port) not in answer.text  # the address concerns only the operator
        assert relay.log()[0]["outcome"].startswith("refused: ")


async def test_an_upstream_that_accepts_nothing_fails_in_time(relay_with: RelayWith) -> None:
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # with a full backlog, the kernel drops further connections
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        relay = await relay_with(f"http://127.0.0.1:{full.getsockname()[1]}", **QUICK)
        async with client_of(relay) as client:
            answer = await client.post("/v1/messages", json=BODY)
            assert unreachable(answer)
            assert 0.3 < answer.elapsed.total_seconds() < IN_TIME


async def test_an_unresolvable_name_fails(relay_with: RelayWith) -> None:
    relay = await relay_with("http://upstream.invalid:8080", **QUICK)
    async with client_of(relay) as client:
        answer = await client.post("/v1/messages", json=BODY)
        assert unreachable(answer)
        assert "upstream.invalid" not in answer.text


@pytest.mark.parametrize("octets", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01", b""])
async def test_an_upstream_without_tls_fails_in_time(
    stack: contextlib.AsyncExitStack, relay_with: RelayWith, octets: bytes
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(octets)
        await reader.read(-1)  # without octets: a handshake that stalls

    port = await stack.enter_async_context(listening(answer))
    relay = await relay_with(f"https://127.0.0.1:{port}", **QUICK)
    async with client_of(relay) as client:
        got = await client.post("/v1/messages", json=BODY)
        assert unreachable(got)
        assert got.elapsed.total_seconds() < IN_TIME


# --- a connection that dies between two requests ------------------------------------


@pytest.mark.parametrize("fault", ["fault=close", "fault=reset;at=0"])
async def test_only_an_unanswered_reused_connection_is_retried_once(
    setup: Setup, fault: str
) -> None:
    relay = setup.relay
    async with client_of(relay) as client:
        seen = setup.simulator.journal
        assert (await client.post("/v1/messages", json=BODY)).status_code == 200
        setup.simulator.scripts.append(parse(fault))
        assert (await client.post("/v1/messages", json=BODY)).status_code == 200
        assert seen.requests == 3  # retried on a new connection
        refused = await client.post("/v1/messages", json=BODY, headers={"x-simulate": fault})
        assert refused.status_code == 502
        assert seen.requests == 5  # the second failure is final
        refused = await client.post("/v1/messages", json=BODY, headers={"x-simulate": fault})
        assert refused.status_code == 502
        assert seen.requests == 6  # so is the first failure of a new connection
    await setup.settled()


@pytest.mark.parametrize("fault", ["half-head", "garbage", "cut;at=0", "cut", "stall-head"])
async def test_a_request_the_upstream_may_have_run_is_not_resent(setup: Setup, fault: str) -> None:
    relay = setup.relay
    async with client_of(relay) as client:
        assert (await client.post("/v1/messages", json=BODY)).status_code == 200
        with contextlib.suppress(httpx.RemoteProtocolError):
            await client.post("/v1/messages", json=BODY, headers={"x-simulate": f"fault={fault}"})
        assert setup.simulator.journal.requests == 2
    await setup.settled()


async def test_connections_closed_by_the_upstream_are_not_reused(setup: Setup) -> None:
    relay = setup.relay
    async with client_of(relay) as client:
        ask = [client.post("/v1/messages", json=BODY) for _ in range(20)]
        assert {answer.status_code for answer in await asyncio.gather(*ask)} == {200}
        await until(lambda: setup.relay.keeps_idle(len(setup.upstream.connections)))
        assert setup.upstream.connections
        for connection in tuple(setup.upstream.connections):
            connection.shut()
        ask = [client.post("/v1/messages", json=BODY) for _ in range(20)]
        assert {answer.status_code for answer in await asyncio.gather(*ask)} == {200}
        assert setup.simulator.journal.requests == 40
    await setup.settled()


# --- anything, at random ------------------------------------------------------------


async def test_good_requests_survive_hundreds_of_random_faults(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(2026)
    scripts = [script for script, (one, _) in OUTCOMES.items() if not one.slow and not one.holds]

    async with (
        starting(tmp_path, 10.0) as setup,
        client_of(setup.relay, timeout=30, limits=httpx.Limits(max_connections=16)) as client,
    ):

        async def fault() -> None:
            body = {**BODY, "stream": chance.random() < 0.5}
            headers = {"x-simulate": chance.choice(scripts)}
            with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):
                await client.post("/v1/messages", json=body, headers=headers)

        async def good(number: int) -> None:
            messages: Any = [{"role": "user", "content": f"number {number}"}]
            answer = await client.post("/v1/messages", json={**BODY, "messages": messages})
            assert answer.status_code == 200
            assert f"“number {number}”" in json.loads(answer.content)["content"][0]["text"]

        await asyncio.gather(
            *(good(number) if number % 3 == 0 else fault() for number in range(300))
        )
        await client.aclose()
        await setup.settled()
        assert len(setup.relay.log()) == 300
        # Only account errors are logged: nothing failed within the relay.
        errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
        assert [said for said in errors if not re.search(ACCOUNT, said)] == []

"""Paths that a worker does not serve: its owner answers, as if the caller had come to it."""

import asyncio
import json
import ssl
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from relay.accounts import admin_keys
from relay.accounts.admin_keys import SCOPES
from relay.api.endpoints import dialects
from relay.api.paths import RELAYED
from relay.gateway.history import ConversationHistory
from relay.net.exchange import Exchange
from tests.fakes.caller import connected, exchange, read_answer, request
from tests.fakes.http2 import get, http2_caller
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until
from tests.net.pems import trusting, write_pair
from tests.web.visitor import HTML, WEB, Visitor
from tests.workers.conftest import FrontWith
from tests.workers.forwarding import HERE, Front, running_front

OWN = [
    ("POST", "/v1/messages?beta=true"),
    ("POST", "/v1/v1/messages/"),
    ("POST", "/v1/messages/count_tokens"),
    ("POST", "/chat/completions"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/responses/compact"),
    ("POST", "/v1/responses/input_tokens"),
    ("OPTIONS", "/v1/messages"),
    ("OPTIONS", "/v1/usage"),
    ("GET", "/v1/models"),
    ("GET", "/models"),
    ("GET", "/v1/models/claude-haiku-4-5"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/api/hello"),
    ("POST", "/api/event_logging/batch"),
]
OWNERS = [
    ("GET", "/", 200),
    ("GET", "/login", 200),
    ("GET", "/docs", 200),
    ("GET", "/static/nothing.css", 404),
    ("GET", "/v1/usage", 200),
    ("GET", "/v1/messages", 405),
    ("POST", "/v1/models", 405),
    ("DELETE", "/v1/responses/resp_1", 404),
    ("POST", "/v1/responses/resp_1/cancel", 404),
    ("GET", "/v1/responses/resp_1/input_items", 404),
    ("POST", "/v1/embeddings", 404),
    ("POST", "/v1/trickle", 404),
    ("GET", "/api/v1/people", 401),
    ("GET", "/nothing", 404),
    ("OPTIONS", "/login", 405),
    ("GET", "/sk-abcdefghijklmnopqrstuvwxyz", 401),
]
# They differ from one answer to the next.
VARYING = {b"request-id", b"x-request-id", b"server-timing", b"date", b"set-cookie"}


async def answer_to(port: int, octets: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    async with connected(port) as (reader, writer):
        writer.write(octets)
        return await read_answer(reader)


def test_a_worker_serves_every_relayed_path() -> None:
    assert set(dialects(bytes(32), ConversationHistory(None))) == RELAYED


@pytest.mark.parametrize(("method", "target"), OWN)
async def test_a_worker_serves_its_own_paths(front: Front, method: str, target: str) -> None:
    octets = request(front.relay.key, b"", target=target, method=method)
    status, _, body = await answer_to(front.port, octets)
    assert (status, body) == (200, HERE)
    assert not front.relay.log()
    assert len(front.worker_log()) == 1


@pytest.mark.parametrize(("method", "target", "status"), OWNERS)
async def test_the_owner_answers_every_other_path(
    front: Front, method: str, target: str, status: int
) -> None:
    octets = request(front.relay.key, b"", target=target, method=method)
    there = await answer_to(front.relay.port, octets)
    assert there[0] == status
    here = await answer_to(front.port, octets)
    assert here[0] == status
    assert here[1].keys() == there[1].keys()
    kept = here[1].keys() - VARYING
    if status < 400:  # the document of an error has the id of its request
        assert {k: here[1][k] for k in kept} == {k: there[1][k] for k in kept}
    assert len(here[2]) == len(there[2])


async def test_the_owner_knows_whether_a_shared_ledger_is_there(live: Live, tmp_path: Path) -> None:
    octets = request("", b"", target="/readyz", method="GET")
    async with running_front(live, tmp_path, shares_ledger=True) as front:
        assert (await answer_to(front.port, octets))[::2] == (200, b"ready\n")


async def test_a_forwarded_request_is_logged_once(front: Front) -> None:
    octets = request(front.relay.key, b"", target="/v1/usage", method="GET")
    _, fields, _ = await answer_to(front.port, octets)
    [line] = front.relay.log()
    assert line["id"].encode() == fields[b"request-id"]
    assert (line["path"], line["status"], line["outcome"]) == ("/v1/usage", 200, "whole")
    assert line["peer"] == "127.0.0.1"
    assert not front.worker_log()


async def test_a_forwarded_request_is_counted_once(front: Front) -> None:
    load = front.relay.app._parts.load
    before = load.in_flight
    held, release = asyncio.Event(), asyncio.Event()

    async def endpoint(ctx: Any) -> None:
        held.set()
        await release.wait()
        ctx.exchange.respond(200, [], b"")

    front.relay.app.handler._endpoints.mount(b"/held", endpoint)
    asking = asyncio.create_task(
        answer_to(front.port, request(None, b"", target="/held", method="GET"))
    )
    await held.wait()
    assert load.in_flight == before + 1
    assert front.worker.load.in_flight == 0
    release.set()
    assert (await asking)[0] == 200
    assert not front.worker.metrics.series()
    assert sum(sum(one.by_status) for one in front.relay.app._parts.requests.series()) == 1


async def test_a_visitor_signs_up_and_logs_in_at_a_worker(front: Front) -> None:
    front.relay.url = front.url
    async with Visitor(front.relay) as visitor:
        await visitor.sign_up()
        assert (await visitor.get("/dashboard")).status_code == 200
        assert (await visitor.new_key()).startswith("sk-")
    async with Visitor(front.relay) as visitor:
        assert (await visitor.log_in()).status_code == 303


async def test_a_head_request_gets_the_length_of_the_page(front: Front) -> None:
    async with httpx.AsyncClient(base_url=front.url, headers=HTML) as client:
        page = await client.get("/setup.sh")
        head = await client.head("/setup.sh")
        assert head.headers["content-length"] == str(len(page.content))
        assert head.content == b""
        assert (await client.get("/setup.sh")).content == page.content  # on the same connection


async def test_pipelined_requests_are_answered_in_order(front: Front) -> None:
    targets = ["/v1/usage", "/healthz", "/nothing", "/v1/models", "/v1/usage"]
    async with connected(front.port) as (reader, writer):
        writer.write(
            b"".join(request(front.relay.key, b"", target=one, method="GET") for one in targets)
        )
        statuses = [(await read_answer(reader))[0] for _ in targets]
    assert statuses == [200, 200, 404, 200, 200]


async def test_a_page_goes_over_http2(front: Front) -> None:
    async with http2_caller(front.port) as caller:
        fields = ("accept", "text/html")
        page = await caller.answer(caller.request(get("/docs", fields)))
        plain = await caller.answer(caller.request(get("/nothing")))
    assert page.status == 200
    assert b"</html>" in page.payload
    assert int(page.fields["content-length"]) == len(page.payload)
    assert plain.status == 404
    assert {line["id"] for line in front.relay.log()} == {
        page.fields["request-id"],
        plain.fields["request-id"],
    }


async def test_an_admin_key_makes_users_through_a_worker(front: Front) -> None:
    database, settings = front.relay.app.database, front.relay.settings
    issued = await admin_keys.create(database, settings, list(SCOPES), now=time.time())
    headers = {"authorization": f"Bearer {issued.key.reveal()}"}
    async with httpx.AsyncClient(base_url=front.url, headers=headers) as client:
        made = await client.post("/api/v1/people", json={"email": "lin@example.com"})
        assert made.status_code == 201, made.text
        too_long = await client.post("/api/v1/people", content=b" " * 1_000_000)
    assert too_long.status_code == 413
    assert too_long.json()["request_id"] == too_long.headers["request-id"]


# --- the caller, as the owner's rules see it ---


async def test_the_callers_address_is_that_of_the_proxy_rules(front_with: FrontWith) -> None:
    front = await front_with(server={"trusted_proxies": ["127.0.0.1"]})
    fields = "x-forwarded-for: 203.0.113.9\r\n"
    octets = request(None, b"", target="/nothing", method="GET", fields=fields)
    await answer_to(front.port, octets)
    assert [line["peer"] for line in front.relay.log()] == ["203.0.113.9"]


async def test_a_caller_cannot_invent_its_address(front: Front) -> None:
    fields = "x-forwarded-for: 203.0.113.9\r\nx-real-ip: 203.0.113.9\r\nforwarded: for=a\r\n"
    octets = request(None, b"", target="/nothing", method="GET", fields=fields)
    await answer_to(front.port, octets)
    assert [line["peer"] for line in front.relay.log()] == ["127.0.0.1"]


async def test_wrong_passwords_are_slowed_down_by_address(front_with: FrontWith) -> None:
    web = {**WEB, "log_ins_per_address": 3}
    front = await front_with(web=web, server={"trusted_proxies": ["127.0.0.1"]})
    front.relay.url = front.url
    statuses = []
    for address in ["203.0.113.9"] * 4 + ["203.0.113.10"]:
        async with Visitor(front.relay, **{"x-forwarded-for": address}) as visitor:
            answer = await visitor.log_in("nobody@example.com", "wrong password 1")
            statuses.append(answer.status_code)
    assert statuses[3] == 429
    assert statuses[4] == statuses[0] != 429


async def test_the_owner_knows_whether_a_caller_came_over_tls(
    relay_with: RelayWith, tmp_path: Path
) -> None:
    authority = trustme.CA()
    pair = write_pair(tmp_path, authority, "localhost")
    relay = await relay_with(web=WEB)

    async def handler(exchange: Exchange) -> None:
        exchange.respond(200, [], b"%d" % exchange.is_secure)

    relay.app.server.handler = handler
    context = ssl_context(pair.cert, pair.key)
    async with running_front(relay, tmp_path, context) as front:
        base = f"https://localhost:{front.port}"
        async with httpx.AsyncClient(base_url=base, verify=trusting(authority)) as client:
            assert (await client.get("/")).content == b"1"
    async with running_front(relay, tmp_path) as front:
        assert (await answer_to(front.port, request(None, b"", target="/")))[2] == b"0"


# --- bodies ---


async def echo(exchange: Exchange) -> None:
    """Answers with the request's body."""
    exchange.respond(200, [], await exchange.body())


@pytest.mark.parametrize("size", [0, 1, 60_000, 70_000, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_arrives_as_it_was_sent(front: Front, size: int, chunked: bool) -> None:
    front.relay.app.server.handler = echo
    body = bytes(number % 251 for number in range(size))

    async def pieces() -> Any:
        for at in range(0, size, 30_000):
            yield body[at : at + 30_000]

    async with httpx.AsyncClient(base_url=front.url, timeout=30) as client:
        for _ in range(2):  # the connection to the owner is used again
            answer = await client.post("/echo", content=pieces() if chunked else body)
            assert answer.content == body


async def test_a_body_over_http2_arrives_as_it_was_sent(front: Front) -> None:
    front.relay.app.server.handler = echo
    body = bytes(number % 251 for number in range(3_000_000))
    async with httpx.AsyncClient(base_url=front.url, http1=False, http2=True, timeout=30) as client:
        assert (await client.post("/echo", content=body)).content == body


async def test_a_caller_that_waits_for_100_continue_gets_it(front: Front) -> None:
    front.relay.app.server.handler = echo
    async with connected(front.port) as (reader, writer):
        writer.write(
            b"POST /echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await read_answer(reader))[2] == b"hello"


async def test_a_body_that_is_not_wanted_is_not_collected(front: Front) -> None:
    octets = request(None, b"", target="/nothing").replace(
        b"content-length: 0", b"content-length: 20000000"
    )
    async with connected(front.port) as (reader, writer):
        writer.write(octets)
        status, fields, _ = await read_answer(reader)
        assert (status, fields[b"connection"]) == (404, b"close")


async def test_a_form_that_is_too_long_is_refused_by_its_length(front: Front) -> None:
    octets = request(None, b"", target="/login", fields="accept: text/html\r\n").replace(
        b"content-length: 0", b"content-length: 20000000"
    )
    async with connected(front.port) as (reader, writer):
        writer.write(octets)
        assert (await read_answer(reader))[0] == 413


async def test_a_body_that_comes_too_slowly_is_a_408(front_with: FrontWith) -> None:
    front = await front_with(server={"timeouts": {"body": 1.0}})
    front.relay.app.server.handler = echo
    async with connected(front.port) as (reader, writer):
        writer.write(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\nx")
        status, _, body = await read_answer(reader)
    assert status == 408
    assert json.loads(body)["error"]["message"].startswith("The request body came too slowly")


async def test_broken_chunks_of_a_body_are_a_400(front: Front) -> None:
    front.relay.app.server.handler = echo
    octets = b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n"
    assert (await exchange(front.port, octets)).startswith(b"HTTP/1.1 400 ")


async def test_a_caller_that_leaves_its_upload_ends_the_request(front: Front) -> None:
    ended = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        try:
            await exchange.body()
        except asyncio.CancelledError:
            ended.set()
            raise

    front.relay.app.server.handler = handler
    async with connected(front.port) as (_, writer):
        writer.write(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\nx")
        await until(lambda: front.connections.used)
    async with asyncio.timeout(5):
        await ended.wait()
    await until(lambda: not front.connections.used)
    await until(lambda: not front.inner.connections)


def ssl_context(cert: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context

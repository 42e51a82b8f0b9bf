"""Answers that a worker passes on: as they come, in the caller's framing, never ended early."""

import asyncio
import json
import os
import socket
import stat
from pathlib import Path

import httpx
import pytest
from hyperframe.frame import RstStreamFrame

from relay.net.exchange import Exchange
from relay.workers.inner_server import InnerServer
from tests.fakes.caller import connected, read_answer, read_head, request
from tests.fakes.http2 import get, http2_caller
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until
from tests.web.visitor import WEB, Visitor, ask
from tests.workers.conftest import FrontWith
from tests.workers.forwarding import Front, running_front

PIECE = bytes(range(256)) * 256  # 64 KiB
PIECES = 1_000


def asked(target: str = "/stream", fields: str = "") -> bytes:
    return request(None, b"", target=target, method="GET", fields=fields)


def mode_of(path: str) -> int:
    """Kind and permissions of a file; 0: there is none."""
    return os.stat(path).st_mode if os.path.exists(path) else 0


class Stream:
    """An answer of the owner without an end, by the step."""

    def __init__(self, front: Front) -> None:
        self.go_on = asyncio.Event()
        self.last = ""  # how it ends: end, cut, close, abort or fail
        self.outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        front.relay.app.server.handler = self.handle

    async def handle(self, exchange: Exchange) -> None:
        try:
            exchange.begin_stream(200, b"content-type: text/event-stream\r\n", b": one\n\n")
            await self.go_on.wait()
            if self.last == "fail":
                raise RuntimeError("as it should")
            getattr(exchange, self.last)()
            self.outcome.set_result("complete")
        except asyncio.CancelledError:
            self.outcome.set_result("cancelled")
            raise

    async def ended(self) -> str:
        async with asyncio.timeout(5):
            return await self.outcome


async def test_events_are_passed_on_as_they_come(front: Front) -> None:
    stream = Stream(front)
    async with connected(front.port) as (reader, writer):
        writer.write(asked())
        status, fields = await read_head(reader)
        assert (status, fields[b"content-type"]) == (200, b"text/event-stream")
        assert await reader.readexactly(12) == b"7\r\n: one\n\n\r\n"  # and no more is there
        stream.last = "end"
        stream.go_on.set()
        assert await reader.readexactly(5) == b"0\r\n\r\n"
        writer.write(asked("/healthz"))  # the connection serves on
        assert (await read_answer(reader))[0] == 200


@pytest.mark.parametrize("last", ["cut", "close", "abort", "fail"])
async def test_an_answer_that_is_cut_is_not_ended(
    front: Front, last: str, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Stream(front)
    stream.last = last
    async with connected(front.port) as (reader, writer):
        writer.write(asked())
        await read_head(reader)
        stream.go_on.set()
        assert await reader.read(-1) == b"7\r\n: one\n\n\r\n"
    async with http2_caller(front.port) as caller:
        reply = await caller.answer(caller.request(get("/stream")))
    assert reply.reset is not None
    assert not reply.complete


async def test_a_cut_answer_looks_cut_to_http_1_0(front: Front) -> None:
    stream = Stream(front)
    stream.last = "cut"
    async with connected(front.port) as (reader, writer):
        writer.write(b"GET /stream HTTP/1.0\r\n\r\n")
        await read_head(reader)
        assert await reader.readexactly(7) == b": one\n\n"
        stream.go_on.set()
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)


async def test_a_caller_that_leaves_ends_the_owners_request(front: Front) -> None:
    stream = Stream(front)
    async with connected(front.port) as (reader, writer):
        writer.write(asked())
        await read_head(reader)
    assert await stream.ended() == "cancelled"
    await until(lambda: not front.connections.used)


async def test_a_stream_reset_over_http2_ends_the_request(front: Front) -> None:
    stream = Stream(front)
    async with http2_caller(front.port) as caller:
        number = caller.request(get("/stream"))
        await caller.octets(number, 7)
        caller.send(RstStreamFrame(number, error_code=8))
        assert await stream.ended() == "cancelled"


async def test_a_worker_that_ends_ends_its_requests(front: Front) -> None:
    stream = Stream(front)
    async with connected(front.port) as (reader, writer):
        writer.write(asked())
        await read_head(reader)
        front.worker.server.abort()
        assert await stream.ended() == "cancelled"


async def test_a_caller_that_left_is_in_the_owners_log(front: Front) -> None:
    front.relay.url = front.url
    async with Visitor(front.relay) as visitor:
        await visitor.sign_up()
        async with visitor.stream("GET", "/dashboard/live") as stream:
            assert await anext(stream.aiter_lines()) == "retry: 5000"
    await until(lambda: front.relay.log()[-1]["path"] == "/dashboard/live")
    assert front.relay.log()[-1]["outcome"] == "caller left"
    assert not front.worker_log()


async def test_a_live_page_announces_what_is_new(front: Front) -> None:
    direct, front.relay.url = front.relay.url, front.url
    async with Visitor(front.relay) as visitor:
        await visitor.sign_up()
        key = await visitor.new_key()
        async with visitor.stream("GET", "/dashboard/live") as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == "retry: 5000"
            front.relay.url = direct
            await ask(front.relay, key)
            async with asyncio.timeout(5):
                assert "event: new" in [await anext(lines) for _ in range(2)]


# --- downloads ---


class Download:
    """An answer of 64 MB, which waits for its reader."""

    def __init__(self, front: Front, length: int | None) -> None:
        self.written = 0
        self._length = length
        front.relay.app.server.handler = self.handle

    async def handle(self, exchange: Exchange) -> None:
        exchange.begin(200, [], self._length)
        for _ in range(PIECES):
            await exchange.writable()
            exchange.write(PIECE)
            self.written += len(PIECE)
        exchange.end()


@pytest.mark.parametrize("length", [None, PIECES * len(PIECE)])
async def test_a_slow_reader_slows_the_owner_down(front: Front, length: int | None) -> None:
    download = Download(front, length)
    async with connected(front.port, limit=len(PIECE)) as (reader, writer):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        writer.write(asked())
        await read_head(reader)
        before = -1
        while before != download.written:  # until it stands still
            before = download.written
            await asyncio.sleep(0.1)
        assert before < 12_000_000
        received = 0
        total = PIECES * len(PIECE)
        while received < total:
            received += len(await reader.read(1 << 20))
    assert download.written == total


@pytest.mark.parametrize("http2", [False, True])
async def test_a_download_arrives_octet_for_octet(front: Front, http2: bool) -> None:
    for length in (None, PIECES * len(PIECE)):
        Download(front, length)
        async with httpx.AsyncClient(
            base_url=front.url, http1=not http2, http2=http2, timeout=30
        ) as client:
            answer = await client.get("/download")
        assert answer.content == PIECE * PIECES
        assert answer.headers.get("content-length") == (None if length is None else str(length))


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000])
async def test_a_complete_answer_has_its_length(front: Front, size: int) -> None:
    async def handler(exchange: Exchange) -> None:
        exchange.respond(200, [(b"x-own", b"1")], bytes(size))

    front.relay.app.server.handler = handler
    async with connected(front.port) as (reader, writer):
        for _ in range(2):
            writer.write(asked())
            status, fields, body = await read_answer(reader)
            assert (status, fields[b"x-own"], len(body)) == (200, b"1", size)
            assert b"date" in fields
        writer.write(asked().replace(b"GET", b"HEAD"))
        status, fields = await read_head(reader)
        assert fields[b"content-length"] == b"%d" % size
        writer.write(asked("/healthz"))
        assert (await read_answer(reader))[0] == 200


# --- the owner ends ---


@pytest.mark.parametrize(
    ("target", "is_openai"), [("/v1/usage", True), ("/login", False), ("/v1/responses/a", True)]
)
async def test_without_the_owner_its_paths_are_a_503(
    front: Front, target: str, is_openai: bool
) -> None:
    front.inner.close()
    async with connected(front.port) as (reader, writer):
        writer.write(asked(target).replace(b"anthropic-version: 2023-06-01\r\n", b""))
        status, fields, body = await read_answer(reader)
        assert status == 503
        assert fields[b"retry-after"] == b"1"
        assert ("code" in json.loads(body)["error"]) is is_openai
        writer.write(request(None, b""))
        assert (await read_answer(reader))[0] == 200
    [line, _] = front.worker_log()
    assert (line["id"].encode(), line["status"]) == (fields[b"request-id"], 503)
    assert line["path"] == target
    assert front.worker.load.in_flight == 0


async def test_an_answer_is_cut_when_the_owner_ends(front: Front) -> None:
    Stream(front)
    async with connected(front.port) as (reader, writer):
        writer.write(asked())
        await read_head(reader)
        await reader.readexactly(12)
        front.inner.close()
        assert await reader.read(-1) == b""
    [line] = front.worker_log()
    assert line["outcome"].startswith("cut: ")
    assert line["status"] == 200


async def test_an_owner_that_ends_during_an_upload_is_a_503(front: Front) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.body()

    front.relay.app.server.handler = handler
    async with connected(front.port) as (reader, writer):
        writer.write(asked().replace(b"GET", b"POST").replace(b"length: 0", b"length: 2"))
        await until(lambda: front.inner.connections)
        front.inner.close()
        writer.write(b"{}")
        assert (await read_answer(reader))[0] == 503


# --- connections ---


async def test_one_connection_carries_one_request_after_another(front: Front) -> None:
    async with connected(front.port) as (reader, writer):
        for _ in range(50):
            writer.write(asked("/nothing"))
            await read_answer(reader)
    assert len(front.inner.connections) == 1


async def test_very_many_requests_at_once_are_all_answered(front: Front) -> None:
    async def handler(exchange: Exchange) -> None:
        await asyncio.sleep(0.01)
        exchange.respond(200, [], b"")

    front.relay.app.server.handler = handler
    async with http2_caller(front.port) as caller:
        await caller.pong()
        for _ in range(15):
            numbers = [caller.request(get("/many")) for _ in range(100)]
            replies = [await caller.answer(number) for number in numbers]
            assert {reply.status for reply in replies} == {200}
    assert front.connections.used == 0
    assert len(front.inner.connections) <= 32


async def test_a_worker_opens_a_bounded_number_of_connections(front: Front) -> None:
    Stream(front)
    front.connections._max_used = 3
    async with http2_caller(front.port) as caller:
        for number in [caller.request(get("/stream")) for _ in range(3)]:
            await caller.octets(number, 7)
        reply = await caller.answer(caller.request(get("/stream")))
        assert (reply.status, reply.fields["retry-after"]) == (503, "1")
    [line] = front.worker_log()
    assert line["status"] == 503


# --- the socket ---


async def test_only_its_user_reaches_the_inner_socket(front: Front) -> None:
    assert mode_of(front.inner.path) == stat.S_IFSOCK | 0o600
    front.inner.close()
    assert not mode_of(front.inner.path)


async def test_a_path_that_is_too_long_is_replaced(relay_with: RelayWith, tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 120)
    folder.mkdir()
    relay = await relay_with(database={"path": str(folder / "relay.db")}, web=WEB)
    async with running_front(relay, tmp_path) as front:
        place = str(Path(front.inner.path).parent)
        assert mode_of(place) == stat.S_IFDIR | 0o700
        async with connected(front.port) as (reader, writer):
            writer.write(asked("/nothing"))
            assert (await read_answer(reader))[0] == 404
    assert not mode_of(place)


async def test_a_socket_that_a_killed_process_left_is_removed(live: Live, tmp_path: Path) -> None:
    left, serving = (f"{tmp_path}/relay.db.workers.{number}" for number in (1, 2))
    with socket.socket(socket.AF_UNIX) as killed, socket.socket(socket.AF_UNIX) as other:
        killed.bind(left)
        other.bind(serving)
        other.listen()
        inner = InnerServer(live.app.server)
        killed.close()
        await inner.open(live.settings.database.path)
        assert not mode_of(left)
        assert mode_of(serving)
        inner.close()


async def test_requests_wait_for_the_owners_address(front_with: FrontWith) -> None:
    front = await front_with()
    path = await front.connections._path
    front.connections._path = asyncio.get_running_loop().create_future()
    async with connected(front.port) as (reader, writer):
        writer.write(asked("/nothing"))
        await until(lambda: front.connections.used)
        front.connections.name(path)
        assert (await read_answer(reader))[0] == 404

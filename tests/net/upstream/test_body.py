"""Octets read ahead are passed on unchanged, in every framing and at every split."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.net.deadlines import Deadlines
from relay.net.runner import CoroutineRunner
from relay.net.upstream.body import ResponseBody
from relay.net.upstream.connection import FailureKind, Origin, UpstreamConnection, UpstreamError
from relay.net.upstream.connection_pool import ConnectionPool
from relay.wire.events import CHUNKED, UNTIL_CLOSE
from tests.fakes import answers
from tests.fakes.until import until
from tests.fakes.upstream import Seen, raw_upstream
from tests.wire.feeding import octet_by_octet, split_at

HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
NEXT = b"HTTP/1.1 200 OK\r\n"  # octets after the answer's end


@contextlib.asynccontextmanager
async def connection() -> AsyncIterator[UpstreamConnection]:
    """A connection to a silent upstream; the test feeds its octets."""
    deadlines = Deadlines(asyncio.get_running_loop())

    async def answer(reader: asyncio.StreamReader, writer: object, seen: Seen) -> None:
        await reader.read(1)

    async with raw_upstream(answer) as upstream:
        port = int(upstream.url.rpartition(":")[2])
        connection = await ConnectionPool(Origin("127.0.0.1", port), deadlines).connect()
        try:
            yield connection
        finally:
            connection.close()


class LookAhead:
    """One answer, read ahead until `marker`, more than `limit` octets, or its end."""

    def __init__(self, connection: UpstreamConnection, limit: int = 1 << 20) -> None:
        self.connection = connection
        self.body: ResponseBody | None = None
        self.ended = False
        self.failure: UpstreamError | None = None
        self.marker = b""
        self._limit = limit
        self._seen = b""
        CoroutineRunner(self._run()).step()

    async def _run(self) -> None:
        try:
            response = await self.connection.send(HEAD, b"")
            self.body = ResponseBody(self.connection, response, keep_framing=True)
            await self.body.look_ahead(self._enough, self._limit)
        except UpstreamError as failure:
            self.failure = failure
        self.ended = True

    def _enough(self, payload: bytes) -> bool:
        self._seen += payload
        return bool(self.marker) and self.marker in self._seen

    def feed(self, pieces: list[bytes]) -> list[bytes]:
        """Feed octets until the look-ahead is over; return the pieces left."""
        for at, piece in enumerate(pieces):
            if self.ended:
                return pieces[at:]
            if piece:
                self.connection.data_received(piece)
        return []


def framed(payload: bytes, kind: str, size: int) -> tuple[bytes, bytes]:
    """The head of an answer, and its body's wire octets without the last chunk."""
    if kind == "sized":
        return answers.head(b"200 OK", b"content-length: %d" % len(payload)), payload
    if kind == "chunked":
        pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
        return answers.chunked_head(), b"".join(map(answers.chunk, pieces))
    return answers.head(), payload


BODIES = st.builds(
    lambda payload, kind, size: (payload, kind, size),
    st.binary(min_size=1, max_size=120),
    st.sampled_from(["sized", "chunked", "until-close"]),
    st.integers(1, 40),
)
CUTS = st.lists(st.integers(0, 400), max_size=8)


@given(body=BODIES, at=st.integers(0, 119), cuts=CUTS, rest=st.sampled_from([b"", NEXT]))
async def test_a_sink_goes_on_where_the_look_ahead_ended(
    body: tuple[bytes, str, int], at: int, cuts: list[int], rest: bytes
) -> None:
    payload, kind, size = body
    head, wire = framed(payload, kind, size)
    octets = wire + (answers.LAST if kind == "chunked" else b"")
    if kind == "until-close":
        rest = b""
    async with connection() as upstream:
        ahead = LookAhead(upstream)
        ahead.marker = payload[at : at + 3]
        left = ahead.feed(split_at(head + octets + rest, cuts))
        body_ahead = ahead.body
        assert body_ahead is not None
        assert payload.startswith(body_ahead.payload)
        assert wire.startswith(body_ahead.octets)
        if ahead.ended and not body_ahead.complete:
            assert ahead.marker in body_ahead.payload
        collected = [body_ahead.octets]
        if not body_ahead.complete:
            upstream.attach(lambda data: collected.append(body_ahead.extent.feed(data)))
            for piece in left:
                upstream.data_received(piece)
        assert b"".join(collected) == wire
        assert kind == "until-close" or body_ahead.extent.done


@pytest.mark.parametrize("kind", ["sized", "chunked"])
@pytest.mark.parametrize("split", [0, 1], ids=["at-once", "octet-by-octet"])
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_body_that_ends_in_the_look_ahead_is_complete(
    kind: str, split: int, size: int
) -> None:
    payload = b'{"type":"message"}' * 10
    head, wire = framed(payload, kind, size)
    octets = head + wire + (answers.LAST if kind == "chunked" else b"")
    async with connection() as upstream:
        ahead = LookAhead(upstream)
        assert ahead.feed(octet_by_octet(octets) if split else [octets]) == []
        assert ahead.ended
        assert ahead.body is not None
        assert ahead.body.complete
        assert (ahead.body.payload, ahead.body.octets) == (payload, wire)
        assert ahead.body.reusable


@pytest.mark.parametrize(
    "head", [answers.sized(b""), answers.chunked([])], ids=["sized", "chunked"]
)
@pytest.mark.parametrize("split", [0, 1], ids=["at-once", "octet-by-octet"])
async def test_an_empty_body_is_complete_at_once(head: bytes, split: int) -> None:
    async with connection() as upstream:
        ahead = LookAhead(upstream)
        ahead.feed(octet_by_octet(head) if split else [head])
        assert ahead.ended
        assert ahead.body is not None
        assert (ahead.body.complete, ahead.body.payload, ahead.body.reusable) == (True, b"", True)


@pytest.mark.parametrize("kind", ["sized", "chunked"])
async def test_octets_after_the_end_cost_only_the_connection(kind: str) -> None:
    head, wire = framed(b"payload", kind, 3)
    octets = head + wire + (answers.LAST if kind == "chunked" else b"") + NEXT
    async with connection() as upstream:
        ahead = LookAhead(upstream)
        ahead.feed([octets])
        assert ahead.body is not None
        assert ahead.body.complete
        assert ahead.body.payload == b"payload"
        assert not ahead.body.reusable


@pytest.mark.parametrize("kind", ["sized", "chunked", "until-close"])
@pytest.mark.parametrize("split", [0, 1], ids=["at-once", "octet-by-octet"])
async def test_the_look_ahead_stops_at_its_limit(kind: str, split: int) -> None:
    payload = bytes(range(256)) * 4
    head, wire = framed(payload, kind, 50)
    async with connection() as upstream:
        ahead = LookAhead(upstream, limit=500)
        ahead.feed(octet_by_octet(head + wire) if split else [head, wire[:600], wire[600:]])
        assert ahead.ended
        assert ahead.body is not None
        assert not ahead.body.complete
        assert 500 < len(ahead.body.octets) <= (501 if split else 600)
        assert wire.startswith(ahead.body.octets)


# --- broken bodies ---


def cut_after(upstream: UpstreamConnection, octets: bytes, *, cleanly: bool) -> None:
    """Feed octets, then end the connection: by an end of stream, or else by a reset."""
    upstream.data_received(octets)
    if cleanly:
        upstream.eof_received()
    else:
        upstream.connection_lost(ConnectionResetError(104, "reset"))


@pytest.mark.parametrize("early", [b"", b"{", b"7\r\n{"], ids=["nothing", "octet", "chunk"])
@pytest.mark.parametrize("cleanly", [True, False], ids=["end", "reset"])
@pytest.mark.parametrize("length", [100, CHUNKED, UNTIL_CLOSE])
async def test_a_broken_off_body_fails_unless_its_length_was_open(
    length: int, cleanly: bool, early: bytes
) -> None:
    if length == CHUNKED and early == b"{":
        early = b"1\r\n{\r\n"
    fields = {100: (b"content-length: 100",), CHUNKED: (b"transfer-encoding: chunked",)}
    async with connection() as upstream:
        ahead = LookAhead(upstream)
        head = answers.head(b"200 OK", *fields.get(length, ()))
        cut_after(upstream, head + early, cleanly=cleanly)
        assert ahead.ended
        if length == UNTIL_CLOSE and cleanly:
            assert ahead.failure is None
            assert ahead.body is not None
            assert ahead.body.complete
            assert ahead.body.payload == early
            assert not ahead.body.reusable
        else:
            assert ahead.failure is not None
            assert ahead.failure.kind is FailureKind.CLOSED


@pytest.mark.parametrize("split", [0, 1], ids=["at-once", "octet-by-octet"])
async def test_broken_framing_is_reported_as_garbage(split: int) -> None:
    octets = answers.chunked_head() + b"3\r\nabcdef\r\n"
    async with connection() as upstream:
        ahead = LookAhead(upstream)
        ahead.feed(octet_by_octet(octets) if split else [octets])
        assert ahead.failure is not None
        assert ahead.failure.kind is FailureKind.GARBAGE


async def test_an_end_after_the_look_ahead_is_found_at_the_join() -> None:
    async with connection() as upstream:
        ahead = LookAhead(upstream)
        ahead.marker = b"ab"
        ahead.feed([answers.chunked_head() + b"3\r\nabc\r\n"])
        assert ahead.ended
        assert ahead.body is not None
        upstream.data_received(b"3\r\nd")
        upstream.eof_received()
        assert ahead.body.octets == b"3\r\nabc\r\n3\r\nd"
        assert upstream.lost is not None
        assert not ahead.body.reusable
        with pytest.raises(UpstreamError):
            ahead.body.begin()


async def test_over_a_socket_the_look_ahead_waits_for_the_rest() -> None:
    deadlines = Deadlines(asyncio.get_running_loop())
    go_on = asyncio.Event()

    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        writer.write(answers.head(b"200 OK", b"content-length: 6") + b"abc")
        await go_on.wait()
        writer.write(b"def")

    async with raw_upstream(answer) as upstream:
        port = int(upstream.url.rpartition(":")[2])
        pool = ConnectionPool(Origin("127.0.0.1", port), deadlines)
        ahead = LookAhead(await pool.connect())
        await until(lambda: ahead.body is not None)
        assert not ahead.ended
        go_on.set()
        await until(lambda: ahead.ended)
        assert ahead.body is not None
        assert ahead.body.complete
        assert ahead.body.payload == b"abcdef"
        pool.put(ahead.connection, reusable=ahead.body.reusable)
        pool.close()

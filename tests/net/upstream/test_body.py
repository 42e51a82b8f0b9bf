"""Octets that were looked at ahead go on octet for octet, in every framing and at every split."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given, settings
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
    """A connection to an upstream that says nothing: its octets are fed by the test."""
    timers = Deadlines(asyncio.get_running_loop())

    async def answer(reader: asyncio.StreamReader, writer: object, seen: Seen) -> None:
        await reader.read(1)

    async with raw_upstream(answer) as upstream:
        port = int(upstream.url.rpartition(":")[2])
        connection = await ConnectionPool(Origin("127.0.0.1", port), timers).connect()
        try:
            yield connection
        finally:
            connection.close()


class Held:
    """One answer on its way through a hold."""

    def __init__(self, connection: UpstreamConnection, most: int = 1 << 20) -> None:
        self.connection = connection
        self.hold: ResponseBody | None = None
        self.ended = False
        self.failure: UpstreamError | None = None
        self.marker = b""
        self._most = most
        self._seen = b""
        CoroutineRunner(self._run()).step()

    async def _run(self) -> None:
        try:
            response = await self.connection.send(HEAD, b"")
            self.hold = ResponseBody(self.connection, response, keep_framing=True)
            await self.hold.look_ahead(self._enough, self._most)
        except UpstreamError as failure:
            self.failure = failure
        self.ended = True

    def _enough(self, payload: bytes) -> bool:
        self._seen += payload
        return bool(self.marker) and self.marker in self._seen

    def feed(self, pieces: list[bytes]) -> list[bytes]:
        """Octets from the upstream, until the hold has enough; those that it did not want."""
        for at, piece in enumerate(pieces):
            if self.ended:
                return pieces[at:]
            if piece:
                self.connection.data_received(piece)
        return []


def framed(payload: bytes, kind: str, size: int) -> tuple[bytes, bytes]:
    """The head of an answer, and its body as it goes on the wire but for what ends it."""
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
@settings(max_examples=150, deadline=None)
async def test_a_sink_goes_on_where_the_look_ahead_ended(
    body: tuple[bytes, str, int], at: int, cuts: list[int], rest: bytes
) -> None:
    payload, kind, size = body
    head, wire = framed(payload, kind, size)
    octets = wire + (answers.LAST if kind == "chunked" else b"")
    if kind == "until-close":
        rest = b""
    async with connection() as upstream:
        held = Held(upstream)
        held.marker = payload[at : at + 3]
        left = held.feed(split_at(head + octets + rest, cuts))
        hold = held.hold
        assert hold is not None
        assert payload.startswith(hold.payload)
        assert wire.startswith(hold.octets)
        if held.ended and not hold.complete:
            assert held.marker in hold.payload
        collected = [hold.octets]
        if not hold.complete:
            upstream.attach(lambda data: collected.append(hold.extent.feed(data)))
            for piece in left:
                upstream.data_received(piece)
        assert b"".join(collected) == wire
        assert kind == "until-close" or hold.extent.done


@pytest.mark.parametrize("kind", ["sized", "chunked"])
@pytest.mark.parametrize("split", [0, 1], ids=["at-once", "octet-by-octet"])
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_body_that_ends_within_it_is_whole(kind: str, split: int, size: int) -> None:
    payload = b'{"type":"message"}' * 10
    head, wire = framed(payload, kind, size)
    octets = head + wire + (answers.LAST if kind == "chunked" else b"")
    async with connection() as upstream:
        held = Held(upstream)
        assert held.feed(octet_by_octet(octets) if split else [octets]) == []
        assert held.ended
        assert held.hold is not None
        assert held.hold.complete
        assert (held.hold.payload, held.hold.octets) == (payload, wire)
        assert held.hold.reusable


@pytest.mark.parametrize(
    "head", [answers.sized(b""), answers.chunked([])], ids=["sized", "chunked"]
)
@pytest.mark.parametrize("split", [0, 1], ids=["at-once", "octet-by-octet"])
async def test_a_body_of_no_octets_is_whole_at_once(head: bytes, split: int) -> None:
    async with connection() as upstream:
        held = Held(upstream)
        held.feed(octet_by_octet(head) if split else [head])
        assert held.ended
        assert held.hold is not None
        assert (held.hold.complete, held.hold.payload, held.hold.reusable) == (True, b"", True)


@pytest.mark.parametrize("kind", ["sized", "chunked"])
async def test_octets_after_the_end_cost_the_connection_not_the_answer(kind: str) -> None:
    head, wire = framed(b"payload", kind, 3)
    octets = head + wire + (answers.LAST if kind == "chunked" else b"") + NEXT
    async with connection() as upstream:
        held = Held(upstream)
        held.feed([octets])
        assert held.hold is not None
        assert held.hold.complete
        assert held.hold.payload == b"payload"
        assert not held.hold.reusable


@pytest.mark.parametrize("kind", ["sized", "chunked", "until-close"])
@pytest.mark.parametrize("split", [0, 1], ids=["at-once", "octet-by-octet"])
async def test_no_more_is_kept_back_than_was_agreed(kind: str, split: int) -> None:
    payload = bytes(range(256)) * 4
    head, wire = framed(payload, kind, 50)
    async with connection() as upstream:
        held = Held(upstream, most=500)
        held.feed(octet_by_octet(head + wire) if split else [head, wire[:600], wire[600:]])
        assert held.ended
        assert held.hold is not None
        assert not held.hold.complete
        assert 500 < len(held.hold.octets) <= (501 if split else 600)
        assert wire.startswith(held.hold.octets)


# --- how it may break off ---


def cut(octets: bytes, *, cleanly: bool) -> Callable[[UpstreamConnection], None]:
    def end(upstream: UpstreamConnection) -> None:
        upstream.data_received(octets)
        if cleanly:
            upstream.eof_received()
        else:
            upstream.connection_lost(ConnectionResetError(104, "reset"))

    return end


@pytest.mark.parametrize("early", [b"", b"{", b"7\r\n{"], ids=["nothing", "octet", "chunk"])
@pytest.mark.parametrize("cleanly", [True, False], ids=["end", "reset"])
@pytest.mark.parametrize("length", [100, CHUNKED, UNTIL_CLOSE])
async def test_a_body_that_breaks_off_is_a_failure_unless_its_end_is_the_connections(
    length: int, cleanly: bool, early: bytes
) -> None:
    if length == CHUNKED and early == b"{":
        early = b"1\r\n{\r\n"
    fields = {100: (b"content-length: 100",), CHUNKED: (b"transfer-encoding: chunked",)}
    async with connection() as upstream:
        held = Held(upstream)
        cut(answers.head(b"200 OK", *fields.get(length, ())) + early, cleanly=cleanly)(upstream)
        assert held.ended
        if length == UNTIL_CLOSE and cleanly:
            assert held.failure is None
            assert held.hold is not None
            assert held.hold.complete
            assert held.hold.payload == early
            assert not held.hold.reusable
        else:
            assert held.failure is not None
            assert held.failure.kind is FailureKind.CLOSED


@pytest.mark.parametrize("split", [0, 1], ids=["at-once", "octet-by-octet"])
async def test_broken_framing_is_told_as_such(split: int) -> None:
    octets = answers.chunked_head() + b"3\r\nabcdef\r\n"
    async with connection() as upstream:
        held = Held(upstream)
        held.feed(octet_by_octet(octets) if split else [octets])
        assert held.failure is not None
        assert held.failure.kind is FailureKind.GARBAGE


async def test_an_end_after_the_look_ahead_is_found_at_the_join() -> None:
    async with connection() as upstream:
        held = Held(upstream)
        held.marker = b"ab"
        held.feed([answers.chunked_head() + b"3\r\nabc\r\n"])
        assert held.ended
        assert held.hold is not None
        upstream.data_received(b"3\r\nd")
        upstream.eof_received()
        assert held.hold.octets == b"3\r\nabc\r\n3\r\nd"
        assert upstream.lost is not None
        assert not held.hold.reusable
        with pytest.raises(UpstreamError):
            held.hold.begin()


async def test_over_a_real_connection_it_waits_for_what_is_still_to_come() -> None:
    timers = Deadlines(asyncio.get_running_loop())
    go_on = asyncio.Event()

    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        writer.write(answers.head(b"200 OK", b"content-length: 6") + b"abc")
        await go_on.wait()
        writer.write(b"def")

    async with raw_upstream(answer) as upstream:
        port = int(upstream.url.rpartition(":")[2])
        pool = ConnectionPool(Origin("127.0.0.1", port), timers)
        held = Held(await pool.connect())
        await until(lambda: held.hold is not None)
        assert not held.ended
        go_on.set()
        await until(lambda: held.ended)
        assert held.hold is not None
        assert held.hold.complete
        assert held.hold.payload == b"abcdef"
        pool.put(held.connection, reusable=held.hold.reusable)
        pool.close()

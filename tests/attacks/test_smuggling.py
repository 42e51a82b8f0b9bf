"""Requests crafted to be read as two, over real sockets: the upstream gets one or none.

The heads are those of tests/wire/test_smuggling.py. Behind each comes a second request,
hidden where one of the two readings of the framing would find it. It carries no key, so that
only a relay that passed it on inside of the first would let the upstream see it.
"""

import asyncio
import json
import random
import re
from collections.abc import Callable, Iterator

import pytest

from tests.fakes.caller import BODY
from tests.fakes.live import Live, RelayWith
from tests.fakes.upstream import OK, Upstream, UpstreamWith, always
from tests.wire.test_smuggling import CODINGS, LENGTHS, OCTETS, PLACES

BODY_OCTETS = json.dumps(BODY).encode()
CHUNKED_BODY = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY_OCTETS), BODY_OCTETS)
HIDDEN = b"POST /v1/messages?hidden HTTP/1.1\r\nHost: hidden\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY_OCTETS),
    BODY_OCTETS,
)
SAMPLE = 600  # of each kind


def shapes() -> Iterator[tuple[bytes, int]]:
    """Bodies, each with the content-length that its head states."""
    yield (
        CHUNKED_BODY + HIDDEN,
        len(CHUNKED_BODY + HIDDEN),
    )  # read by coding, the hidden request remains
    yield CHUNKED_BODY + HIDDEN, len(CHUNKED_BODY)
    yield BODY_OCTETS + HIDDEN, len(BODY_OCTETS)  # read by length, it remains
    yield b"0\r\n\r\n" + HIDDEN, len(b"0\r\n\r\n" + HIDDEN)
    yield CHUNKED_BODY, len(CHUNKED_BODY)


def message(key: str, fields: bytes, body: bytes) -> bytes:
    return b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nX-Api-Key: %b\r\n%b\r\n%b" % (
        key.encode(),
        fields,
        body,
    )


def octet(chance: random.Random) -> bytes:
    return chance.choice(OCTETS)


def singles(chance: random.Random) -> Iterator[tuple[bytes, bytes]]:
    """An odd octet in one framing field, next to a good field of the other kind."""
    every = list(shapes())
    for _ in range(SAMPLE):
        body, length = chance.choice(every)
        pair = [(b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"%d" % length)]
        chance.shuffle(pair)
        mutated = chance.choice(PLACES)(*pair[0], octet(chance))
        lines = [mutated, b"%b: %b\r\n" % pair[1]]
        chance.shuffle(lines)
        yield b"".join(lines), body


def doubles(chance: random.Random) -> Iterator[tuple[bytes, bytes]]:
    """Two spellings of framing next to each other."""
    every = list(shapes())
    for _ in range(SAMPLE):
        body, length = chance.choice(every)
        forms = [form % ((length,) * form.count(b"%")) for form in LENGTHS]
        one, two = chance.choice([*CODINGS, *forms]), chance.choice([*CODINGS, *forms])
        yield one + b"\r\n" + two + b"\r\n", body


async def send(port: int, octets: bytes) -> bytes:
    """Send `octets`, shut the sending side, and return everything received."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(octets)
        writer.write_eof()
        async with asyncio.timeout(5):
            return await reader.read(-1)
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


def judge(upstream: Upstream, received: bytes) -> int:
    """The number of requests upstream, checked: at most one, with nothing odd in it."""
    seen = len(upstream.requests)
    assert seen <= 1
    assert received.count(b"HTTP/1.1 200 ") == seen
    assert b"hidden" not in upstream.received
    for request in upstream.requests:
        names = [line.partition(b":")[0].lower() for line in request.head.split(b"\r\n")[1:-2]]
        assert names.count(b"content-length") == 1
        assert not [name for name in names if name.replace(b"_", b"-") == b"transfer-encoding"]
        assert request.body == BODY_OCTETS
        assert not re.search(rb"[\0-\x08\x0b\x0c\x0e-\x1f]|(?<!\r)\n", request.head)
        assert bytes(upstream.received) == request.head + request.body
    upstream.requests.clear()
    upstream.received.clear()
    return seen


@pytest.fixture
async def pair(upstream_with: UpstreamWith, relay_with: RelayWith) -> tuple[Live, Upstream]:
    upstream = await upstream_with(always(OK))
    return await relay_with(upstream), upstream


@pytest.mark.parametrize("mutations", [singles, doubles])
async def test_no_mutation_reaches_the_upstream_as_two_requests(
    pair: tuple[Live, Upstream],
    mutations: Callable[[random.Random], Iterator[tuple[bytes, bytes]]],
) -> None:
    relay, upstream = pair
    chance = random.Random(20261123)
    passed = 0
    for fields, body in mutations(chance):
        received = await send(relay.port, message(relay.key, fields, body))
        assert received.startswith(b"HTTP/1.1 "), fields
        try:
            passed += judge(upstream, received)
        except AssertionError as error:
            raise AssertionError(f"{fields!r} {body!r} → {received[:200]!r}") from error
    assert passed > 5, "too few pass for the other half of the promise to be tested"


@pytest.mark.parametrize("split", [1, 3])
async def test_the_verdict_is_the_same_at_any_split(
    pair: tuple[Live, Upstream], split: int
) -> None:
    relay, upstream = pair
    chance = random.Random(split)
    for fields, body in [*singles(chance)][:15] + [*doubles(chance)][:15]:
        octets = message(relay.key, fields, body)
        unsplit = await send(relay.port, octets)
        expected = judge(upstream, unsplit)
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        try:
            for start in range(0, len(octets), split):
                writer.write(octets[start : start + split])
                await asyncio.sleep(0)
            writer.write_eof()
            async with asyncio.timeout(5):
                received = await reader.read(-1)
        except (ConnectionResetError, BrokenPipeError):
            received = unsplit  # refused, and the answer lost to the reset
        finally:
            writer.transport.abort()
        assert judge(upstream, received if expected else unsplit) == expected
        assert received.split(b"\r\n")[0] == unsplit.split(b"\r\n")[0]


async def test_an_upstream_cannot_inject_a_field_into_the_answer(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    odd = OK.replace(b"application/json", b"application/json\rset-cookie: a=b", 1)
    upstream = await upstream_with(always(odd))
    relay = await relay_with(upstream)
    received = await send(relay.port, message(relay.key, b"Content-Length: 0\r\n", b""))
    assert b"set-cookie" not in received


@pytest.mark.parametrize("target", [b"/v1/messages?x=%0d%0ax:y", b"/v1/messages?a\x0bb", b"/\xff"])
async def test_a_target_cannot_inject_a_line_upstream(
    pair: tuple[Live, Upstream], target: bytes
) -> None:
    relay, upstream = pair
    octets = message(relay.key, b"Content-Length: %d\r\n" % len(BODY_OCTETS), BODY_OCTETS)
    received = await send(relay.port, octets.replace(b"/v1/messages", target, 1))
    if b"%0d" in target:
        assert judge(upstream, received) == 1
    else:
        assert received.startswith(b"HTTP/1.1 400 ")
        assert upstream.requests == []

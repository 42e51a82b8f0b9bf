"""Requests made to be read as two: relay and upstream must agree on where a request ends.

The mutations put an odd octet at each place of a framing field where some server once
took it for nothing, beside the other framing field; and pair every spelling of one framing
field with every spelling of the other. What is not refused must have one framing, the
body must end where h11 says, and no framing field may travel onward in any spelling.
"""

import itertools
import re
from collections.abc import Callable, Iterator

import h11
import pytest

from relay.wire.chunked import ChunkReader
from relay.wire.events import CHUNKED, Limits, Request
from relay.wire.h1 import request_reader

from .feeding import Read, Refused, Waits, body, first_head, octet_by_octet

OCTETS = (
    *(b"\0", b"\x01", b"\t", b"\n", b"\x0b", b"\x0c", b"\r", b"\x1f", b" ", b"_", b"\x7f"),
    *(b"\xa0", b"\xff"),
)
METHODS = (b"POST", b"GET")
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: hidden\r\n\r\n"
CHUNKS = b"0\r\n\r\n" + HIDDEN  # as a length: a body with a request in it

# Where an octet is put into `(line before)CRLF(name): (value)CRLF`.
PLACES = (
    lambda name, value, odd: b"X: y" + odd + b"\r\n" + name + b": " + value + b"\r\n",
    lambda name, value, odd: b"X: y\r" + odd + b"\n" + name + b": " + value + b"\r\n",
    lambda name, value, odd: odd + name + b": " + value + b"\r\n",
    lambda name, value, odd: name[:7] + odd + name[7:] + b": " + value + b"\r\n",
    lambda name, value, odd: name.replace(b"-", odd) + b": " + value + b"\r\n",
    lambda name, value, odd: name + odd + b": " + value + b"\r\n",
    lambda name, value, odd: name + b":" + odd + value + b"\r\n",
    lambda name, value, odd: name + b": " + value[:1] + odd + value[1:] + b"\r\n",
    lambda name, value, odd: name + b": " + value + odd + b"\r\n",
    lambda name, value, odd: name + b": " + value + b"\r" + odd + b"\n",
)

CODINGS = (
    *(b"Transfer-Encoding: chunked", b"transfer-encoding: CHUNKED", b"Transfer-Encoding:chunked"),
    *(b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: chunked ", b"Transfer-Encoding:"),
    *(b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked", b"TE: chunked"),
    *(b"Transfer-Encoding: chunked, identity", b'Transfer-Encoding: "chunked"'),
    *(b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked;x", b"Transfer-Encoding: ,"),
    *(b"Transfer_Encoding: chunked", b"Transfer-Encoding : chunked", b"X-Transfer-Encoding: x"),
    *(b"Transfer-Encoding:\r\n chunked", b" Transfer-Encoding: chunked", b"TransferEncoding: x"),
    *(b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked"),
    *(b"Connection: Transfer-Encoding", b"Trailer: Content-Length"),
)
LENGTHS = (
    *(b"Content-Length: %d", b"content-length: %d", b"Content-Length:%d", b"Content-Length:\t%d "),
    *(b"Content-Length: 00%d", b"Content-Length: +%d", b"Content-Length: %d, %d"),
    *(b"Content-Length: 0x%x", b"Content-Length: %d.0", b"Content-Length: %d_0"),
    *(b"Content-Length:\r\n %d", b"Content_Length: %d", b"Content-Length : %d"),
    *(b"X-Content-Length: %d", b"Content-Length: %d 1", b"X: y\nContent-Length: %d"),
    *(b"Content-Length: -%d", b"Connection: Content-Length, x%d"),
)


def _message(method: bytes, fields: bytes) -> bytes:
    return method + b" / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n" + CHUNKS


def _length(form: bytes) -> bytes:
    return form % ((len(CHUNKS),) * form.count(b"%"))


def singles() -> Iterator[tuple[str, bytes]]:
    """Each odd octet at each place of one framing field, beside a good one of the other kind."""
    coding = (b"Transfer-Encoding", b"chunked")
    length = (b"Content-Length", b"%d" % len(CHUNKS))
    for (mutated, good), first in itertools.product(
        ((coding, length), (length, coding)), (False, True)
    ):
        other = good[0] + b": " + good[1] + b"\r\n"
        for method, (at, place), odd in itertools.product(METHODS, enumerate(PLACES), OCTETS):
            line = place(*mutated, odd)
            fields = line + other if first else other + line
            yield f"{odd!r} at place {at} of {line!r}", _message(method, fields)


def doubles() -> Iterator[tuple[str, bytes]]:
    """Each spelling of framing beside each other one, of its own kind or of the other."""
    lengths = [_length(form) for form in LENGTHS]
    for one, two in itertools.product([*CODINGS, *lengths], repeat=2):
        yield f"{one!r} and {two!r}", _message(b"POST", one + b"\r\n" + two + b"\r\n")


def where_h11_ends(octets: bytes) -> bytes | None:
    """The octets after the first message in h11; None if h11 refuses it or waits."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(octets)
    try:
        while True:
            event = server.next_event()
            if isinstance(event, h11.EndOfMessage):
                return server.trailing_data[0]
            if event is h11.NEED_DATA:
                return None
    except h11.RemoteProtocolError:
        return None


def where_it_ends(head: Request, rest: bytes) -> bytes | None:
    """The octets after the body in the relay; None if it refuses the body or waits."""
    if head.length == CHUNKED:
        result = body(ChunkReader, [rest])[1]
        return result.rest if isinstance(result, Read) else None
    return rest[head.length :] if len(rest) >= head.length else None


def judge(octets: bytes) -> bool:
    """Check the promise for one message; return whether it was read."""
    result = first_head(request_reader(Limits()), [octets])
    assert result == first_head(request_reader(Limits()), octet_by_octet(octets))
    assert not isinstance(result, Waits)
    if isinstance(result, Refused):
        assert result.status in (400, 501)
        return False
    head = result.what
    assert b"content-length" not in head.headers
    assert (head.length == CHUNKED) == (b"transfer-encoding" in head.headers)
    for line in head.onward.split(b"\r\n"):
        name = line.partition(b":")[0].lower().replace(b"_", b"-")
        assert name not in (b"transfer-encoding", b"content-length")
        assert not re.search(rb"[\0-\x08\x0a-\x1f\x7f]", line)
    assert where_it_ends(head, result.rest) == where_h11_ends(octets) is not None
    return True


def test_there_are_as_many_mutations_as_promised() -> None:
    assert len(OCTETS) == 13
    assert len(PLACES) == 10
    mutations = {octets for _, octets in itertools.chain(singles(), doubles())}
    assert len(mutations) >= 1_700


@pytest.mark.parametrize("mutations", [singles, doubles])
def test_no_mutation_of_framing_hides_a_request(
    mutations: Callable[[], Iterator[tuple[str, bytes]]],
) -> None:
    read = 0
    for name, octets in mutations():
        try:
            read += judge(octets)
        except AssertionError as error:
            raise AssertionError(f"{name}: {octets!r}") from error
    assert read > 20, "too little is read for the other half of the promise to be tested"


@pytest.mark.parametrize("coding", CODINGS[:5])
@pytest.mark.parametrize("form", LENGTHS[:5])
def test_a_length_beside_a_coding_is_always_refused(coding: bytes, form: bytes) -> None:
    for lines in itertools.permutations([coding, _length(form), b"X: y"]):
        result = first_head(
            request_reader(Limits()), [_message(b"POST", b"\r\n".join(lines) + b"\r\n")]
        )
        assert isinstance(result, Refused)
        assert result.status == 400

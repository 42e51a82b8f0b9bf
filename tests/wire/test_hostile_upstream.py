"""Responses whose body breaks its own framing, read as a client of an upstream reads them.

Hostile heads are in test_h1_corpora.py. Here the head is good, and what follows is not.
"""

import pytest

from relay.wire.body import Sized, UntilClose
from relay.wire.chunked import ChunkScanner
from relay.wire.events import CHUNKED, UNTIL_CLOSE, Limits, Response
from relay.wire.h1 import response_reader

from .corpus import Case, each
from .feeding import Read, Refused, Waits, body, feedings, first_head

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked"
FORMS = {
    "canonical": b"\r\n\r\n",
    "legal": b"\r\nX-Twice: 1\r\nX-Twice: 1\r\n\r\n",
}


def read(pieces: list[bytes]) -> tuple[Response, Read | Refused | Waits]:
    """A complete response through head reader and extent, as in a splice."""
    head = first_head(response_reader(Limits()), pieces)
    assert isinstance(head, Read)
    length = head.what.length
    if length == CHUNKED:
        return head.what, body(ChunkScanner, [head.rest])[1]
    return head.what, body(
        UntilClose if length == UNTIL_CLOSE else lambda: Sized(length), [head.rest]
    )[1]


@each("chunked_refuse.txt")
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_broken_chunks_after_a_good_head_are_refused(case: Case, form: bytes) -> None:
    for pieces in feedings(CHUNKED_HEAD + form + case.octets):
        head, result = read(pieces)
        assert head.status == 200
        assert isinstance(result, Refused)


@pytest.mark.parametrize(
    ("octets", "left"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200", b"HTTP/1.1 200"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nx", b"x"),
        (b"HTTP/1.1 204 No Content\r\n\r\nx", b"x"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (CHUNKED_HEAD + b"\r\n\r\n0\r\n\r\nx", b"x"),
    ],
)
def test_octets_after_a_response_are_returned_apart(octets: bytes, left: bytes) -> None:
    for pieces in feedings(octets):
        head = first_head(response_reader(Limits()), pieces)
        assert isinstance(head, Read)
        if head.what.length == 0:
            assert head.rest == left
        else:
            result = read(pieces)[1]
            assert isinstance(result, Read)
            assert result.rest == left


@pytest.mark.parametrize(
    ("head", "length", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", UNTIL_CLOSE, False),
        (b"HTTP/1.0 200 OK\r\n\r\n", UNTIL_CLOSE, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", 5, False),
        (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", 5, True),
        (b"HTTP/1.1 200 \r\nContent-Length: 5\r\nConnection: Close\r\n\r\n", 5, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, close\r\n\r\n", 5, False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", CHUNKED, True),
        (b"HTTP/1.1 100 Continue\r\n\r\n", 0, True),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 0, True),
        (b"HTTP/1.1 529 \xc3\x9cberlastet\r\ncontent-length: 0\r\n\r\n", 0, True),
    ],
)
def test_a_good_head_gives_the_extent_and_the_persistence(
    head: bytes, length: int, keep_alive: bool
) -> None:
    for pieces in feedings(head):
        result = first_head(response_reader(Limits()), pieces)
        assert isinstance(result, Read)
        assert result.what.length == length
        assert result.what.keep_alive is keep_alive


def test_a_storm_of_interim_responses_is_read_one_by_one() -> None:
    reader = response_reader(Limits())
    octets = b"HTTP/1.1 100 Continue\r\n\r\n" * 300 + b"HTTP/1.1 200 OK\r\n"
    seen = 0
    found = reader.feed(octets)
    while found is not None:
        assert found[0].status == 100
        seen += 1
        found = reader.feed(found[1])
    assert seen == 300
    assert reader.held


def test_a_promised_body_that_is_cut_is_never_done() -> None:
    for octets in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        CHUNKED_HEAD + b"\r\n\r\n5\r\nhello\r\n",
        CHUNKED_HEAD + b"\r\n\r\n5\r\nhel",
        CHUNKED_HEAD + b"\r\n\r\n5\r\nhello\r\n0\r\n",
    ):
        assert isinstance(read([octets])[1], Waits)

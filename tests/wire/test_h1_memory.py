"""A connection's reader remembers its last head; its results must not depend on that.

Each head of a stream is read by a reader that has read the ones before it, and by a fresh
one. Heads that differ in a few octets come one after another, since there memory could err.
"""

import gc
import random
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire.events import Limits, Request
from relay.wire.h1 import request_reader
from relay.wire.repeated_head import repeated_head

from .feeding import Read, Refused, first_head
from .generated import REQUEST_LINES, chance_head, heads

FIRST = b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-Api-Key: k\r\n\r\n"
NEXT = [
    FIRST,
    FIRST.replace(b": 5", b": 123456789012345"),
    FIRST.replace(b": 5", b": 1234567890123456"),
    FIRST.replace(b": 5", b": 123456789012345678901"),
    FIRST.replace(b": 5", b": 005"),
    FIRST.replace(b": 5", b": "),
    FIRST.replace(b": 5", b": +5"),
    FIRST.replace(b": 5", b": -5"),
    FIRST.replace(b": 5", b": 5, 5"),
    FIRST.replace(b": 5", b": 5\r\nContent-Length: 5"),
    FIRST.replace(b": 5", b": 5\r\nTransfer-Encoding: chunked"),
    FIRST.replace(b": 5", b": \xb2"),
    FIRST.replace(b": 5", b": 5 "),
    FIRST.replace(b": 5", b":5"),
    FIRST.replace(b"5\r\n", b"5\n"),
    FIRST.replace(b"Key: k", b"Key: l"),
    FIRST.replace(b"Key: k", b"Key: kk"),
    FIRST.replace(b"Host: a", b"Host: b"),
    FIRST.replace(b"POST", b"PUT"),
    FIRST.replace(b"1.1", b"1.0"),
    FIRST.replace(b"Content-Length: 5\r\n", b""),
    FIRST.replace(b"Content-Length: 5", b"X-Content-Length: 5"),
    FIRST.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: \r\nX-Api-Key: k\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 5\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 5\r\nHost: 5\r\n\r\n",
]


def judge(stream: list[bytes]) -> int:
    """Compare a reader with a memory to fresh ones; return how many heads were read."""
    reader = request_reader(Limits())
    for at, head in enumerate(stream):
        alone = first_head(request_reader(Limits()), [head])
        assert first_head(reader, [head]) == alone
        if not isinstance(alone, Read):
            return at
    return len(stream)


@pytest.mark.parametrize("head", NEXT)
def test_a_head_reads_the_same_after_any_other(head: bytes) -> None:
    for before in NEXT:
        judge([before, head])
        judge([before, head, head])
        judge([before, before, head])


@given(st.lists(heads(REQUEST_LINES), min_size=2, max_size=4))
def test_a_stream_of_heads_reads_as_each_of_them_alone(stream: list[bytes]) -> None:
    judge(stream)


def test_a_head_reads_the_same_after_one_that_differs_slightly() -> None:
    read = 0
    for seed in range(3000):
        chance = random.Random(seed)
        before = chance_head(chance, REQUEST_LINES[:4]) if seed % 2 else chance.choice(NEXT)
        at = chance.randrange(len(before) - 4)
        odd = bytes([chance.choice(b"0159 \t\r\n:,+-\x00\xb2")])
        after = before[:at] + chance.choice((odd, b"", odd * 2)) + before[at + 1 :]
        after = after.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        try:
            read += judge([before, after]) == 2
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {before!r}, {after!r}") from error
    assert read > 100


def test_the_limit_of_a_head_holds_for_a_remembered_one() -> None:
    head = FIRST.replace(b"Key: k", b"Key: " + b"k" * (32 * 1024 - len(FIRST) + 1))
    assert len(head) == 32 * 1024
    reader = request_reader(Limits())
    assert isinstance(first_head(reader, [head]), Read)
    assert isinstance(first_head(reader, [head]), Read)
    longer = first_head(reader, [head.replace(b": 5", b": 55")])
    assert isinstance(longer, Refused)
    assert longer.status == 431


def test_connections_of_one_client_share_one_copy_of_its_head() -> None:
    readers = [request_reader(Limits()) for _ in range(3)]
    heads_of = [FIRST, FIRST, FIRST.replace(b": 5", b": 17")]
    fed = [reader.feed(head) for reader, head in zip(readers, heads_of, strict=True)]
    requests = [found[0] for found in fed if found is not None]
    assert [request.length for request in requests] == [5, 5, 17]
    assert len({id(request.onward) for request in requests}) == 1
    assert len({id(request.headers) for request in requests}) == 1
    other = request_reader(Limits()).feed(FIRST.replace(b"Key: k", b"Key: l"))
    assert other is not None
    assert other[0].headers[b"x-api-key"] == b"l"


def test_a_shared_head_goes_with_its_last_connection() -> None:
    request = Request(b"GET", b"/", b"/", {}, b"", 0)
    kept = repeated_head(b"GET / HTTP/1.1\r\n", b"", request)
    assert repeated_head(b"GET / HTTP/1.1\r\n", b"", request) is kept
    gone = weakref.ref(kept)
    del kept
    gc.collect()
    assert gone() is None

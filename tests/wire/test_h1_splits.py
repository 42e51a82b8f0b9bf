"""Any octets, cut anywhere: a reader reads, waits or refuses, always the same and in bounds."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.wire.events import Limits
from relay.wire.h1 import request_reader, response_reader

from .feeding import MakeReader, Refused, Waits, heads, octet_by_octet, split_at
from .generated import REQUEST_LINES, STATUS_LINES
from .generated import heads as generated_heads

LIMITS = Limits(request_line=48, head=160, fields=4)  # small, so that chance finds the edges
READERS = pytest.mark.parametrize("make", [request_reader, response_reader])
_noise = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\r\n\r\n", b"\r\n", b"\n", b"\r", b" ", b":", b"x" * 50, b"x: y\r\n" * 5]),
)
_streams = st.lists(
    st.one_of(generated_heads(REQUEST_LINES), generated_heads(STATUS_LINES), _noise), max_size=4
).map(b"".join)


@pytest.mark.thorough
@READERS
@given(octets=_streams, cuts=st.lists(st.integers(0, 400), max_size=6))
def test_any_split_reads_the_same_under_small_limits(
    make: MakeReader, octets: bytes, cuts: list[int]
) -> None:
    expected = heads(make(LIMITS), [octets])
    assert heads(make(LIMITS), split_at(octets, cuts)) == expected
    assert heads(make(LIMITS), octet_by_octet(octets)) == expected
    if isinstance(expected[-1], Waits):
        assert expected[-1].octets < LIMITS.head


@READERS
@settings(max_examples=50)
@given(octets=_streams, cuts=st.lists(st.integers(0, 400), max_size=6))
def test_any_split_reads_the_same_under_the_default_limits(
    make: MakeReader, octets: bytes, cuts: list[int]
) -> None:
    expected = heads(make(Limits()), [octets])
    assert heads(make(Limits()), split_at(octets, cuts)) == expected
    assert heads(make(Limits()), octet_by_octet(octets)) == expected


@READERS
@pytest.mark.parametrize(
    "endless", [b"x", b"A b c\r\n", b"GET / HTTP/1.1\r\nX: ", b"\r", b"X: y\r\n", b"\0"]
)
@pytest.mark.parametrize("size", [1, 1000, 65536])
def test_no_stream_makes_a_reader_hold_more_than_a_head(
    make: MakeReader, endless: bytes, size: int
) -> None:
    reader = make(Limits())
    stream = endless * (200_000 // len(endless))
    most = Limits().head + 64 * 1024
    results = heads(reader, (stream[at : at + size] for at in range(0, most, size)))
    assert isinstance(results[-1], Refused)
    assert len(reader.held) <= Limits().head


@READERS
def test_no_octets_are_no_head(make: MakeReader) -> None:
    reader = make(Limits())
    assert reader.feed(b"") is None
    assert not reader.held
    assert reader.feed(b"H") is None
    assert reader.feed(b"") is None
    assert reader.held


BLANKS = b" " * 32_000


@pytest.mark.parametrize(
    "line",
    [
        b"X:" + BLANKS + b"\0",
        b"Connection:" + BLANKS + b"x\0",
        b"X: a" + BLANKS + b"\0",
        b"X: " + b"a " * 16_000 + b"\0",
        b"X: " + b"a" * 32_000 + b"\0",
        b"X" * 32_000 + b"\0",
        b"Connection: " + b",x" * 16_000,
        b"Host: " + b"a.-_" * 8_000 + b"/",
        b"Content-Length:" + BLANKS + b"5 5",
    ],
    ids=lambda line: repr(line[:14] + line[-2:]),
)
@READERS
def test_no_head_costs_more_than_its_length_warrants(make: MakeReader, line: bytes) -> None:
    first = b"GET / HTTP/1.1\r\n" if make is request_reader else b"HTTP/1.1 200 OK\r\n"
    before = time.thread_time()
    heads(make(Limits()), [first + b"X: y\r\n" + line + b"\r\n\r\n"])
    assert time.thread_time() - before < 0.25  # 5 ms as a rule; 6 s where a pattern backtracks

"""Each limit of a head at limit - 1, limit and limit + 1, in every feeding."""

import pytest

from relay.wire.events import Limits
from relay.wire.h1 import request_reader, response_reader

from .feeding import MakeReader, Read, Refused, Waits, feedings, first_head

EDGES = pytest.mark.parametrize("over", [-1, 0, 1], ids=["limit-1", "limit", "limit+1"])
FORMS = pytest.mark.parametrize("canonical", [True, False], ids=["canonical", "legal"])


def judge(make: MakeReader, octets: bytes, refusal: int | None) -> None:
    """Check that all feedings have one outcome: read (None) or a refusal with that status."""
    for pieces in feedings(octets):
        result = first_head(make(Limits()), pieces)
        if refusal is None:
            assert isinstance(result, Read)
        else:
            assert isinstance(result, Refused)
            assert result.status == refusal


@EDGES
@FORMS
def test_a_request_line_may_have_8_kib(over: int, canonical: bool) -> None:
    version = b"HTTP/1.1" if canonical else b"HTTP/1.0"
    room = 8192 + over - len(b"GET / HTTP/1.1")
    line = b"GET /" + b"x" * room + b" " + version
    assert len(line) == 8192 + over
    judge(request_reader, line + b"\r\nHost: a\r\n\r\n", 414 if over > 0 else None)


@EDGES
@FORMS
def test_a_request_head_may_have_32_kib(over: int, canonical: bool) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX:" + (b" " if canonical else b"\t") + b"%b\r\n\r\n"
    head %= b"x" * (32768 + over - len(head) + 2)
    assert len(head) == 32768 + over
    judge(request_reader, head, 431 if over > 0 else None)


@EDGES
@FORMS
def test_a_request_may_have_100_fields(over: int, canonical: bool) -> None:
    more = [b"X%d: y\r\n" % number for number in range(99 + over)]
    if not canonical:
        more[1:] = more[:1] * (len(more) - 1)
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(more) + b"\r\n"
    judge(request_reader, head, 431 if over > 0 else None)


@EDGES
def test_a_response_head_may_have_32_kib(over: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nX: %b\r\n\r\n"
    head %= b"x" * (32768 + over - len(head) + 2)
    assert len(head) == 32768 + over
    judge(response_reader, head, 431 if over > 0 else None)


@EDGES
def test_a_response_may_have_100_fields(over: int) -> None:
    fields = b"".join(b"X%d: y\r\n" % number for number in range(100 + over))
    judge(response_reader, b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n", 431 if over > 0 else None)


@EDGES
def test_octets_after_a_head_do_not_count(over: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"
    judge(request_reader, head + b"\n" * (32768 + over), None)
    judge(request_reader, head + b"x" * 200_000, None)


def test_smaller_limits_hold_as_well() -> None:
    limits = Limits(request_line=20, head=60, fields=2)
    good = b"GET /abcdef HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n"
    result = first_head(request_reader(limits), [good % (b"y" * 22)])
    assert isinstance(result, Read)
    for octets, status in (
        (good % (b"y" * 23), 431),
        (good.replace(b"abcdef", b"abcdefg"), 414),
        (good.replace(b"X:", b"X: y\r\nY:"), 431),
    ):
        result = first_head(request_reader(limits), [octets])
        assert isinstance(result, Refused)
        assert result.status == status


@pytest.mark.parametrize("make", [request_reader, response_reader])
def test_a_limit_refuses_at_the_first_octet_that_settles_it(make: MakeReader) -> None:
    limits = Limits(request_line=20, head=60, fields=2)
    for octets in (b"GET /" + b"x" * 17, b"GET / HTTP/1.1\r\nX: " + b"x" * 41):
        assert isinstance(first_head(make(limits), [octets[:-1]]), Waits)
        assert isinstance(first_head(make(limits), [octets]), Refused)


@pytest.mark.parametrize(
    ("make", "start"),
    [(request_reader, b"GET / HTTP/1.1\r\n"), (response_reader, b"HTTP/1.1 200 OK\r\n")],
    ids=["request", "response"],
)
@pytest.mark.parametrize("length", [10, 9000, 20_000])
def test_a_bare_line_feed_is_refused_however_far_it_is(
    make: MakeReader, start: bytes, length: int
) -> None:
    """At once: the head need not be complete."""
    for pieces in feedings(start + b"x: " + b"a" * length + b"\ny", splits=1):
        result = first_head(make(Limits()), pieces)
        assert isinstance(result, Refused)
        assert result.status == 400

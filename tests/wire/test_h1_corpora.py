"""The corpora of heads: what is refused, and what is read and how, in every feeding."""

import pytest

from relay.wire.events import CHUNKED, Limits, Request
from relay.wire.h1 import request_reader, response_reader

from .corpus import Case, each, read
from .feeding import Read, Refused, feedings, first_head

SUCCESSOR = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
STATUSES = {400, 414, 417, 431, 501, 505}


def test_the_corpora_are_as_large_as_promised() -> None:
    assert len(read("h1_refuse.txt")) >= 60
    assert len(read("h1_accept.txt")) >= 60
    assert len(read("h1_hostile.txt")) >= 60
    assert {int(case.told[0]) for case in read("h1_refuse.txt")} == STATUSES


@each("h1_refuse.txt")
@pytest.mark.parametrize("after", [b"", SUCCESSOR], ids=["alone", "pipelined"])
def test_a_bad_request_is_refused_alike_in_every_feeding(case: Case, after: bytes) -> None:
    octets = case.octets + after
    whole = first_head(request_reader(Limits()), [octets])
    assert isinstance(whole, Refused)
    assert whole.status == int(case.told[0])
    for pieces in feedings(octets):
        assert first_head(request_reader(Limits()), pieces) == whole


@each("h1_accept.txt")
@pytest.mark.parametrize("after", [b"", SUCCESSOR, b"\r\n\r\n", b"\0\xff"], ids=repr)
def test_a_good_request_is_read_alike_in_every_feeding(case: Case, after: bytes) -> None:
    whole = first_head(request_reader(Limits()), [case.octets + after])
    assert isinstance(whole, Read)
    assert whole.rest == after
    assert _told(whole.what) == case.told[0]
    assert b"content-length" not in whole.what.headers, "it is told by `length` alone"
    for line in case.told[1:]:
        name, _, value = line.partition(b": ")
        assert whole.what.headers[name] == value
    for pieces in feedings(case.octets + after):
        assert first_head(request_reader(Limits()), pieces) == whole


@each("h1_accept.txt")
def test_a_head_is_not_told_before_its_last_octet(case: Case) -> None:
    reader = request_reader(Limits())
    assert not reader.started
    assert reader.feed(case.octets[:-1]) is None
    assert reader.started
    assert reader.feed(case.octets[-1:]) is not None
    assert not reader.started


@each("h1_accept.txt")
def test_what_goes_upstream_is_whole_lines_without_framing(case: Case) -> None:
    read_ = first_head(request_reader(Limits()), [case.octets])
    assert isinstance(read_, Read)
    onward = read_.what.onward
    assert not onward or onward.endswith(b"\r\n")
    assert b"\r\n\r\n" not in onward
    assert onward.count(b"\n") == onward.count(b"\r\n") == onward.count(b"\r")
    names = {line.partition(b":")[0].lower() for line in onward.split(b"\r\n")[:-1]}
    framing = {b"content-length", b"transfer-encoding", b"connection", b"host", b"close"}
    assert not {name.replace(b"_", b"-") for name in names} & framing


@each("h1_hostile.txt")
def test_a_response_that_cannot_be_trusted_is_refused_in_every_feeding(case: Case) -> None:
    whole = first_head(response_reader(Limits()), [case.octets])
    assert isinstance(whole, Refused)
    for pieces in feedings(case.octets):
        assert first_head(response_reader(Limits()), pieces) == whole


def _told(request: Request) -> bytes:
    """A request in the words of h1_accept.txt."""
    assert request.path == request.target.split(b"?")[0]
    words = [
        request.method,
        request.target,
        b"chunked" if request.length == CHUNKED else b"%d" % request.length,
        b"keep" if request.keep_alive else b"close",
    ]
    if not request.http11:
        words.append(b"1.0")
    if request.expects_continue:
        words.append(b"continue")
    return b" ".join(words)

"""The corpora of heads are refused or read as they say, in every feeding."""

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
    assert {int(case.expected[0]) for case in read("h1_refuse.txt")} == STATUSES


@pytest.mark.matrix(share=4)
@each("h1_refuse.txt")
@pytest.mark.parametrize("after", [b"", SUCCESSOR], ids=["alone", "pipelined"])
def test_a_bad_request_is_refused_alike_in_every_feeding(case: Case, after: bytes) -> None:
    octets = case.octets + after
    result = first_head(request_reader(Limits()), [octets])
    assert isinstance(result, Refused)
    assert result.status == int(case.expected[0])
    for pieces in feedings(octets):
        assert first_head(request_reader(Limits()), pieces) == result


@pytest.mark.matrix(share=4)
@each("h1_accept.txt")
@pytest.mark.parametrize("after", [b"", SUCCESSOR, b"\r\n\r\n", b"\0\xff"], ids=repr)
def test_a_good_request_is_read_alike_in_every_feeding(case: Case, after: bytes) -> None:
    result = first_head(request_reader(Limits()), [case.octets + after])
    assert isinstance(result, Read)
    assert result.rest == after
    assert _summary(result.what) == case.expected[0]
    assert b"content-length" not in result.what.headers, "`length` alone has it"
    for line in case.expected[1:]:
        name, _, value = line.partition(b": ")
        assert result.what.headers[name] == value
    for pieces in feedings(case.octets + after):
        assert first_head(request_reader(Limits()), pieces) == result


@pytest.mark.parametrize("host", [b"u:p@a", b"a b", b"a:port", b"[::1", b"a:123456"], ids=repr)
def test_an_absolute_target_names_a_valid_host(host: bytes) -> None:
    head = b"GET http://%b/ HTTP/1.1\r\nHost: a\r\n\r\n"
    assert isinstance(first_head(request_reader(Limits()), [head % b"a"]), Read)
    result = first_head(request_reader(Limits()), [head % host])
    assert isinstance(result, Refused)
    assert result.status == 400


@each("h1_accept.txt")
def test_a_head_is_not_read_before_its_last_octet(case: Case) -> None:
    reader = request_reader(Limits())
    assert not reader.held
    assert reader.feed(case.octets[:-1]) is None
    assert reader.held
    assert reader.feed(case.octets[-1:]) is not None
    assert not reader.held


@each("h1_accept.txt")
def test_complete_lines_without_framing_go_upstream(case: Case) -> None:
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
def test_a_hostile_response_is_refused_in_every_feeding(case: Case) -> None:
    result = first_head(response_reader(Limits()), [case.octets])
    assert isinstance(result, Refused)
    for pieces in feedings(case.octets):
        assert first_head(response_reader(Limits()), pieces) == result


def _summary(request: Request) -> bytes:
    """A request in the form of h1_accept.txt."""
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

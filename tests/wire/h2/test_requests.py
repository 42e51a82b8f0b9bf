"""Heads of requests: the same as over HTTP/1.1, refused over a limit, reset where malformed."""

import pytest

from relay.errors import EXPECTATION_FAILED, HEAD_TOO_LARGE, URI_TOO_LONG
from relay.wire.events import CHUNKED, Limits, Request
from relay.wire.h1 import Http2PrefaceError, request_reader
from relay.wire.h2.frames import PREFACE, PROTOCOL_ERROR
from tests.wire.h2.peer import GET, POST, Peer

KEY = "sk-llmapi-0123456789abcdef"


def request_of(fields: list[tuple[str, str]], *, ended: bool = True) -> Request:
    """The request that an engine makes of these fields."""
    peer = Peer(serves=False).open()
    peer.send(peer.headers(1, fields, flags="ES" if ended else "E"))
    (stream,) = peer.requests
    return stream.request


HEADS = [
    [("accept", "a"), ("user-agent", "b"), ("x-own", "c")],
    [("x-api-key", KEY), ("x-session-id", KEY), ("user-agent", "me")],
    [("authorization", f"Bearer {KEY}"), ("accept", "one"), ("accept", "two")],
    [("anthropic-version", "1"), ("anthropic-beta", "x"), ("anthropic-api-key", "y")],
    [("te", "trailers"), ("user-agent", "")],
]


@pytest.mark.parametrize("fields", HEADS)
@pytest.mark.parametrize("path", ["/", "/v1/messages?beta=true", f"/v1?key={KEY}", "/v1?k=%73k"])
def test_a_request_is_the_same_as_over_http11(fields: list[tuple[str, str]], path: str) -> None:
    pseudo = [(name, path if name == ":path" else value) for name, value in GET]
    ours = request_of([*pseudo, *fields])
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    head = f"GET {path} HTTP/1.1\r\nhost: relay\r\n{lines}\r\n".encode()
    found = request_reader(Limits()).feed(head)
    assert found is not None
    assert ours == found[0]


def test_a_host_may_stand_for_the_authority() -> None:
    assert request_of([*GET[:3], ("host", "relay")]).headers[b"host"] == b"relay"
    options = [(":method", "OPTIONS"), *GET[1:2], (":path", "*"), *GET[3:]]
    assert request_of(options).target == b"*"


def test_cookies_in_pieces_are_joined() -> None:
    request = request_of([*GET, ("cookie", "a=1"), ("cookie", "b=2")])
    assert request.headers[b"cookie"] == b"a=1; b=2"


def test_an_expectation_and_a_length_are_noted() -> None:
    request = request_of([*POST, ("expect", "100-continue"), ("content-length", "7")], ended=False)
    assert (request.expects_continue, request.length) == (True, 7)
    assert request_of(POST, ended=False).length == CHUNKED


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        pytest.param([(f"x-{number}", "1") for number in range(98)], HEAD_TOO_LARGE, id="many"),
        pytest.param([("x-long", "x" * 4000)] * 9, HEAD_TOO_LARGE, id="long"),
        pytest.param([("expect", "more")], EXPECTATION_FAILED, id="an expectation"),
    ],
)
def test_a_head_over_a_limit_is_refused(fields: list[tuple[str, str]], kind: object) -> None:
    peer = Peer().open()
    peer.send(peer.headers(1, [*POST, *fields], flags="E"))
    (event,) = peer.refused
    assert event.error is not None
    assert event.error.kind is kind
    assert peer.is_answered(1)
    peer.send(peer.data(1))  # what was on its way is dropped
    assert not peer.reset_codes
    assert not peer.engine.table.streams
    assert peer.lives()


def test_a_long_target_is_refused_and_a_large_legal_head_is_not() -> None:
    peer = Peer().open()
    long = [(name, "/" + "x" * 9000 if name == ":path" else value) for name, value in GET]
    peer.send(peer.headers(1, long))
    assert peer.refused[0].error is not None
    assert peer.refused[0].error.kind is URI_TOO_LONG
    peer.send(peer.headers(3, [*GET, ("x-long", "x" * 4000), ("x-long", "x" * 4000)]))
    assert peer.is_answered(3)


def test_the_same_head_is_the_same_request() -> None:
    peer = Peer().open()
    for number in range(4):
        peer.send(peer.headers(2 * number + 1))
    requests = [stream.request for stream in peer.requests]
    assert requests[2] is requests[3]
    peer.send(peer.headers(9, flags="E"))
    assert peer.requests[-1].request.length == CHUNKED


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([*GET, ("content-length", "5")], id="a length without a body"),
        pytest.param([*GET, ("content-length", "0"), ("content-length", "0")], id="two lengths"),
        pytest.param([*GET, ("host", "relay"), ("host", "relay")], id="two hosts"),
        pytest.param([*GET, ("host", "other")], id="another host"),
        pytest.param(GET[:3], id="no host"),
        pytest.param([*GET[:2], (":path", "*"), *GET[3:]], id="GET *"),
        pytest.param([(":method", "CONNECT"), *GET[1:]], id="CONNECT"),
    ],
)
def test_fields_that_are_no_request_are_reset(fields: list[tuple[str, str]]) -> None:
    peer = Peer().open()
    peer.send(peer.headers(1, fields))
    assert peer.reset_codes == {1: PROTOCOL_ERROR}
    assert not peer.requests


@pytest.mark.parametrize("cut", [1, 10, 17, 18])
def test_a_reader_of_http11_finds_the_preface(cut: int) -> None:
    reader = request_reader(Limits())
    octets = PREFACE + b"frames"
    if cut < 18:
        assert reader.feed(octets[:cut]) is None
        octets = octets[cut:]
    with pytest.raises(Http2PrefaceError) as found:
        reader.feed(octets)
    assert found.value.rest == b"SM\r\n\r\nframes"

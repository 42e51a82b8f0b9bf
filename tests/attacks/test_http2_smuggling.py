"""What HTTP/2 can say and HTTP/1.1 cannot: none of it reaches an upstream (HAProxy's
`h2_desync_attacks.vtc`, PortSwigger's "HTTP/2: The Sequel is Always Worse")."""

import pytest
from hyperframe.frame import DataFrame

from relay.wire.h2.frames import PROTOCOL_ERROR
from tests.fakes.http2 import Fields, body, get, http2_caller, post
from tests.fakes.live import RelayWith
from tests.fakes.upstream import OK, UpstreamWith, always

SMUGGLED = "GET /v1/models HTTP/1.1"
FIELDS: dict[str, Fields] = {
    "CR LF in a value": [("user-agent", f"a\r\n\r\n{SMUGGLED}")],
    "LF in a value": [("user-agent", f"a\n{SMUGGLED}")],
    "CR in a value": [("user-agent", "a\rb")],
    "NUL in a value": [("user-agent", "a\0b")],
    "a control character in a value": [("user-agent", "a\x01b")],
    "DEL in a value": [("user-agent", "a\x7fb")],
    "a blank before a value": [("user-agent", " a")],
    "a blank behind a value": [("user-agent", "a ")],
    "a tab behind a value": [("user-agent", "a\t")],
    "CR LF in a name": [("x\r\nevil", "a")],
    "a colon in a name": [("x:evil", "a")],
    "a blank in a name": [("x evil", "a")],
    "an empty name": [("", "a")],
    "NUL in a name": [("x\0", "a")],
    "a name in upper case": [("User-Agent", "a")],
    "transfer-encoding: chunked": [("transfer-encoding", "chunked")],
    "transfer-encoding: identity": [("transfer-encoding", "identity")],
    "connection": [("connection", "close")],
    "connection: content-length": [("connection", "content-length")],
    "keep-alive": [("keep-alive", "timeout=5")],
    "proxy-connection": [("proxy-connection", "keep-alive")],
    "upgrade": [("upgrade", "h2c")],
    "te: chunked": [("te", "chunked")],
    "another host": [("host", "evil.example")],
    "two hosts": [("host", "relay"), ("host", "relay")],
    "a host with a path": [("host", "relay/evil")],
    "two content-lengths": [("content-length", "97"), ("content-length", "97")],
    "content-length with a sign": [("content-length", "+97")],
    "content-length in hex": [("content-length", "0x61")],
    "content-length as a list": [("content-length", "97, 97")],
    "a longer content-length": [("content-length", "9999")],
    "a shorter content-length": [("content-length", "1")],
    "content-length 0": [("content-length", "0")],
    "a pseudo-header behind fields": [("user-agent", "a"), (":path", "/v1/models")],
    "a second :path": [(":path", "/v1/models")],
    "a second :method": [(":method", "GET")],
    "a second :authority": [(":authority", "relay")],
    "an unknown pseudo-header": [(":protocol", "websocket")],
    "a response's pseudo-header": [(":status", "200")],
}
PSEUDO: dict[str, tuple[str, str]] = {
    "CR LF in :path": (":path", f"/v1/messages HTTP/1.1\r\nhost: a\r\n\r\n{SMUGGLED}"),
    "a blank in :path": (":path", "/v1/messages HTTP/1.1"),
    "an absolute :path": (":path", "http://evil.example/v1/messages"),
    "a relative :path": (":path", "v1/messages"),
    "an empty :path": (":path", ""),
    "a fragment in :path": (":path", "/v1/messages#x"),
    "an asterisk as :path": (":path", "*"),
    "octets above ASCII in :path": (":path", "/v1/messages\u00e9"),
    "CR LF in :method": (":method", f"POST / HTTP/1.1\r\n\r\n{SMUGGLED}"),
    "a blank in :method": (":method", "POST /v1/models"),
    "an empty :method": (":method", ""),
    "CONNECT": (":method", "CONNECT"),
    "another :scheme": (":scheme", "http://evil.example/?"),
    "CR LF in :scheme": (":scheme", "http\r\nx: y"),
    "an empty :authority": (":authority", ""),
    "user information in :authority": (":authority", "a@relay"),
    "CR LF in :authority": (":authority", "relay\r\nx-evil: 1"),
    "a path in :authority": (":authority", "relay/evil"),
}
TRAILERS: dict[str, Fields] = {
    "content-length in trailers": [("content-length", "97")],
    "transfer-encoding in trailers": [("transfer-encoding", "chunked")],
    "host in trailers": [("host", "relay")],
    "a pseudo-header in trailers": [(":path", "/")],
    "CR LF in trailers": [("x-sum", "1\r\n")],
}


@pytest.mark.parametrize("part", ["fields", "pseudo-headers", "trailers"])
async def test_nothing_odd_reaches_an_upstream(
    relay_with: RelayWith, upstream_with: UpstreamWith, part: str
) -> None:
    upstream = await upstream_with(always(OK))
    live = await relay_with(upstream)
    good = post(live.key)
    heads: dict[str, tuple[Fields, Fields]] = {}
    if part == "fields":
        heads = {name: ([*good, *more], []) for name, more in FIELDS.items()}
    elif part == "pseudo-headers":
        for title, (name, value) in PSEUDO.items():
            heads[title] = ([(name, value) if field[0] == name else field for field in good], [])
    else:
        heads = {name: (good, more) for name, more in TRAILERS.items()}
    for title, (head, trailers) in heads.items():
        async with http2_caller(live.port) as caller:
            stream = caller.begin(head)
            caller.send(DataFrame(stream, body(), flags=[] if trailers else ["END_STREAM"]))
            if trailers:
                caller.send(caller.head(stream, trailers, end=True))
            reply = await caller.answer(stream)
            assert (reply.fields, reply.reset) == ({}, PROTOCOL_ERROR), title
            assert (await caller.answer(caller.request(get()))).status == 200, title
    assert upstream.received == b""
    assert {line["status"] for line in live.log()} <= {200, 0}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([("cookie", "a=1"), ("cookie", "b=2")], id="cookies in pieces"),
        pytest.param([("te", "trailers")], id="te: trailers"),
        pytest.param([("host", "relay")], id="the same host"),
        pytest.param([("user-agent", "a\tb")], id="a tab within a value"),
        pytest.param([("accept", "a"), ("accept", "b")], id="a repeated field"),
        pytest.param([("user-agent", "")], id="an empty value"),
    ],
)
async def test_what_is_legal_is_served(
    relay_with: RelayWith, upstream_with: UpstreamWith, fields: Fields
) -> None:
    upstream = await upstream_with(always(OK))
    live = await relay_with(upstream)
    async with http2_caller(live.port) as caller:
        reply = await caller.answer(caller.request(post(live.key, *fields), body()))
    assert reply.status == 200
    (seen,) = upstream.requests
    assert b"cookie" not in seen.fields
    assert b"te" not in seen.fields
    assert seen.body == body()


async def test_a_key_in_another_field_does_not_go_upstream(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    upstream = await upstream_with(always(OK))
    live = await relay_with(upstream)
    fields = post(live.key, ("x-session-id", live.key), path=f"/v1/messages?beta=1&key={live.key}")
    async with http2_caller(live.port) as caller:
        assert (await caller.answer(caller.request(fields, body()))).status == 200
    assert live.key.encode() not in upstream.received

"""Fields that travel onward, by an allow-list in each direction."""

import gc
from collections.abc import Callable

import pytest

from relay.wire import h1
from relay.wire.events import Limits, Request, Response
from relay.wire.h1 import request_reader, response_reader
from relay.wire.headers import (
    ANSWERED,
    FieldTable,
    NotCanonicalError,
    goes_to_caller,
    goes_upstream,
)

STAYS = [
    *("Connection", "Close", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization"),
    *("Proxy-Connection", "TE", "Trailer", "Upgrade", "HTTP2-Settings", "Host"),
    *("Accept-Encoding", "Authorization", "X-Api-Key", "Cookie", "Forwarded", "Via"),
    *("X-Real-IP", "X-Client-IP", "X-Cluster-Client-IP", "True-Client-IP", "CDN-Loop"),
    *("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Anything"),
    *("CF-Connecting-IP", "CF-Ray", "Fastly-Client-IP", "X-Amzn-Trace-Id", "traceparent"),
    *("X-ProxyUser-IP", "Fly-Client-IP", "X-Azure-ClientIP", "X-Original-Forwarded-For"),
    *("Remote-User", "X-WebAuth-User", "X-Auth-Request-Email", "New-Api-User", "Origin"),
    *("X-LiteLLM-Api-Key", "X-Anthropic-Api-Key", "Anthropic-Auth-Token", "Private-Token"),
    *("X-Access-Token", "Cookie2", "Set-Cookie", "Authorization_", "X-Relay-Admin"),
    *("anthropic-api-key", "x-stainless-secret", "x-claude-code-credential", "X-Unheard-Of"),
    *("X-Claude-Gateway-User-Id", "X-LiteLLM-End-User-Id", "Baggage", "Referer"),
]
TRAVELS = [
    *("Accept", "User-Agent", "Content-Type", "Content-Encoding", "anthropic-version"),
    *("anthropic-beta", "anthropic-anything-new", "X-Stainless-Retry-Count", "X-App"),
    *("session_id", "Session-Id", "Thread-Id", "Idempotency-Key", "Accept-Language"),
    *("X-Session-Id", "X-Session-Affinity", "X-Client-Request-Id", "X-Claude-Code-Agent-Id"),
]
NEVER_ANSWERED = [
    *("Set-Cookie", "anthropic-organization-id", "request-id", "x-request-id", "Server"),
    *("CF-Ray", "Via", "Alt-Svc", "Strict-Transport-Security", "X-Envoy-Upstream-Service-Time"),
    *("anthropic-ratelimit-requests-remaining", "openai-organization", "Connection"),
    *("Keep-Alive", "Transfer-Encoding", "Content-Length", "Trailer", "Location", "Vary"),
]


def request(*fields: str, target: str = "/") -> Request:
    """The request that the reader makes of these field lines."""
    head = "\r\n".join([f"POST {target} HTTP/1.1", *fields, "", ""]).encode()
    found = request_reader(Limits()).feed(head)
    assert found is not None
    return found[0]


def response(*fields: str) -> Response:
    head = "\r\n".join(["HTTP/1.1 200 OK", *fields, "", ""]).encode()
    found = response_reader(Limits()).feed(head)
    assert found is not None
    return found[0]


READ_BY = pytest.mark.parametrize(
    "also", [[], ["X-Twice: 1", "X-Twice: 1"]], ids=["canonical", "legal"]
)


@READ_BY
@pytest.mark.parametrize("name", TRAVELS)
def test_an_end_to_end_field_goes_upstream_as_it_came(name: str, also: list[str]) -> None:
    onward = request("Host: a", *also, f"{name}: some value").onward
    assert onward.endswith(f"{name}: some value\r\n".encode())


@pytest.mark.matrix(share=4)
@READ_BY
@pytest.mark.parametrize("name", STAYS)
@pytest.mark.parametrize("spelled", [str, str.lower, str.upper], ids=["as-is", "lower", "upper"])
def test_fields_of_this_hop_or_the_caller_stay_here(
    name: str, spelled: Callable[[str], str], also: list[str]
) -> None:
    host = [] if name == "Host" else ["Host: a"]
    onward = request(*host, *also, f"{spelled(name)}: secret").onward
    assert b"secret" not in onward
    assert onward == request("Host: a", *also).onward


@READ_BY
@pytest.mark.parametrize("name", [*STAYS, "Transfer-Encoding", "Content-Length"])
def test_a_field_that_stays_here_does_with_underscores_too(name: str, also: list[str]) -> None:
    name = name.replace("-", "_")
    if "_" in name:  # a CGI or WSGI upstream cannot distinguish the two names
        assert b"secret" not in request("Host: a", *also, f"{name}: secret").onward


def test_the_extent_of_a_body_is_read_anew() -> None:
    assert request("Host: a", "Content-Length: 5").onward == b""
    assert request("Host: a", "Transfer-Encoding: chunked").onward == b""
    assert request("Host: a", "Content-Length: 5", "Expect: 100-continue").onward == b""


@pytest.mark.parametrize(
    "connection",
    [
        ["Connection: X-Hop"],
        ["Connection: close, x-hop"],
        ["Connection: ,X-HOP\t,"],
        ["Connection: keep-alive", "Connection: X-Hop"],
    ],
)
def test_a_field_that_connection_nominates_stays_here(connection: list[str]) -> None:
    connection = [line.replace("X-Hop", "X-App").replace("x-hop", "x-app") for line in connection]
    connection = [line.replace("X-HOP", "X-APP") for line in connection]
    onward = request("Host: a", "X-App: 1", *connection, "x-app: 2", "Accept: 3").onward
    assert onward == b"Accept: 3\r\n"
    answered = response("Content-Length: 0", "Date: x", "Retry-After: 1", "Connection: date")
    assert answered.onward == b"retry-after: 1\r\n"


def test_a_field_that_stays_here_can_still_be_read() -> None:
    read = request("Host: a", "X-Api-Key: rk-0000", "Authorization: Bearer rk-1", "Via: x")
    assert read.headers[b"x-api-key"] == b"rk-0000"
    assert read.headers[b"authorization"] == b"Bearer rk-1"
    assert read.onward == b""


KEY = "sk-llmapi-0123456789abcdefghijklmnopqrstuvwxyz0123456"


@READ_BY
@pytest.mark.parametrize("credential", [f"X-Api-Key: {KEY}", f"Authorization: Bearer {KEY}"])
@pytest.mark.parametrize(
    "repeated",
    [
        f"User-Agent: {KEY}",
        f"anthropic-beta: a,{KEY},b",
        f"X-Stainless-Lang: x{KEY}",
        f"X-Any: {KEY}",
    ],
)
def test_a_field_that_repeats_the_key_stays_here(
    credential: str, repeated: str, also: list[str]
) -> None:
    read = request("Host: a", credential, repeated, "Accept: */*", *also)
    assert read.onward == b"Accept: */*\r\n"


@READ_BY
@pytest.mark.parametrize("credential", [f"X-Api-Key: {KEY}", f"Authorization: Bearer {KEY}"])
@pytest.mark.parametrize("query", [f"key={KEY}", f"beta=true&key={KEY}", f"k=%73{KEY[1:]}"])
def test_a_query_that_repeats_the_key_stays_here(
    credential: str, query: str, also: list[str]
) -> None:
    read = request("Host: a", credential, *also, target=f"/v1/messages?{query}")
    assert read.target == read.path == b"/v1/messages"


@READ_BY
@pytest.mark.parametrize("query", ["beta=true", "a=%20b", "key=other"])
def test_any_other_query_goes_upstream(query: str, also: list[str]) -> None:
    read = request("Host: a", f"X-Api-Key: {KEY}", *also, target=f"/v1/messages?{query}")
    assert read.target == f"/v1/messages?{query}".encode()


def test_fields_keep_their_order_and_spelling() -> None:
    fields = ["X-App: 1", "x-stainless-a: 2", "Accept: */*", "User-agent: 3", "X-Api-Key: k"]
    fields.append("ANTHROPIC-BETA: b")
    lines = [f"{line}\r\n" for line in fields if not line.startswith("X-Api")]
    assert request("Host: a", *fields).onward == "".join(lines).encode()
    assert request(*fields, "Host: a", "X-Api-Key: k").onward == "".join(lines).encode()


@pytest.mark.parametrize("also", [[], ["X-Twice: 1", "X-Twice: 1"]], ids=["canonical", "legal"])
def test_a_response_to_a_caller_has_only_the_allowed_fields(also: list[str]) -> None:
    allowed = [f"{name.decode().title()}: x" for name in sorted(ANSWERED)]
    others = [f"{name}: secret" for name in NEVER_ANSWERED[:13]]
    onward = response(*others, *allowed, *also).onward
    assert onward == "".join(f"{line}\r\n" for line in allowed).lower().encode()


@pytest.mark.parametrize("name", NEVER_ANSWERED)
def test_an_upstreams_own_field_is_not_passed_on(name: str) -> None:
    assert not goes_to_caller(name.lower().encode())


# --- the cache of lines


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "COOKIE", "Proxy-Authorization"])
def test_a_secret_is_never_remembered(name: str) -> None:
    table = FieldTable(goes_upstream, {})
    line = f"{name}: rk-secret".encode()
    field = table.learn(line)
    assert field is not None
    assert field[:2] == (name.lower().encode(), b"rk-secret")
    assert table.seen == {}


@pytest.mark.thorough
def test_no_reader_remembers_a_secret_that_passed() -> None:
    secret = b"rk-never-kept-4711"
    lines = [b"Authorization: Bearer %b", b"X-Api-Key: %b", b"Cookie: a=%b"]
    for line in lines:
        head = b"GET / HTTP/1.1\r\nHost: a\r\n" + line % secret + b"\r\n\r\n"
        assert request_reader(Limits()).feed(head) is not None
        assert request_reader(Limits()).feed(head.replace(b": ", b":  ")) is not None
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=%b\r\nContent-Length: 0\r\n\r\n" % secret
    assert response_reader(Limits()).feed(answer) is not None
    gc.unfreeze()  # the tables are older than the tests, which `tests/conftest.py` freezes
    tables = [table for table in gc.get_objects() if isinstance(table, FieldTable)]
    assert len(tables) >= 2
    for table in tables:
        assert not [line for line in table.seen if secret in line]
    assert not [line for line in h1._request_lines if secret in line]


def test_a_field_table_is_bounded_in_lines_and_octets() -> None:
    table = FieldTable(goes_upstream, {})
    for number in range(5000):
        table.learn(b"X-%d: %b" % (number, b"v" * (number % 600 + 1)))
        assert len(table.seen) <= 1024
    assert max(map(len, table.seen)) <= 256
    assert sum(map(len, table.seen)) <= 1024 * 256


def test_a_field_table_is_bounded_in_ignored_lines() -> None:
    table = FieldTable(goes_to_caller, {}, ANSWERED)
    for number in range(5000):
        assert table.learn(b"X-%d: %b" % (number, b"v" * (number % 600 + 1))) is None
        assert len(table.ignored) <= 1024
    assert max(map(len, table.ignored)) <= 256
    assert table.learn(b"Set-Cookie: session=1") is None
    assert table.learn(b"Cookie: session=1") is None
    assert b"Cookie: session=1" not in table.ignored


def test_an_ignored_name_is_learnt_once_whatever_its_values() -> None:
    table = FieldTable(goes_to_caller, {}, ANSWERED)
    for number in range(100):
        assert table.learn(b"CF-Ray: %d" % number) is None
    assert table.ignored == {b"CF-Ray: 0"}


@pytest.mark.parametrize("line", [b"CF-Ray", b"CF-Ray : 1", b" CF-Ray: 1", b"CF-Ray: \x00"])
def test_an_ignored_name_in_a_broken_line_is_refused(line: bytes) -> None:
    table = FieldTable(goes_to_caller, {}, ANSWERED)
    assert table.learn(b"CF-Ray: 1") is None
    with pytest.raises(NotCanonicalError):
        table.learn(line)


def test_the_cache_of_status_lines_is_bounded() -> None:
    for number in range(500):
        line = b"HTTP/1.1 %d %d%b" % (200 + number % 300, number, b"x" * (number % 300))
        found = h1.read_response(line + b"\r\nContent-Length: 0\r\n\r\n")
        assert found is not None
        assert found.status == 200 + number % 300
        assert len(h1._statuses) <= 64
    assert max(map(len, h1._statuses)) <= 128


def test_the_cache_of_request_lines_is_bounded() -> None:
    for number in range(500):
        head = b"GET /%d%b HTTP/1.1\r\nHost: a\r\n\r\n" % (number, b"x" * (number % 300))
        assert h1.read_request(head) is not None
        assert len(h1._request_lines) <= 64
    assert max(map(len, h1._request_lines)) <= 128


def test_a_line_reads_the_same_from_the_cache() -> None:
    fields = ["Host: a", "Accept: */*", "Connection: close", "Content-Length: 5", "X-Api-Key: k"]
    assert request(*fields) == request(*fields)


def test_a_value_that_is_not_canonical_is_never_cached_as_such() -> None:
    bad = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n"
    for _ in range(3):
        assert h1.read_request(bad) is None
    chunked = bad.replace(b"Content-Length: +5", b"Transfer-Encoding: chunked")
    for _ in range(3):
        assert h1.read_request(chunked) is None

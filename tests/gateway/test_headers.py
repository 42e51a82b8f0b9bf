"""Fields pass by an allow-list in each direction, never with a secret."""

import logging
import re

import httpx
import pytest

from relay.net.exchange import new_id
from relay.wire import headers as rules
from tests.fakes import answers
from tests.fakes.caller import BODY, connected, read_answer, request
from tests.fakes.live import UPSTREAM_KEY, Live, RelayWith
from tests.fakes.upstream import JSON_ANSWER, OK, Seen, Upstream, UpstreamWith, always

EVERY_KIND = {
    # the Messages API has a use for these: passed on
    "accept": "application/json",
    "user-agent": "claude-cli/2.1.330 (external, sdk-cli)",
    "content-type": "application/json",
    "anthropic-version": "2026-10-21",
    "anthropic-beta": "claude-code-20250219,unheard-of-2027-01-01",
    "anthropic-dangerous-direct-browser-access": "true",
    "x-app": "cli",
    "x-claude-code-session-id": "af6c1616-9e8f-4acf-bd94-1b6944eca3a0",
    "x-stainless-retry-count": "0",
    "idempotency-key": "stainless-python-retry-1",
    "accept-language": "de, en;q=0.5",
    "anthropic-unheard-of": 'spaces  and "quotes", too',
    # the caller's own, or without a use
    "authorization": "Bearer some-other-canary",
    "cookie": "session=canary",
    "forwarded": "for=10.0.0.1",
    "x-forwarded-for": "10.0.0.1",
    "x-forwarded-proto": "https",
    "x-real-ip": "10.0.0.1",
    "cf-connecting-ip": "10.0.0.1",
    "via": "1.1 proxy",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "x-unheard-of": "canary",
    # hop by hop (RFC 9110 §7.6.1)
    "connection": "keep-alive, x-nominated, Upgrade",
    "x-nominated": "canary",
    "keep-alive": "timeout=5",
    "proxy-authorization": "Basic canary",
    "te": "trailers",
    "trailer": "x-end",
    "upgrade": "h2c",
    "http2-settings": "canary",
    # set by the relay
    "accept-encoding": "gzip, deflate, br, zstd",
}
GOES_ON = list(EVERY_KIND)[: list(EVERY_KIND).index("authorization")]
FOREIGN = {
    "set-cookie": "_cfuvid=canary",
    "anthropic-organization-id": "org-canary",
    "anthropic-ratelimit-requests-limit": "4000",
    "anthropic-ratelimit-unified-status": "allowed",
    "x-ratelimit-remaining": "7",
    "request-id": "req_upstream",
    "cf-ray": "canary",
    "server": "cloudflare",
    "via": "1.1 canary",
    "strict-transport-security": "max-age=1",
    "x-envoy-upstream-service-time": "7",
    "x-relay-model": "canary",
    "x-api-key": UPSTREAM_KEY,
    "keep-alive": "timeout=5",
    "alt-svc": "h3",
}
ALLOWED = {
    "content-type": "application/json; charset=utf-8",
    "content-language": "en",
    "cache-control": "no-store",
    "date": "Wed, 08 Apr 2026 12:01:00 GMT",
    "retry-after": "7",
    "retry-after-ms": "7000",
    "x-should-retry": "false",
}


def lines(fields: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items())


async def seen_upstream(relay: Live, upstream: Upstream, fields: str) -> Seen:
    """Send a request with these fields, and the key as x-api-key; return the upstream's request."""
    plain = request(None).partition(b"\r\n\r\n")[2]
    async with connected(relay.port) as (reader, writer):
        writer.write(
            f"POST /v1/messages HTTP/1.1\r\nHost: relay\r\nX-Api-Key: {relay.key}\r\n{fields}"
            f"Content-Length: {len(plain)}\r\n\r\n".encode()
            + plain
        )
        assert (await read_answer(reader))[0] == 200
    assert relay.key.encode() not in upstream.received
    return upstream.requests[-1]


def names(seen: Seen) -> list[str]:
    return [line.partition(b":")[0].lower().decode() for line in seen.head.split(b"\r\n")[1:-2]]


async def test_the_upstream_gets_only_end_to_end_and_relay_fields(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    upstream = await upstream_with(always(OK))
    seen = await seen_upstream(await relay_with(upstream), upstream, lines(EVERY_KIND))
    own = ["host", "x-api-key", "accept-encoding", "content-length"]
    assert sorted(names(seen)) == sorted([*GOES_ON, *own])  # each once
    for name in GOES_ON:
        assert seen.fields[name.encode()] == EVERY_KIND[name].encode()
        assert rules.goes_upstream(name.encode())
    assert seen.fields[b"accept-encoding"] == b"identity"
    assert seen.fields[b"x-api-key"] == UPSTREAM_KEY.encode()
    assert int(seen.fields[b"content-length"]) == len(seen.body)
    assert b"canary" not in seen.head.replace(UPSTREAM_KEY.encode(), b"")


async def test_canonical_and_legal_requests_are_passed_on_alike(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    """The same fields, once in canonical and once in odd spacing."""
    fields = {name: EVERY_KIND[name] for name in (*GOES_ON, "cookie", "x-real-ip", "te")}
    upstream = await upstream_with(always(OK))
    relay = await relay_with(upstream)
    canonical = await seen_upstream(relay, upstream, lines(fields))
    odd = "".join(f"{name.title()}:\t{value}  \r\n" for name, value in fields.items())
    legal = await seen_upstream(relay, upstream, odd)
    assert {**canonical.fields, b"host": b""} == {**legal.fields, b"host": b""}


@pytest.mark.parametrize(
    ("auth", "field"),
    [
        ("x-api-key", (b"x-api-key", UPSTREAM_KEY.encode())),
        ("bearer", (b"authorization", b"Bearer " + UPSTREAM_KEY.encode())),
    ],
)
async def test_the_upstream_gets_its_own_credential_in_its_own_style(
    upstream_with: UpstreamWith, relay_with: RelayWith, auth: str, field: tuple[bytes, bytes]
) -> None:
    upstream = await upstream_with(always(OK))
    relay = await relay_with(upstream, upstream_options={"auth": auth})
    seen = await seen_upstream(relay, upstream, "authorization: Bearer canary\r\n")
    found = {name: value for name, value in seen.fields.items() if name in CREDENTIALS}
    assert found == dict([field])


CREDENTIALS = (b"x-api-key", b"authorization", b"cookie", b"proxy-authorization")


async def test_configured_fields_replace_the_callers(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    upstream = await upstream_with(always(OK))
    configured = {"headers": {"x-team": "research", "X-More": "1"}}
    relay = await relay_with(upstream, upstream_options=configured)
    seen = await seen_upstream(relay, upstream, "anthropic-beta: a\r\nX-Team: caller\r\n")
    assert names(seen).count("x-team") == 1
    assert seen.fields[b"x-team"] == b"research"
    assert seen.fields[b"x-more"] == b"1"
    assert seen.fields[b"anthropic-beta"] == b"a"


@pytest.mark.parametrize("style", ["x-api-key", "bearer", "both", "bearer is the key"])
async def test_either_field_may_hold_the_callers_key(live: Live, style: str) -> None:
    fields = {
        "x-api-key": {"x-api-key": live.key},
        "bearer": {"authorization": f"Bearer {live.key}"},
        "both": {"x-api-key": live.key, "authorization": "bearer something-else"},
        "bearer is the key": {"x-api-key": "something-else", "authorization": f"bearer {live.key}"},
    }[style]
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{live.url}/v1/messages",
            json=BODY,
            headers={**fields, "anthropic-version": "2023-06-01"},
        )
    assert answer.status_code == 200


# --- answers ------------------------------------------------------------------------


async def answer_fields(
    upstream_with: UpstreamWith, relay_with: RelayWith, octets: bytes
) -> tuple[int, list[bytes], dict[bytes, bytes]]:
    """An answer's status, the names of its fields as sent, and its fields."""
    relay = await relay_with(await upstream_with(always(octets)))
    async with connected(relay.port) as (reader, writer):
        streamed = b"text/event-stream" in octets
        writer.write(request(relay.key, {**BODY, "stream": streamed}))
        head = await reader.readuntil(b"\r\n\r\n")
    found = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:-2]]
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    return int(head.split()[1]), found, fields


CORS = (b"access-control-allow-origin", b"access-control-expose-headers")


@pytest.mark.parametrize("status", [b"200 OK", b"429 Too Many", b"529 Overloaded"])
async def test_the_caller_receives_only_the_allowed_fields(
    upstream_with: UpstreamWith, relay_with: RelayWith, status: bytes
) -> None:
    fields = "".join(f"{n}: {v}\r\n" for n, v in {**ALLOWED, **FOREIGN}.items()).encode()
    body = JSON_ANSWER
    if status != b"200 OK":
        body = b'{"type":"error","error":{"type":"api_error","message":"Not now."}}'
    octets = b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status, fields, len(body), body)
    got, found, received = await answer_fields(upstream_with, relay_with, octets)
    assert got == int(status.split()[0])
    own = {b"request-id", b"server-timing", b"content-length", *CORS}
    if got == 200:  # an error has no model
        own.add(b"x-relay-model")
        assert received[b"x-relay-model"] == b"claude-sonnet-4-7"
    assert sorted(found) == sorted({*(name.encode() for name in ALLOWED), *own})
    for name, value in ALLOWED.items():
        assert received[name.encode()] == value.encode()
        assert name.encode() in rules.ANSWERED
    assert received[b"request-id"] != b"req_upstream"
    assert UPSTREAM_KEY.encode() not in b"".join(received.values())


async def test_a_stream_is_marked_as_not_to_be_buffered(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    octets = answers.chunked(answers.stream())
    _, found, fields = await answer_fields(upstream_with, relay_with, octets)
    assert fields[b"x-accel-buffering"] == b"no"
    assert fields[b"cache-control"] == b"no-cache, no-transform"
    assert sorted(found) == [
        *CORS,
        b"cache-control",
        b"content-type",
        b"date",
        b"request-id",
        b"server-timing",
        b"transfer-encoding",
        b"x-accel-buffering",
        b"x-relay-model",
    ]


async def test_an_upstreams_cache_control_is_kept(
    upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    octets = answers.chunked(answers.stream()).replace(
        b"\r\n\r\n", b"\r\ncache-control: no-cache\r\n\r\n", 1
    )
    _, found, fields = await answer_fields(upstream_with, relay_with, octets)
    assert fields[b"cache-control"] == b"no-cache"
    assert found.count(b"cache-control") == 1


async def test_server_timing_separates_relay_from_upstream(live: Live) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key, fields="x-simulate: delay=0.1\r\n"))
        _, fields, _ = await read_answer(reader)
    match = re.fullmatch(
        rb"relay;dur=([0-9]+\.[0-9]+), upstream;dur=([0-9]+\.[0-9]+)", fields[b"server-timing"]
    )
    assert match is not None
    assert float(match[1]) < 100 <= float(match[2]) + 1


async def test_every_answer_has_a_request_id_of_its_own(live: Live) -> None:
    ids = []
    for octets in (request(live.key), request(None), request(live.key, b"{"), b"GARBAGE\r\n\r\n"):
        for _ in range(5):
            async with connected(live.port) as (reader, writer):
                writer.write(octets)
                _, fields, body = await read_answer(reader)
            ids.append(fields[b"request-id"])
            assert (b'"request_id":"%b"' % ids[-1] in body) == (b'"error"' in body)
    assert len(set(ids)) == 20
    assert all(re.fullmatch(rb"req_[0-9a-f]{32}", number) for number in ids)


def test_request_ids_tell_nothing_of_each_other() -> None:
    """No count, no common part: each of 128 bits is set in about half of them."""
    numbers = [int(new_id().removeprefix(b"req_"), 16) for _ in range(2000)]
    assert len(set(numbers)) == 2000
    for bit in range(128):
        assert 700 < sum(number >> bit & 1 for number in numbers) < 1300


# --- secrets ------------------------------------------------------------------------


async def test_no_credential_is_in_a_log_or_a_repr(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "sk-llmapi-wrong-canary"
    scripts = ["", "fault=status;status=401", "fault=garbage", "fault=close", "fault=redirect"]
    for key in (live.key, wrong):
        for style in ("x-api-key: {}", "authorization: Bearer {}"):
            for script in scripts:
                async with connected(live.port) as (reader, writer):
                    writer.write(
                        request(
                            None,
                            target=f"/v1/messages?key={key}",
                            fields=f"{style.format(key)}\r\nx-simulate: {script}\r\n",
                        )
                    )
                    _, fields, body = await read_answer(reader)
                assert UPSTREAM_KEY.encode() not in body
                assert key.encode() not in body
                assert UPSTREAM_KEY.encode() not in b"".join(fields.values())
    text = live.log_path.read_text() + caplog.text
    assert len(live.log()) == 20
    text = live.log_path.read_text() + caplog.text + repr(live.app.upstreams)
    for secret in (live.key, wrong, UPSTREAM_KEY):
        assert secret not in text


async def test_prompts_and_answers_are_in_no_log(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    prompt = {**BODY, "messages": [{"role": "user", "content": "prompt-canary"}]}
    async with httpx.AsyncClient() as client:
        for body in (prompt, {**prompt, "stream": True}, {**prompt, "max_tokens": "prompt-canary"}):
            await client.post(f"{live.url}/v1/messages", json=body, headers=live.headers)
        await client.post(
            f"{live.url}/v1/messages", content=b'{"prompt-canary', headers=live.headers
        )
    assert len(live.log()) == 4
    assert "prompt-canary" not in live.log_path.read_text() + caplog.text
    assert b"prompt-canary" not in (live.log_path.parent / "relay.db").read_bytes()

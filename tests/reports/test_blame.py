"""Section G: whose fault an error is."""

import json
from typing import Any

import pytest

from tests.fakes import answers
from tests.fakes.live import RelayWith
from tests.fakes.upstream import UpstreamWith
from tests.reports.asking import HI, desk, message, respond_with


def refusal(words: str, status: bytes = b"400 Bad Request", **more: Any) -> bytes:
    error = {"type": "invalid_request_error", "message": words, **more}
    return answers.sized(json.dumps({"type": "error", "error": error}).encode(), status)


ACCOUNT_WORDS = [
    ("anthropic", refusal("This organization has been disabled.")),
    ("generic", refusal("This organization has been disabled.")),
    (
        "generic",
        answers.sized(
            b'{"code":0,"message":"Insufficient quota available for instant inference",'
            b'"type":"invalid_request_error"}',
            b"400 Bad Request",
        ),
    ),
    (
        "generic",
        answers.sized(
            b'{"error":{"message":"Insufficient Balance","type":"unknown_error"}}',
            b"400 Bad Request",
        ),
    ),
]


@pytest.mark.parametrize("dialect", ["messages", "chat", "responses"])
@pytest.mark.parametrize(("vendor", "octets"), ACCOUNT_WORDS, ids=range(len(ACCOUNT_WORDS)))
async def test_g01_the_operators_account_is_theirs(
    relay_with: RelayWith, upstream_with: UpstreamWith, vendor: str, octets: bytes, dialect: str
) -> None:
    body = {"input": "Hi"} if dialect == "responses" else {"messages": [HI]}
    it = await desk(relay_with, upstream_with, octets, options={"vendor": vendor})
    assert (await it.ask(dialect, body)).status == 200
    assert len(it.b.requests) == 1


@pytest.mark.parametrize(("vendor", "octets"), ACCOUNT_WORDS, ids=range(len(ACCOUNT_WORDS)))
async def test_g01_no_caller_reads_of_the_account(
    relay_with: RelayWith, upstream_with: UpstreamWith, vendor: str, octets: bytes
) -> None:
    it = await desk(relay_with, upstream_with, octets, octets, options={"vendor": vendor})
    answer = await it.ask("messages", {})
    assert answer.status == 503
    for word in (b"organization", b"quota", b"alance"):
        assert word not in answer.payload


async def test_g08_a_blocked_request_is_its_own(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    page = b"<!DOCTYPE html><title>Attention Required! | Cloudflare</title><h1>blocked</h1>"
    blocked = answers.sized(page, b"403 Forbidden", kind=b"text/html")
    calls = 0

    async def once(reader: Any, writer: Any, seen: Any) -> None:
        nonlocal calls
        calls += 1
        writer.write(blocked if calls == 1 else respond_with(message()))

    it = await desk(relay_with, upstream_with, once)
    assert (await it.ask("messages", {})).status == 200  # B's
    assert len(it.b.requests) == 1
    assert (await it.ask("messages", {})).status == 200
    assert len(it.a.requests) == 2  # A serves on


async def test_g09_an_aggregators_failure_is_not_the_callers(
    relay_with: RelayWith, upstream_with: UpstreamWith
) -> None:
    octets = refusal("Error from provider: Upstream request failed")
    it = await desk(relay_with, upstream_with, octets)
    assert (await it.ask("messages", {})).status == 200
    assert len(it.b.requests) == 1

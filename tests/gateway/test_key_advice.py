"""A request whose key went wrong learns where, and what to send; nothing of it is repeated."""

import json

import pytest

from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import Live

KEY = "sk-llmapi-" + "Canary0123" * 5
OTHER = "sk-llmapi-" + "Other98765" * 5
SLIPS = {
    "?key=": (f"/v1/messages?key={KEY}", "", "out of the URL"),
    "&api_key=": (f"/v1/messages?beta=true&api_key={KEY}", "", "out of the URL"),
    "path": (f"/v1/{KEY}/messages", "", "in the path"),
    "before /v1": (f"/{KEY}/v1/messages", "", "in the path"),
    "no scheme": ("/v1/messages", f"authorization: {KEY}\r\n", "Bearer and a space before"),
    "Basic": ("/v1/messages", f"authorization: Basic {KEY}\r\n", "must be Bearer"),
    "no key": ("/v1/messages", "authorization: Bearer\r\n", "nothing behind `Bearer`"),
    "two keys": (
        "/v1/messages",
        f"x-api-key: {KEY}\r\nauthorization: Bearer {OTHER}\r\n",
        "two different ones",
    ),
    "x-api-key twice": (
        "/v1/messages",
        f"x-api-key: {KEY}\r\nx-api-key: {OTHER}\r\n",
        "x-api-key was sent twice",
    ),
    "authorization twice": (
        "/v1/messages",
        f"authorization: Bearer {KEY}\r\nauthorization: Bearer {OTHER}\r\n",
        "Authorization was sent twice",
    ),
    "Bearer twice": ("/v1/messages", f"authorization: Bearer Bearer {KEY}\r\n", "Bearer twice"),
    "Bearer in x-api-key": ("/v1/messages", f"x-api-key: Bearer {KEY}\r\n", "the key alone"),
    "quoted": ("/v1/messages", f'x-api-key: "{KEY}"\r\n', "quotation marks"),
    "unfilled": ("/v1/messages", "authorization: Bearer ${RELAY_KEY}\r\n", "of a variable"),
    "Azure": ("/v1/messages", f"api-key: {KEY}\r\n", "the field api-key"),
    "Gemini": ("/v1/messages", f"x-goog-api-key: {KEY}\r\n", "the field x-goog-api-key"),
    "unknown": ("/v1/messages", f"x-api-key: {KEY}\r\n", "perhaps mistyped"),
}


@pytest.mark.parametrize(("target", "fields", "words"), SLIPS.values(), ids=SLIPS)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/v1/models"])
async def test_a_key_in_the_wrong_place_learns_the_right_one(
    live: Live, target: str, fields: str, words: str, path: str
) -> None:
    target = target.replace("/v1/messages", path)
    method = "GET" if path == "/v1/models" else "POST"
    async with connected(live.port) as (reader, writer):
        writer.write(request(None, {}, target=target, method=method, fields=fields))
        status, answered, payload = await read_answer(reader)
    message = json.loads(payload)["error"]["message"]
    assert (status, answered[b"x-should-retry"]) == (401, b"false")
    assert words in message
    assert "KEY" in message or "your key" in message
    for octets in (payload.decode(), str(live.log())):
        assert "Canary" not in octets
        assert "Other9" not in octets


async def test_either_of_two_keys_may_be_the_right_one(live: Live) -> None:
    for fields in (
        f"x-api-key: {live.key}\r\nauthorization: Bearer {OTHER}\r\n",
        f"x-api-key: {OTHER}\r\nauthorization: Bearer {live.key}\r\n",
    ):
        async with connected(live.port) as (reader, writer):
            writer.write(request(None, fields=fields))
            assert (await read_answer(reader))[0] == 200

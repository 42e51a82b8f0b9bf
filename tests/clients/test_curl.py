"""The documentation's curl commands."""

import json
import shutil
from pathlib import Path

import pytest

from tests.clients.programs import run
from tests.fakes.live import Live

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

HELLO = (
    '{"model": "claude-sonnet-4-7", "max_tokens": 200, "stream": %s,'
    ' "messages": [{"role": "user", "content": "Hello!"}]}'
)


@pytest.mark.parametrize("auth", ["x-api-key: %s", "authorization: Bearer %s"])
async def test_curl_shows_a_streamed_answer(live: Live, tmp_path: Path, auth: str) -> None:
    ended = await run(
        *("curl", "-sSN", f"{live.url}/v1/messages"),
        *("-H", auth % live.key, "-H", "anthropic-version: 2023-06-01"),
        *("-H", "content-type: application/json", "-d", HELLO % "true"),
        cwd=tmp_path,
        env={},
    )
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("event: message_start\ndata: {")
    assert ended.out.rstrip().endswith('data: {"type":"message_stop"}')


async def test_curl_shows_a_document(live: Live, tmp_path: Path) -> None:
    ended = await run(
        *("curl", "-sS", f"{live.url}/v1/messages", "-H", f"x-api-key: {live.key}"),
        *("-H", "anthropic-version: 2023-06-01", "--json", HELLO % "false"),
        cwd=tmp_path,
        env={},
    )
    assert (ended.status, ended.err) == (0, "")
    assert "Hello!" in json.loads(ended.out)["content"][0]["text"]


async def test_curl_reports_a_cut_stream(live: Live, tmp_path: Path) -> None:
    ended = await run(
        *("curl", "-sSN", f"{live.url}/v1/messages", "-H", f"x-api-key: {live.key}"),
        *("-H", "anthropic-version: 2023-06-01", "-H", "x-simulate: fault=cut;at=5"),
        *("-H", "content-type: application/json", "-d", HELLO % "true"),
        cwd=tmp_path,
        env={},
    )
    assert ended.status == 18  # CURLE_PARTIAL_FILE
    assert ended.out.startswith("event: message_start\n")


async def test_curl_without_a_key_learns_how_to_send_one(live: Live, tmp_path: Path) -> None:
    ended = await run(
        "curl", "-sS", f"{live.url}/v1/messages", "-d", HELLO % "false", cwd=tmp_path, env={}
    )
    error = json.loads(ended.out)["error"]
    assert error["type"] == "authentication_error"
    assert "x-api-key: KEY" in error["message"]

"""Real clients over HTTP/2: curl, nghttp2's programs, httpx and the SDKs."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from relay.net.http2 import Http2Connection
from tests.clients.programs import run
from tests.clients.steering import HI, MODEL, text_of
from tests.fakes.caller import BODY
from tests.fakes.live import Live
from tests.fakes.until import until

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
needs_nghttp = pytest.mark.skipif(
    shutil.which("nghttp") is None, reason="Debian's nghttp2-client is not installed"
)

OVER_HTTP2: dict[str, Any] = {"http1": False, "http2": True}
LONG = "long " * 300_000  # 1.5 MB


@pytest.fixture
async def claude(live: Live) -> AsyncIterator[anthropic.AsyncAnthropic]:
    client = anthropic.DefaultAsyncHttpxClient(**OVER_HTTP2)
    async with anthropic.AsyncAnthropic(
        api_key=live.key, base_url=live.url, max_retries=0, timeout=10, http_client=client
    ) as sdk:
        yield sdk


def scores(live: Live) -> list[float]:
    """The glitches of each connection; all of them must speak HTTP/2."""
    found = []
    for connection in live.app.server.connections:
        assert isinstance(connection, Http2Connection)
        found.append(connection.engine.table.budget.score)
    return found


def _fields(live: Live) -> list[str]:
    fields = [f"x-api-key: {live.key}", "anthropic-version: 2023-06-01"]
    return [part for field in fields for part in ("-H", field)]


@needs_curl
@pytest.mark.parametrize("stream", [False, True])
async def test_curl_gets_an_answer(live: Live, tmp_path: Path, stream: bool) -> None:
    document = json.dumps({**BODY, "stream": stream})
    ended = await run(
        *("curl", "-sSN", "--http2-prior-knowledge", "-w", "%{http_version}"),
        *(f"{live.url}/v1/messages", *_fields(live), "-d", document),
        cwd=tmp_path,
        env={},
    )
    assert (ended.status, ended.err) == (0, "")
    assert "message_stop" in ended.out if stream else '"end_turn"' in ended.out
    assert ended.out.endswith("2")


@needs_curl
async def test_curl_uploads_a_large_request(live: Live, tmp_path: Path) -> None:
    document = {**BODY, "messages": [{"role": "user", "content": LONG}]}
    (tmp_path / "body.json").write_text(json.dumps(document))
    ended = await run(
        *("curl", "-sS", "--http2-prior-knowledge", f"{live.url}/v1/messages"),
        *(*_fields(live), "-d", "@body.json"),
        cwd=tmp_path,
        env={},
    )
    assert (ended.status, ended.err) == (0, "")
    assert '"end_turn"' in ended.out


@needs_curl
async def test_curl_sees_that_a_stream_was_cut(live: Live, tmp_path: Path) -> None:
    ended = await run(
        *("curl", "-sSN", "--http2-prior-knowledge", f"{live.url}/v1/messages"),
        *(*_fields(live), "-H", "x-simulate: fault=cut;at=5"),
        *("-d", json.dumps({**BODY, "stream": True})),
        cwd=tmp_path,
        env={},
    )
    assert ended.status == 92  # CURLE_HTTP2_STREAM
    assert ended.out.startswith("event: message_start\n")


@needs_nghttp
async def test_nghttp_gets_an_answer_with_trailers_and_padding(live: Live, tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text(json.dumps(BODY))
    ended = await run(
        *("nghttp", "-v", "-b", "16", "--trailer", "x-sum: 1", "-d", "body.json"),
        *(*_fields(live), f"{live.url}/v1/messages"),
        cwd=tmp_path,
        env={},
    )
    assert ended.status == 0
    assert ":status: 200" in ended.out
    assert '"end_turn"' in ended.out


@needs_nghttp
async def test_h2load_has_no_failure(live: Live, tmp_path: Path) -> None:
    (tmp_path / "body.json").write_text(json.dumps(BODY))
    ended = await run(
        *("h2load", "-n", "1000", "-c", "4", "-m", "100", "-d", "body.json"),
        *(*_fields(live), f"{live.url}/v1/messages"),
        cwd=tmp_path,
        env={},
    )
    assert re.search(r"1000 succeeded, 0 failed, 0 errored, 0 timeout", ended.out)
    assert re.search(r"1000 2xx", ended.out)


async def test_httpx_asks_many_things_at_once(live: Live) -> None:
    fields = {"x-api-key": live.key, "anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient(**OVER_HTTP2, base_url=live.url, headers=fields) as client:
        for _ in range(4):
            answers = await asyncio.gather(
                *(client.post("/v1/messages", json=BODY) for _ in range(50))
            )
            assert {(one.status_code, one.http_version) for one in answers} == {(200, "HTTP/2")}
        assert scores(live) == [0]


async def test_a_message_of_the_anthropic_sdk(live: Live, claude: anthropic.AsyncAnthropic) -> None:
    for _ in range(40):
        message = await claude.messages.create(model=MODEL, max_tokens=100, messages=HI)
        assert "Hello there" in text_of(message)
    assert scores(live) == [0]


async def test_streams_of_the_anthropic_sdk(live: Live, claude: anthropic.AsyncAnthropic) -> None:
    async def stream() -> str:
        async with claude.messages.stream(model=MODEL, max_tokens=100, messages=HI) as events:
            return await events.get_final_text()

    texts = await asyncio.gather(*(stream() for _ in range(50)))
    assert all("Hello there" in text for text in texts)
    assert scores(live) == [0]


async def test_a_client_that_ends_leaves_its_streams(
    live: Live, claude: anthropic.AsyncAnthropic
) -> None:
    script = {"x-simulate": "tokens=1000;pace=20"}
    async with claude.messages.stream(
        model=MODEL, max_tokens=2000, messages=HI, extra_headers=script
    ) as events:
        await anext(aiter(events.text_stream))
        await claude.close()
    await until(lambda: [line["outcome"] for line in live.log()] == ["caller left"])


async def test_an_error_of_the_anthropic_sdk(live: Live) -> None:
    client = anthropic.DefaultAsyncHttpxClient(**OVER_HTTP2)
    async with anthropic.AsyncAnthropic(
        api_key="sk-llmapi-wrong", base_url=live.url, max_retries=0, http_client=client
    ) as sdk:
        with pytest.raises(anthropic.AuthenticationError):
            await sdk.messages.create(model=MODEL, max_tokens=10, messages=HI)


async def test_the_openai_sdk_streams_in_both_dialects(live: Live) -> None:
    client = openai.DefaultAsyncHttpxClient(**OVER_HTTP2)
    async with openai.AsyncOpenAI(
        api_key=live.key, base_url=f"{live.url}/v1", max_retries=0, http_client=client
    ) as sdk:
        chunks = await sdk.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hi"}], stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
        assert "simulated upstream" in text
        response = await sdk.responses.create(model=MODEL, input="hi")
        assert "simulated upstream" in response.output_text
        assert scores(live) == [0]

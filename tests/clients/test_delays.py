"""Each event of a stream reaches the official SDKs before the upstream sends the next one."""

import asyncio
from collections.abc import AsyncIterator, Callable

import anthropic
import pytest

from tests.clients.conftest import TRUST, openai_client
from tests.clients.steering import HI, MODEL
from tests.fakes.answers import LAST, chunk, chunked_head, stream
from tests.fakes.live import Live, RelayWith
from tests.fakes.upstream import Seen, UpstreamWith

TEXTS = ("one ", "two ", "three ", "four ", "five")


async def _messages(relay: Live) -> AsyncIterator[str]:
    http = anthropic.DefaultAsyncHttpxClient(verify=TRUST)
    async with (
        anthropic.AsyncAnthropic(
            api_key=relay.key, base_url=relay.url, max_retries=0, http_client=http
        ) as sdk,
        sdk.messages.stream(model=MODEL, max_tokens=100, messages=HI) as events,
    ):
        async for text in events.text_stream:
            yield text


async def _chat(relay: Live) -> AsyncIterator[str]:
    async with openai_client(relay) as sdk:
        chunks = await sdk.chat.completions.create(model=MODEL, messages=HI, stream=True)
        async for part in chunks:
            if part.choices and part.choices[0].delta.content:
                yield part.choices[0].delta.content


async def _responses(relay: Live) -> AsyncIterator[str]:
    async with openai_client(relay) as sdk:
        events = await sdk.responses.create(model=MODEL, input="Hello", stream=True)
        async for event in events:
            if event.type == "response.output_text.delta":
                yield event.delta


@pytest.mark.parametrize("texts_of", [_messages, _chat, _responses])
async def test_a_text_arrives_before_the_next_is_sent(
    relay_with: RelayWith,
    upstream_with: UpstreamWith,
    texts_of: Callable[[Live], AsyncIterator[str]],
) -> None:
    arrived = asyncio.Semaphore(1)  # the first text needs no other before it

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        writer.write(chunked_head())
        for event in stream(TEXTS):
            if b"text_delta" in event:
                await arrived.acquire()
            writer.write(chunk(event))
        writer.write(LAST)

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream)
    read = []
    async with asyncio.timeout(20):
        async for text in texts_of(relay):
            read.append(text)
            arrived.release()
    assert read == list(TEXTS)

"""Inputs of the Responses API: schemas, media, instructions, compressed bodies, token counts."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import openai
import pytest
import zstandard

from tests.clients.conftest import openai_client
from tests.clients.responses import PATH, PICTURE, STREAMED, WEATHER, ask, result
from tests.clients.test_openai_sdk import HI, MODEL, PAPER, PICTURE_TOKENS, Mood, Place, Trip
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import Live, RelayWith

# --- structured output --------------------------------------------------------------


@pytest.mark.parametrize("model", [MODEL, "claude-haiku-4-5"])
@STREAMED
async def test_an_answer_is_parsed_into_a_model(
    gpt: openai.AsyncOpenAI, model: str, streamed: bool
) -> None:
    asked: Any = {"model": model, "input": HI, "text_format": Place}
    if streamed:
        async with gpt.responses.stream(**asked) as stream:
            place = (await stream.get_final_response()).output_parsed
    else:
        place = (await gpt.responses.parse(**asked)).output_parsed
    assert isinstance(place, Place)
    assert place.name == "simulated name"


async def test_a_schema_with_refs_unions_and_nulls_is_parsed(gpt: openai.AsyncOpenAI) -> None:
    trip = (await gpt.responses.parse(model=MODEL, input=HI, text_format=Trip)).output_parsed
    assert trip is not None
    assert trip.start.name == trip.stops[0].name == "simulated name"
    assert (trip.mood, trip.note) == (Mood.GOOD, "simulated note")


PARTS: dict[str, Any] = {
    "png": PICTURE,
    "url": {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"},
    "pdf": {
        "type": "input_file",
        "filename": "a.pdf",
        "file_data": f"data:application/pdf;base64,{PAPER}",
    },
    "pdf-url": {"type": "input_file", "file_url": "https://example.com/a.pdf"},
}


@pytest.mark.parametrize("name", PARTS)
async def test_a_picture_or_a_paper_reaches_the_model(gpt: openai.AsyncOpenAI, name: str) -> None:
    content = [PARTS[name], {"type": "input_text", "text": "What is this?"}]
    response = await ask(gpt, False, input=[{"role": "user", "content": content}])
    assert "“What is this?”" in response.output_text
    assert response.usage.input_tokens > PICTURE_TOKENS


async def test_a_tool_may_answer_with_a_picture(gpt: openai.AsyncOpenAI) -> None:
    first = await ask(gpt, False, "tool=get_weather", input=HI, tools=[WEATHER])
    output = {**result(first.output[0], ""), "output": [PICTURE]}
    response = await ask(gpt, False, input=[*HI, *first.output, output], tools=[WEATHER])
    assert response.output_text.startswith("Done.")
    assert response.usage.input_tokens > PICTURE_TOKENS


async def test_instructions_and_first_developer_turns_are_the_system(
    gpt: openai.AsyncOpenAI,
) -> None:
    words = "Be brief and kind. " * 40
    bare = await ask(gpt, False, input=HI)
    system = [{"role": "system", "content": words}]
    developer = [{"type": "message", "role": "developer", "content": [text_part(words)]}]
    for answer in (
        await ask(gpt, False, input=HI, instructions=words),
        await ask(gpt, False, input=[*system, *HI]),
        await ask(gpt, False, input=[*developer, *HI]),
    ):
        assert "“Hello there”" in answer.output_text
        assert answer.usage.input_tokens > bare.usage.input_tokens + 100


def text_part(text: str) -> Any:
    return {"type": "input_text", "text": text}


@pytest.mark.parametrize("model", ["claude-opus-4-8", MODEL, "claude-haiku-4-5"])
@pytest.mark.parametrize("role", ["developer", "system"])
async def test_a_developer_message_may_come_later(
    gpt: openai.AsyncOpenAI, model: str, role: str
) -> None:
    said: list[Any] = [*HI]
    for turn in range(2):
        response = await ask(gpt, False, model=model, input=said)
        said += [
            *response.output,
            {"role": role, "content": f"Aside {turn}."},
            {"role": "user", "content": f"And {turn}?"},
        ]
    response = await ask(gpt, False, model=model, input=said)
    assert "And 1?" in response.output_text
    last = await ask(gpt, False, model=model, input=[*said, {"role": role, "content": "Go on."}])
    assert last.status == "completed"


async def test_counting_agrees_with_usage_and_costs_nothing(relay_with: RelayWith) -> None:
    plan = [{"id": "free", "name": "Free", "limits": [{"requests": 1, "per": "5h"}]}]
    asked: Any = {
        "model": MODEL,
        "input": HI,
        "instructions": "Be brief.",
        "tools": [WEATHER],
        "reasoning": {"effort": "high"},
    }
    relay = await relay_with(plan=plan)
    async with openai_client(relay) as sdk:
        counted = [await sdk.responses.input_tokens.count(**asked) for _ in range(2)]
        response = await sdk.responses.create(**asked, max_output_tokens=400)
        again = await sdk.responses.input_tokens.count(**asked)  # although the plan is exhausted
    assert counted[0].object == "response.input_tokens"
    assert response.usage is not None
    numbers = {count.input_tokens for count in (*counted, again)}
    assert numbers == {response.usage.input_tokens}


def zipped(body: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(body)


def streamed_zipped(body: bytes) -> bytes:
    made = zstandard.ZstdCompressor().compressobj()  # a frame without a content size
    return bytes(made.compress(body) + made.flush())


@pytest.mark.parametrize(
    ("encoding", "fold"),
    [
        ("gzip", gzip.compress),
        ("zstd", zipped),
        ("zstd", streamed_zipped),
        ("deflate", zlib.compress),
    ],
    ids=["gzip", "zstd", "zstd-stream", "deflate"],
)
async def test_a_body_may_come_compressed(
    live: Live, encoding: str, fold: Callable[[bytes], bytes]
) -> None:
    body = fold(json.dumps({"model": MODEL, "input": HI, "instructions": "x " * 5000}).encode())
    assert len(body) < 1000
    for fields, wanted in ((f"content-encoding: {encoding}\r\n", 200), ("", 400)):
        async with connected(live.port) as (reader, writer):
            writer.write(request(live.key, body, target=PATH, fields=fields))
            status, _, payload = await read_answer(reader)
        assert status == wanted
        assert ("“Hello there”".encode() in payload) is (wanted == 200)

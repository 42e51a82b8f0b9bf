"""The documentation for callers says what the code does: fields, events, refusals and answers."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay import translate
from relay.translate.chat import fields as chat_fields
from relay.translate.chat import request as chat
from relay.translate.responses import fields
from relay.web.languages import NAMES, read_texts, translator
from relay.web.manual.edition import Edition
from tests.fakes.live import Live, RelayWith

PLAN = {
    "id": "pro",
    "limits": [
        {"requests": 400, "per": "5h"}, {"requests": 2000, "per": "7d"},
        {"requests": 60, "per": "1m"}, {"tokens": 800_000, "per": "1m"},
    ],
}  # fmt: skip
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HELLO = {"model": "claude-sonnet-4-7", "messages": [{"role": "user", "content": "Hello!"}]}


@pytest.fixture
async def live(relay_with: RelayWith) -> Live:
    return await relay_with(plan=[PLAN])


@pytest.fixture(params=NAMES)
def pages(live: Live, request: pytest.FixtureRequest) -> dict[str, str]:
    """The pages as Markdown, in each language."""
    edition = Edition(request.param, live.settings, translator(read_texts()[request.param]))
    return {name: page.source for name, page in edition.pages.items()}


async def answer_to(live: Live, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
    async with httpx.AsyncClient(base_url=live.url, headers=live.headers) as client:
        method = "GET" if body is None else "POST"
        answer = await client.request(method, path, json=body)
    assert answer.status_code == 200, answer.text
    return answer


def codes(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def rows(text: str) -> list[list[str]]:
    """The cells of all tables."""
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    return [re.split(r"(?<!\\) \| ", line) for line in lines]


def field_names(text: str) -> set[str]:
    """Names in the first cells of tables, those that are shortened in each of their readings."""
    names: set[str] = set()
    for cell in (row[0] for row in rows(text)):
        first, *others = re.findall(r"`([a-z0-9-]+)`", cell) or [""]
        names.add(first)
        parts = first.split("-")
        for other in others:
            names |= {"-".join(parts[:end]) + other for end in range(1, len(parts))}
            names.add(other)
    return names


async def test_every_limit_field_is_described(live: Live, pages: dict[str, str]) -> None:
    described = field_names(pages["limits"])
    sent: set[str] = set()
    for path, body in (
        ("/v1/messages", {**HELLO, "max_tokens": 20}),
        ("/v1/responses", {"model": HELLO["model"], "input": "Hello!"}),
    ):
        sent |= set((await answer_to(live, path, body)).headers)
    usual = {"content-type", "content-length", "date"}
    assert sorted(sent - described - usual) == []
    rates = {name for name in described if re.match("x-ratelimit|x-codex|anthropic-rate", name)}
    full = {name for name in rates if name.endswith(("limit", "status", "claim", "used-percent"))}
    assert full <= sent


async def test_every_event_of_a_message_is_described(live: Live, pages: dict[str, str]) -> None:
    answer = await answer_to(live, "/v1/messages", {**HELLO, "max_tokens": 20, "stream": True})
    events = set(re.findall(r"^event: (\S+)$", answer.text, re.MULTILINE))
    described = {row[0].strip("`") for row in rows(pages["messages"])}
    assert events <= described
    [example] = [text for kind, text in BLOCK.findall(pages["messages"]) if kind == "sse"]
    assert set(re.findall(r"^event: (\S+)$", example, re.MULTILINE)) <= described


def test_every_event_of_a_response_is_described(pages: dict[str, str]) -> None:
    folder = Path(translate.__file__).parent / "responses"
    source = "".join((folder / f"{name}.py").read_text() for name in ("stream", "output_items"))
    events = set(re.findall(r"\bresponse\.[a-z_]+(?:\.[a-z_]+)?(?=[\"'\\])", source))
    assert len(events) >= 15
    described: set[str] = set()
    for row in rows(pages["responses"]):
        first, *others = re.findall(r"`([a-z_.]+)`", row[0]) or [""]
        described |= {first, *others, *(first.rpartition(".")[0] + other for other in others)}
    assert sorted(events - described) == []


def test_every_refused_field_is_described(pages: dict[str, str]) -> None:
    assert set(chat._RIGHT_NAMES) <= codes(pages["chat"])
    assert set(fields.RIGHT_NAMES) <= codes(pages["responses"])


def test_every_read_field_is_described(pages: dict[str, str]) -> None:
    """Fields with an effect, but for those that only end in a refusal of another kind."""
    known = chat_fields.RequestFields.__struct_fields__
    text = pages["chat"]
    missing = {name for name in known if name not in text} - {"thinking"}
    assert missing == set()
    known = fields.RequestFields.__struct_fields__
    text = pages["responses"]
    missing = {name for name in known if name not in text}
    assert missing <= {
        "prompt_cache_key", "safety_identifier", "user", "presence_penalty", "frequency_penalty",
    }  # fmt: skip


def keys_of(document: Any) -> set[str]:
    """The paths of all members of a document."""
    found: set[str] = set()
    if isinstance(document, dict):
        for name, value in document.items():
            found |= {name, *(f"{name}.{rest}" for rest in keys_of(value))}
    elif isinstance(document, list):
        for one in document:
            found |= keys_of(one)
    return found


async def test_documents_in_the_examples_are_like_real_ones(
    live: Live, pages: dict[str, str]
) -> None:
    messages = await answer_to(live, "/v1/messages", {**HELLO, "max_tokens": 20})
    counted = await answer_to(live, "/v1/messages/count_tokens", HELLO)
    completion = await answer_to(live, "/v1/chat/completions", HELLO)
    usage = await answer_to(live, "/v1/usage")
    for page, real in (
        ("messages", [messages, counted]), ("chat", [completion]), ("usage", [usage]),
    ):  # fmt: skip
        examples = [json.loads(text) for kind, text in BLOCK.findall(pages[page]) if kind == "json"]
        assert len(examples) == len(real)
        for example, answer in zip(examples, real, strict=True):
            assert keys_of(example) <= keys_of(answer.json()), page
    assert keys_of(json.loads(BLOCK.findall(pages["usage"])[1][1])) == keys_of(usage.json())


async def test_errors_in_the_examples_are_like_real_ones(live: Live, pages: dict[str, str]) -> None:
    examples = [json.loads(text) for _, text in BLOCK.findall(pages["errors"])]
    async with httpx.AsyncClient(base_url=live.url, headers=live.headers) as client:
        for path, example in zip(("/v1/messages", "/v1/chat/completions"), examples, strict=True):
            answer = await client.post(path, json={**HELLO, "model": "nope"})
            assert answer.status_code == 404
            real = answer.json()
            assert keys_of(example) == keys_of(real)
            for name in ("type", "param", "code"):
                assert example["error"].get(name) == real["error"].get(name)
            beginning = example["error"]["message"].partition(":")[0]
            assert real["error"]["message"].startswith(beginning)

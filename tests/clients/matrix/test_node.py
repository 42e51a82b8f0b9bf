"""Clients from npm do in each dialect what their documentation shows."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import npm_modules
from tests.clients.matrix.table import CELLS, FAILS, Row, leave
from tests.clients.matrix.test_python import open_matrix, requests_by_cell, verdict
from tests.fakes.live import RelayWith
from tests.fakes.upstream import Upstream

pytestmark = pytest.mark.clients

HERE = Path(__file__).with_name("node")
KEEPS: dict[str, Any] = {"responses": {"store": "memory"}}
# Client, package, driver, dialect, variant, sections of relay.toml.
CLIENTS: list[tuple[str, str, str, str, str, dict[str, Any]]] = [
    ("Vercel AI SDK, anthropic", "@ai-sdk/anthropic", "vercel", "messages", "anthropic", {}),
    ("Vercel AI SDK, openai", "@ai-sdk/openai", "vercel", "responses", "openai", KEEPS),
    (
        *("Vercel AI SDK, openai with `store: false`", "@ai-sdk/openai", "vercel", "responses"),
        *("openai, store: false", {}),
    ),
    ("Vercel AI SDK, openai.chat", "@ai-sdk/openai", "vercel", "chat", "openai.chat", {}),
    (
        *("Vercel AI SDK, openai-compatible", "@ai-sdk/openai-compatible", "vercel", "chat"),
        *("openai-compatible", {}),
    ),
    ("LangChain (JS)", "@langchain/openai", "langchain", "chat", "", {}),
    ("LangChain (JS)", "@langchain/openai", "langchain", "responses", "", {}),
    ("LangChain (JS)", "@langchain/anthropic", "langchain", "messages", "", {}),
    ("OpenAI Agents SDK (JS)", "@openai/agents", "agents", "chat", "", {}),
    ("OpenAI Agents SDK (JS)", "@openai/agents", "agents", "responses", "", {}),
    ("OpenAI SDK (Node)", "openai", "openai", "chat", "", {}),
    ("OpenAI SDK (Node)", "openai", "openai", "responses", "", {}),
    ("Anthropic SDK (Node)", "@anthropic-ai/sdk", "anthropic", "messages", "", {}),
]


@pytest.mark.parametrize(
    ("client", "package", "driver", "dialect", "variant", "sections"),
    [pytest.param(*row, id=f"{row[0]}-{row[3]}") for row in CLIENTS],
)
async def test_a_client_from_npm_works(
    client: str,
    package: str,
    driver: str,
    dialect: str,
    variant: str,
    sections: dict[str, Any],
    relay_with: RelayWith,
    recorder: Upstream,
    tmp_path: Path,
) -> None:
    await asyncio.to_thread(npm_modules, HERE, HERE)
    matrix = await open_matrix(relay_with, recorder, tmp_path, **sections)
    reports = await matrix.run("node", HERE / f"{driver}.mjs", dialect, variant)
    received = requests_by_cell(recorder)
    cells = {name: verdict(name, reports.get(name), received.get(name, [])) for name in CELLS}
    failed = [f"{name}: {cell}" for name, cell in cells.items() if cell[0] == FAILS]
    assert not failed, "\n".join(failed)
    leave(Row(client, f"{package} {locked_version(package)}", dialect, cells))


async def test_without_a_store_vercels_default_names_the_option(
    relay_with: RelayWith, recorder: Upstream, tmp_path: Path
) -> None:
    await asyncio.to_thread(npm_modules, HERE, HERE)
    matrix = await open_matrix(relay_with, recorder, tmp_path)
    reports = await matrix.run("node", HERE / "vercel.mjs", "responses", "openai")
    assert "store: false" in reports["thinking"]["raised"]
    assert "returned" in reports["loop"]


def locked_version(package: str) -> str:
    lock = json.loads((HERE / "package-lock.json").read_text())
    return str(lock["packages"][f"node_modules/{package}"]["version"])

"""Clients from PyPI do in each dialect what their documentation shows."""

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.accounts import users
from tests.clients.conftest import TRUST, environment
from tests.clients.matrix.table import CELLS, FAILS, NONE, WORKS, Row, leave
from tests.clients.programs import run
from tests.clients.steering import HI
from tests.fakes.live import PLANS, Live, RelayWith
from tests.fakes.upstream import Upstream

pytestmark = pytest.mark.clients

DRIVERS = Path(__file__).with_name("drivers")
ROOT = Path(__file__).parents[3]
SPENDER = "spender@example.com"
HELLO = "Hello from the matrix"  # as in drivers/cells.py
SPENT = {"id": "spent", "limits": [{"requests": 1, "per": "5h"}], "max_keys": 10}
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "AGNO_TELEMETRY": "false",
    "LANGSMITH_TRACING": "false",
}
LIBRARIES, OLDER = "matrix/python", "matrix/instructor"
OWN = ""  # the environment of these tests
# Client, distribution, driver, environment, dialect.
CLIENTS = [
    ("Anthropic SDK (Python)", "anthropic", "anthropic", OWN, "messages"),
    ("OpenAI SDK (Python)", "openai", "openai", OWN, "chat"),
    ("OpenAI SDK (Python)", "openai", "openai", OWN, "responses"),
    ("LangChain (Python)", "langchain-openai", "langchain", LIBRARIES, "chat"),
    ("LangChain (Python)", "langchain-openai", "langchain", LIBRARIES, "responses"),
    ("LangChain (Python)", "langchain-anthropic", "langchain", LIBRARIES, "messages"),
    ("OpenAI Agents SDK (Python)", "openai-agents", "agents", LIBRARIES, "chat"),
    ("OpenAI Agents SDK (Python)", "openai-agents", "agents", LIBRARIES, "responses"),
    ("simonw/llm", "llm", "llm", LIBRARIES, "chat"),
    ("DSPy", "dspy", "dspy", LIBRARIES, "chat"),
    ("smolagents", "smolagents", "smolagents", LIBRARIES, "chat"),
    *(
        (client, package, driver, folder, dialect)
        for client, package, driver, folder in (
            ("LiteLLM", "litellm", "litellm", "litellm"),
            ("pydantic-ai", "pydantic-ai-slim", "pydantic_ai", LIBRARIES),
            ("instructor", "instructor", "instructor", OLDER),
            ("agno", "agno", "agno", LIBRARIES),
        )
        for dialect in ("chat", "responses", "messages")
    ),
]
Request = dict[str, Any]


@pytest.mark.parametrize(
    ("client", "package", "driver", "folder", "dialect"),
    [pytest.param(*row, id=f"{row[2]}-{row[4]}") for row in CLIENTS],
)
async def test_a_client_from_pypi_works(
    client: str,
    package: str,
    driver: str,
    folder: str,
    dialect: str,
    matrix: "Matrix",
) -> None:
    python = await asyncio.to_thread(environment, folder) if folder else Path(sys.executable)
    reports = await matrix.drive(python, driver, dialect)
    received = requests_by_cell(matrix.recorder)
    cells = {name: verdict(name, reports.get(name), received.get(name, [])) for name in CELLS}
    version = locked_version(folder, package)
    assert [f"{name}: {cell}" for name, cell in cells.items() if cell[0] == FAILS] == []
    leave(Row(client, f"{package} {version}", dialect, cells))


class Matrix:
    """A relay before a recording upstream, a key, and a key whose limit is used up."""

    def __init__(self, relay: Live, recorder: Upstream, spent_key: str, folder: Path) -> None:
        self.relay, self.recorder, self.spent_key = relay, recorder, spent_key
        self._arguments = (relay.url, relay.upstream_url, relay.key, spent_key)
        self._folder = folder

    async def drive(self, python: Path, driver: str, dialect: str) -> dict[str, Any]:
        """Run a driver; its reports by cell."""
        return await self.run(python, DRIVERS / f"drive_{driver}.py", dialect)

    async def run(
        self, interpreter: Path | str, program: Path, dialect: str, variant: str = ""
    ) -> dict[str, Any]:
        """Run a program that reports on each cell; its reports by cell."""
        command = (interpreter, program, dialect, *self._arguments, *([variant] * bool(variant)))
        ended = await run(*command, cwd=self._folder, env=QUIET, wait=300)
        assert ended.status == 0, ended.err
        lines = [line for line in ended.out.splitlines() if line.startswith('{"cell"')]
        return {report["cell"]: report for report in map(json.loads, lines)}


@pytest.fixture
async def matrix(relay_with: RelayWith, recorder: Upstream, tmp_path: Path) -> Matrix:
    return await open_matrix(relay_with, recorder, tmp_path)


async def open_matrix(
    relay_with: RelayWith, recorder: Upstream, folder: Path, **sections: Any
) -> Matrix:
    """A relay with these sections, and both keys."""
    relay = await relay_with(recorder, plan=[*PLANS, SPENT], **sections)
    database, settings = relay.app.database, relay.settings
    await users.create(database, settings, SPENDER, plan="spent", is_admin=False, now=time.time())
    key = await relay.new_key(SPENDER)
    async with httpx.AsyncClient(verify=TRUST) as caller:
        asked = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": HI}
        headers = {**relay.headers, "x-api-key": key}
        answer = await caller.post(f"{relay.url}/v1/messages", json=asked, headers=headers)
    answer.raise_for_status()
    return Matrix(relay, recorder, key, folder)


def requests_by_cell(recorder: Upstream) -> dict[str, list[Request]]:
    """The bodies that reached the upstream, after the request with which each cell began."""
    received: dict[str, list[Request]] = {}
    cell = ""
    for seen in recorder.requests:
        target = seen.head.split(b" ", 2)[1].decode()
        if target.startswith("/simulate/requests?cell="):
            cell = target.rpartition("=")[2]
        elif target.startswith("/v1/messages"):
            received.setdefault(cell, []).append(json.loads(seen.body))
    return received


def verdict(name: str, report: Any, received: list[Request]) -> str:
    """The mark of a cell, with the reason of a gap."""
    if report is None:
        return f"{FAILS} no report"
    if "none" in report:
        return f"{NONE} {report['none']}"
    if "raised" in report:
        return f"{FAILS} {report['raised']}"
    good = CHECKS[name](report["returned"], report.get("calls", 0), received)
    return WORKS if good else f"{FAILS} {report} {received}"


def blocks(received: list[Request], role: str) -> list[tuple[str, Any]]:
    """Type and block of all content that the last request has of a role."""
    return [
        (block["type"], block)
        for message in received[-1]["messages"]
        if message["role"] == role and isinstance(message["content"], list)
        for block in message["content"]
    ]


def streamed(returned: Any, calls: int, received: list[Request]) -> bool:
    """Text comes in pieces; a structure comes in parts that grow."""
    if not received[-1].get("stream"):
        return False
    if isinstance(returned[-1], dict):
        return len(returned) > 2 and is_city(returned[-1])
    return len(returned) > 5 and HELLO in "".join(returned)


def looped(returned: Any, calls: int, received: list[Request]) -> bool:
    """The tool ran as often as it was called, and the model had each result."""
    uses = [block["id"] for kind, block in blocks(received, "assistant") if kind == "tool_use"]
    results = [
        block["tool_use_id"] for kind, block in blocks(received, "user") if kind == "tool_result"
    ]
    if returned == "simulated answer":  # by a tool of the client's own, which has results as text
        texts = [block["text"] for kind, block in blocks(received, "user") if kind == "text"]
        return all(f"rain {number + 1}" in "".join(texts) for number in range(calls))
    answered = str(returned).startswith("Done. The tool answered: rain ")
    return answered and len(uses) == calls and sorted(uses) == sorted(results)


def thought(returned: Any, calls: int, received: list[Request]) -> bool:
    """The model's thoughts came back with their signature, and it goes on thinking."""
    signed = [block for kind, block in blocks(received, "assistant") if kind == "thinking"]
    return (
        looped(returned, calls, received)
        and bool(signed)
        and all(block["signature"] for block in signed)
        and received[-1]["thinking"]["type"] in ("enabled", "adaptive")
    )


def pictured(returned: Any, calls: int, received: list[Request]) -> bool:
    sources = [block["source"] for kind, block in blocks(received, "user") if kind == "image"]
    return [source["media_type"] for source in sources] == ["image/png"] and bool(returned)


def is_city(value: Any) -> bool:
    return bool(value == {"name": "simulated name", "people": 1})


CHECKS: dict[str, Callable[[Any, int, list[Request]], bool]] = {
    "plain": lambda returned, calls, received: HELLO in returned and len(received) == 1,
    "stream": streamed,
    "loop": lambda returned, calls, received: calls == 1 and looped(returned, calls, received),
    "parallel": lambda returned, calls, received: calls == 2 and looped(returned, calls, received),
    "structured": lambda returned, calls, received: is_city(returned),
    "picture": pictured,
    "thinking": thought,
    "unknown": lambda returned, calls, received: (
        "Unknown model 'no-such-model'. Available: claude-opus-4-8" in returned
    ),
    "quota": lambda returned, calls, received: "1 request per 5 hours. It resets at" in returned,
}


def locked_version(folder: str, package: str) -> str:
    """The version of a distribution in the lock file of this folder of tests/clients."""
    lock = ROOT / "requirements-dev.lock"
    if folder:
        lock = ROOT / "tests" / "clients" / folder / "requirements.lock"
    found = re.search(rf"^{re.escape(package)}==(\S+)", lock.read_text(), re.MULTILINE)
    assert found is not None, package
    return found[1]

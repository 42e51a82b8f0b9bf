"""Coding agents do in each dialect what their documentation shows."""

import asyncio
import base64
import json
import re
from pathlib import Path

import httpx
import pytest

from tests.clients import mcp_server
from tests.clients.conftest import TRUST
from tests.clients.matrix import coding
from tests.clients.matrix.coding import AGENTS, THINKER, Agent, At, Turn
from tests.clients.matrix.table import CELLS, FAILS, NONE, WORKS, Row, leave
from tests.clients.matrix.test_python import HELLO, Matrix, Request, blocks, open_matrix
from tests.clients.programs import Ended, run, shows
from tests.fakes.live import RelayWith
from tests.fakes.upstream import Upstream

pytestmark = pytest.mark.clients

SAID = rf'You said: “"?{HELLO}'
WRITE = "write hello world to proof.txt"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["name", "people"],
    "additionalProperties": False,
}
CITY = r'\{\\?"name\\?": ?\\?"simulated name\\?", ?\\?"people\\?": ?1\}'


@pytest.mark.parametrize(
    "agent", [pytest.param(one, id=f"{one.client}-{one.dialect}") for one in AGENTS]
)
async def test_a_coding_agent_works(
    agent: Agent, relay_with: RelayWith, recorder: Upstream, tmp_path: Path
) -> None:
    program = await asyncio.to_thread(agent.source.install)
    matrix = await open_matrix(relay_with, recorder, tmp_path)
    cells = await Cells(agent, program, matrix, tmp_path).run()
    failed = [f"{name}: {cell}" for name, cell in cells.items() if cell[0] == FAILS]
    assert not failed, "\n".join(failed)
    shown = agent.package.removesuffix("-linux-x64")
    version = f"{shown} {agent.source.version(agent.package)}"
    leave(Row(agent.client, version, agent.dialect, cells))


class Cells:
    """Runs the cells of one agent, each in a home of its own."""

    def __init__(self, agent: Agent, program: Path, matrix: Matrix, folder: Path) -> None:
        self.agent, self.program, self.matrix, self.folder = agent, program, matrix, folder
        self.home = folder

    async def run(self) -> dict[str, str]:
        cells = {}
        for name in CELLS:
            if name in self.agent.gaps:
                cells[name] = f"{NONE} {self.agent.gaps[name]}"
                continue
            self.home = self.folder / name
            self.home.mkdir()
            fault = await getattr(self, name)()
            cells[name] = f"{FAILS} {fault}" if fault else WORKS
        return cells

    def command(self, turn: Turn, *, spent: bool = False) -> list[str]:
        key = self.matrix.spent_key if spent else self.matrix.relay.key
        at = At(self.matrix.relay.url, key, self.home)
        words = self.agent.command(self.agent.dialect, at, turn)
        return [word.replace("{program}", str(self.program)) for word in words]

    async def turn(self, turn: Turn) -> tuple[Ended, list[Request]]:
        """The agent's end, and the requests of the turn that reached the upstream."""
        seen = len(self.matrix.recorder.requests)
        ended = await run(*self.command(turn), cwd=self.home, env=self.agent.env, wait=60)
        bodies = [
            json.loads(one.body)
            for one in self.matrix.recorder.requests[seen:]
            if re.match(rb"POST /v1/messages[? ]", one.head)
        ]
        # An agent with tools asks for a title without them.
        return ended, [body for body in bodies if body.get("tools")] or bodies

    async def script(self, *steps: str) -> None:
        """Script the upstream's next answers."""
        async with httpx.AsyncClient(verify=TRUST) as caller:
            url = f"{self.matrix.relay.upstream_url}/simulate/script"
            (await caller.put(url, json=steps)).raise_for_status()

    async def plain(self) -> str:
        ended, _ = await self.turn(Turn(HELLO))
        return "" if re.search(SAID, ended.out) else f"{ended}"

    async def stream(self) -> str:
        ended, received = await self.turn(Turn(HELLO))
        streamed = bool(received) and all(body.get("stream") for body in received)
        return "" if streamed and re.search(SAID, ended.out) else f"{ended} {received}"

    async def loop(self) -> str:
        return self.looped(1, *await self.turn(Turn(WRITE)))

    async def parallel(self) -> str:
        # After a result, the script calls no tool.
        await self.script(*[f"tool={self.agent.writer};tools=2"] * 2)
        fault = self.looped(2, *await self.turn(Turn(WRITE)))
        await self.script()
        return fault

    async def structured(self) -> str:
        ended, _ = await self.turn(Turn("Describe a city.", schema=SCHEMA))
        return "" if re.search(CITY, ended.out) else f"{ended}"

    async def picture(self) -> str:
        picture = self.home / "dot.png"
        picture.write_bytes(base64.b64decode(mcp_server.PIXEL))
        ended, received = await self.turn(Turn(HELLO, picture=picture))
        kinds = [
            block["source"]["media_type"]
            for kind, block in (blocks(received, "user") if received else [])
            if kind == "image"
        ]
        return "" if kinds == ["image/png"] and ended.status == 0 else f"{ended} {received}"

    async def thinking(self) -> str:
        ended, received = await self.turn(Turn(WRITE, model=THINKER, thinks=True))
        fault = self.looped(1, ended, received)
        if fault:
            return fault
        signed = [
            block["signature"]
            for kind, block in blocks(received, "assistant")
            if kind == "thinking"
        ]
        return "" if signed and all(signed) else f"{received}"

    async def unknown(self) -> str:
        return await self.shown(self.agent.unknown, Turn(HELLO, model=coding.UNKNOWN))

    async def quota(self) -> str:
        return await self.shown(self.agent.spent, Turn(HELLO), spent=True)

    async def shown(self, pattern: str, turn: Turn, *, spent: bool = False) -> str:
        command = self.command(turn, spent=spent)
        words = await shows(pattern, *command, cwd=self.home, env=self.agent.env, wait=60)
        return "" if re.search(pattern, words) else words or "nothing is shown"

    def looped(self, calls: int, ended: Ended, received: list[Request]) -> str:
        """The file is written, and the model had the result of each call."""
        if not received:
            return f"{ended}"
        uses = [block["id"] for kind, block in blocks(received, "assistant") if kind == "tool_use"]
        results = [
            block["tool_use_id"]
            for kind, block in blocks(received, "user")
            if kind == "tool_result"
        ]
        proof = self.home / "proof.txt"
        written = proof.is_file() and proof.read_text().strip() == "hello world"
        good = written and len(uses) == calls and sorted(uses) == sorted(results)
        return "" if good else f"{ended} {received}"

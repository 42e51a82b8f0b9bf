"""A conversation moves between families of models, and no upstream refuses its history."""

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from relay.simulator.app import Simulator
from relay.simulator.script import parse
from tests.fakes.live import Live, running_relay, running_simulator, upstream_row
from tests.simulator.samples import BASH, WRITE

JSON = dict[str, Any]
FAMILIES = {"claude": "anthropic", "glm": "glm"}
ENABLED = {"type": "enabled", "budget_tokens": 1024}
ADAPTIVE = {"type": "adaptive"}
MODES = {
    "enabled": ("claude-haiku-4-5", ENABLED),
    "adaptive": ("claude-sonnet-4-7", ADAPTIVE),
    "omitted": ("claude-sonnet-4-7", {**ADAPTIVE, "display": "omitted"}),
}


@dataclass
class Pool:
    """A relay in front of upstreams of several families."""

    relay: Live
    simulators: dict[str, Simulator]

    def only(self, name: str) -> None:
        """Pause every upstream but this one."""
        for upstream in self.relay.app.upstreams:
            if upstream.name == name:
                upstream.health.resume()
            else:
                upstream.health.pause()

    def statuses(self, name: str) -> list[int]:
        return [entry["status"] for entry in self.report(name)]

    def report(self, name: str) -> list[JSON]:
        found: list[JSON] = self.simulators[name].journal.report()["requests"]
        return found


FamiliesWith = Callable[..., Awaitable[Pool]]


@contextlib.asynccontextmanager
async def pooled(
    folder: Path, families: dict[str, str], *, seeds: bool = True, sticky: str = "5m"
) -> AsyncIterator[Pool]:
    """Upstreams by name, each of a family. `seeds`: each signs with a seed of its own."""
    async with contextlib.AsyncExitStack() as stack:
        simulators, upstreams = {}, []
        for number, name in enumerate(families):
            simulator, url = await stack.enter_async_context(
                running_simulator(name if seeds else "the same")
            )
            simulators[name] = simulator
            more = {"vendor": f"of-{name}", "priority": number}
            upstreams.append(upstream_row(name, url, more))
        vendors = [{"name": f"of-{name}", "thinking": kind} for name, kind in families.items()]
        relay = await stack.enter_async_context(
            running_relay(folder, upstreams, vendor=vendors, pool={"sticky": sticky})
        )
        yield Pool(relay, simulators)


@pytest.fixture
def families_with(tmp_path: Path, stack: contextlib.AsyncExitStack) -> FamiliesWith:
    """Opens a pool as `pooled` does; closed at the test's end."""

    async def open_pool(families: dict[str, str], **options: Any) -> Pool:
        return await stack.enter_async_context(pooled(tmp_path, families, **options))

    return open_pool


class Agent:
    """A program that calls tools while the model asks for it, and keeps the whole history."""

    def __init__(self, relay: Live, mode: str, *, stream: bool) -> None:
        self.messages: list[Any] = []
        self.model, self.thinking = MODES[mode]
        self._relay = relay
        self._stream = stream
        self._client = anthropic.AsyncAnthropic(
            api_key=relay.key, base_url=relay.url, max_retries=0, timeout=10
        )

    async def ask(self) -> str:
        """Append the model's next message; return its stop reason."""
        options: JSON = {
            "model": self.model,
            "max_tokens": 4096,
            "thinking": self.thinking,
            "tools": [WRITE, BASH],
            "messages": self.messages,
            "extra_headers": {"x-simulate": "thinking=1"} if self.thinking is None else {},
        }
        message: anthropic.types.Message
        if self._stream:
            async with self._client.messages.stream(**options) as stream:
                message = await stream.get_final_message()
        else:
            message = await self._client.messages.create(**options)
        self.messages.append(
            {
                "role": "assistant",
                "content": [block.model_dump(exclude_none=True) for block in message.content],
            }
        )
        return str(message.stop_reason)

    def say(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})

    def results(self) -> None:
        """Append results for the tool calls of the last message."""
        calls = [block for block in self.messages[-1]["content"] if block["type"] == "tool_use"]
        self.messages.append(
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": call["id"], "content": "written"}
                    for call in calls
                ],
            }
        )

    def thoughts(self) -> int:
        """Number of thinking blocks in the history."""
        return sum(
            block["type"] == "thinking"
            for message in self.messages
            if message["role"] == "assistant"
            for block in message["content"]
        )

    async def close(self) -> None:
        await self._client.close()


@contextlib.asynccontextmanager
async def agent(pool: Pool, mode: str, *, stream: bool = False) -> AsyncIterator[Agent]:
    one = Agent(pool.relay, mode, stream=stream)
    try:
        yield one
    finally:
        await one.close()


@pytest.mark.matrix(share=3)
@pytest.mark.parametrize("sticky", ["5m", "off"])
@pytest.mark.parametrize("stream", [False, True], ids=["document", "stream"])
@pytest.mark.parametrize("mode", MODES)
async def test_a_tool_loop_goes_to_another_family_and_back(
    families_with: FamiliesWith, mode: str, stream: bool, sticky: str
) -> None:
    """The family changes within a tool loop, between two turns, and back again."""
    pool = await families_with(FAMILIES, sticky=sticky)
    async with agent(pool, mode, stream=stream) as one:
        pool.only("claude")
        one.say("write hello to out.txt")
        assert await one.ask() == "tool_use"
        assert one.thoughts() == 1
        one.results()
        pool.only("glm")  # the other family reads the tool's results
        assert await one.ask() == "end_turn"
        one.say("write more to out.txt")
        assert await one.ask() == "tool_use"
        one.results()
        pool.only("claude")  # has not signed the last thinking
        assert await one.ask() == "end_turn"
        one.say("write the rest to out.txt")
        assert await one.ask() == "tool_use"
        one.results()
        assert await one.ask() == "end_turn"
        lines = pool.relay.log()
        assert [line["upstream"] for line in lines] == [
            "claude",
            "glm",
            "glm",
            "claude",
            "claude",
            "claude",
        ]
        assert {line["status"] for line in lines} == {200}
        assert set(pool.statuses("claude") + pool.statuses("glm")) == {200}
        # With `enabled` thinking, a turn whose thinking was dropped has none.
        assert one.thoughts() >= 3


@pytest.mark.parametrize("mode", MODES)
async def test_an_unfiltered_signature_is_refused_by_another_family(
    families_with: FamiliesWith, mode: str
) -> None:
    """The control: two upstreams called one family that sign with different seeds."""
    families = {"one": "anthropic", "two": "anthropic"}
    pool = await families_with(families)
    async with agent(pool, mode) as one:
        pool.only("one")
        one.say("write hello to out.txt")
        await one.ask()
        one.results()
        pool.only("two")
        with pytest.raises(anthropic.BadRequestError, match="signature"):
            await one.ask()


@pytest.mark.parametrize("mode", MODES)
async def test_another_family_continues_a_tool_loop_after_a_failure(
    families_with: FamiliesWith, mode: str
) -> None:
    pool = await families_with(FAMILIES)
    async with agent(pool, mode) as one:
        one.say("write hello to out.txt")
        assert await one.ask() == "tool_use"
        one.results()
        pool.simulators["claude"].scripts.append(parse("status=529"))
        assert await one.ask() == "end_turn"
        first, second = pool.relay.log()
        assert (first["upstream"], second["upstream"]) == ("claude", "glm")
        assert second["tried"].startswith("claude: 529")
        assert pool.statuses("glm") == [200]


# --- octet for octet ---


async def post(relay: Live, body: bytes) -> JSON:
    """Send exactly this body; return the answer."""
    async with httpx.AsyncClient() as client:
        headers = {**relay.headers, "content-type": "application/json"}
        answer = await client.post(f"{relay.url}/v1/messages", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    found: JSON = answer.json()
    return found


def spaced(request: JSON) -> bytes:
    """A request in legal spacing and escapes that no encoder writes."""
    text = json.dumps(request, indent=1).replace('": ', '"  :\t').replace("hello", "h\\u0065llo")
    return text.encode() + b"\n"


def conversation(*messages: JSON) -> JSON:
    return {
        "model": "claude-haiku-4-5",
        "max_tokens": 4096,
        "thinking": ENABLED,
        "tools": [WRITE],
        "messages": list(messages),
    }


USER = {"role": "user", "content": "write hello to out.txt"}


def answered(message: JSON) -> list[JSON]:
    """A model's message and the result of its tool call."""
    [call] = [block for block in message["content"] if block["type"] == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "ok"}
    return [
        {"role": "assistant", "content": message["content"]},
        {"role": "user", "content": [result]},
    ]


def sha(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


async def test_within_a_family_every_octet_of_thinking_is_kept(families_with: FamiliesWith) -> None:
    families = {"one": "anthropic", "two": "anthropic"}
    pool = await families_with(families, seeds=False)
    pool.only("one")
    message = await post(pool.relay, spaced(conversation(USER)))
    body = spaced(conversation(USER, *answered(message)))
    assert b'"signature"' in body
    pool.only("two")
    await post(pool.relay, body)
    [entry] = pool.report("two")
    assert (entry["body_sha256"], entry["body_bytes"]) == (sha(body), len(body))
    pool.only("one")
    await post(pool.relay, body)
    assert pool.report("one")[-1]["body_sha256"] == sha(body)


async def test_another_family_gets_the_octets_without_the_thinking(
    families_with: FamiliesWith,
) -> None:
    pool = await families_with(FAMILIES)
    pool.only("claude")
    message = await post(pool.relay, spaced(conversation(USER)))
    request = conversation(USER, *answered(message))
    bare = [block for block in message["content"] if block["type"] != "thinking"]
    assert len(bare) == len(message["content"]) - 1
    # Only the history: the request's own `thinking` field has tests of its own.
    wanted = conversation(USER, *answered({"content": bare}))
    del request["thinking"], wanted["thinking"]
    body, clean = spaced(request), spaced(wanted)
    pool.only("glm")
    await post(pool.relay, body)
    [entry] = pool.report("glm")
    assert entry["body_bytes"] < len(body)
    assert (entry["body_sha256"], entry["body_bytes"]) == (sha(clean), len(clean))


async def test_a_mixed_history_goes_out_with_the_same_prefix_each_turn(
    families_with: FamiliesWith,
) -> None:
    """A history of two families stays without thinking, so a prompt cache finds its prefix."""
    pool = await families_with(FAMILIES)
    pool.only("claude")
    first = await post(pool.relay, spaced(conversation(USER)))
    history = [USER, *answered(first)]
    pool.only("glm")
    second = await post(pool.relay, spaced(conversation(*history)))
    history += [{"role": "assistant", "content": second["content"]}, USER]
    pool.only("claude")
    third = await post(pool.relay, spaced(conversation(*history)))
    history += answered(third)
    fourth = await post(pool.relay, spaced(conversation(*history)))
    assert third["usage"]["output_tokens"]
    assert fourth["stop_reason"] == "end_turn"
    assert set(pool.statuses("claude")) == {200}


async def test_a_session_of_the_other_family_is_left_unchanged(families_with: FamiliesWith) -> None:
    pool = await families_with(FAMILIES)
    pool.only("claude")
    await post(pool.relay, spaced(conversation(USER)))
    pool.only("glm")
    other = {"role": "user", "content": "write something else to out.txt"}
    message = await post(pool.relay, spaced(conversation(other)))
    body = spaced(conversation(other, *answered(message)))
    await post(pool.relay, body)
    assert pool.report("glm")[-1]["body_sha256"] == sha(body)

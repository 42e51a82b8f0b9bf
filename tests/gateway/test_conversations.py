"""A conversation stays on the upstream that caches its prompt, for every client."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import anthropic
import pytest

from tests.clients.conftest import TRUST
from tests.fakes.pool import MODEL, Pool, PoolWith, answering
from tests.fakes.upstream import JSON_ANSWER

JSON = dict[str, Any]
Request = tuple[dict[str, str], JSON]
Client = Callable[[int, int], Request]

THREE: dict[str, JSON] = {"a": {}, "b": {}, "c": {}}
CONVERSATIONS = 9
MARK: JSON = {"cache_control": {"type": "ephemeral"}}
BETAS = "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27"


def text(said: str, **more: Any) -> JSON:
    return {"type": "text", "text": said, **more}


def tool(name: str) -> JSON:
    shape = {"type": "object", "properties": {"path": {"type": "string"}}}
    return {"name": name, "description": f"To {name}.", "input_schema": shape}


def history(turns: int) -> list[JSON]:
    """The messages after the first one: `turns` calls with their results."""
    said: list[JSON] = []
    for turn in range(turns):
        call = {"type": "tool_use", "id": f"toolu_{turn}", "name": "Bash", "input": {"n": turn}}
        result = {"type": "tool_result", "tool_use_id": f"toolu_{turn}", "content": "done"}
        said.append({"role": "assistant", "content": [text(f"step {turn}"), call]})
        said.append({"role": "user", "content": [result]})
    return said


def uuid(number: int) -> str:
    return f"af6c1616-9e8f-4acf-bd94-{number:012x}"


def claude_code(number: int, turn: int) -> Request:
    user = {"device_id": "3605511c", "account_uuid": "", "session_id": uuid(number)}
    environment: Any = "# Environment" if turn else [text("# Environment", **MARK)]
    body = {
        "model": MODEL,
        "max_tokens": 32000,
        "thinking": {"type": "adaptive", "display": "omitted"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "metadata": {"user_id": json.dumps(user)},
        "system": [
            text("x-anthropic-billing-header: cc_version=2.1.330.7d2; cc_entrypoint=sdk-cli;"),
            text("You are a Claude agent.", **MARK),
        ],
        "messages": [
            {"role": "user", "content": [text("<system-reminder>"), text("Fix the test.")]},
            {"role": "system", "content": environment},
            *history(turn),
        ],
        "tools": [tool("Bash"), tool("Write")],
    }
    fields = {
        "X-Claude-Code-Session-Id": uuid(number),
        "anthropic-beta": BETAS,
        "x-app": "cli",
        "User-Agent": "claude-cli/2.1.330 (external, sdk-cli)",
    }
    return fields, body


def claude_code_by_metadata(number: int, turn: int) -> Request:
    """Behind a proxy that drops unknown header fields."""
    return {}, claude_code(number, turn)[1]


def codex(number: int, turn: int) -> Request:
    named = uuid(number)
    body = {
        "model": MODEL,
        "max_tokens": 1000,
        "prompt_cache_key": named,
        "messages": [{"role": "user", "content": "Fix the test."}, *history(turn)],
    }
    return {"session-id": named, "thread-id": named, "x-client-request-id": named}, body


def codex_by_cache_key(number: int, turn: int) -> Request:
    return {}, codex(number, turn)[1]


def hermes(number: int, turn: int) -> Request:
    """Sends no session id: only its first messages are stable, the cache marks move."""
    messages = [{"role": "user", "content": f"Task {number}"}, *history(turn)]
    last = messages[-1]["content"]
    if isinstance(last, str):
        messages[-1] = {"role": "user", "content": [text(last, **MARK)]}
    else:
        last[-1].update(MARK)
    body = {
        "model": MODEL,
        "max_tokens": 64000,
        "system": [text("You are an agent with a terminal.", **MARK)],
        "tools": [tool("terminal"), tool("write_file"), tool("patch")],
        "tool_choice": {"type": "auto"},
        "messages": messages,
    }
    return {"User-Agent": "Anthropic/Python 0.87.0"}, body


def plain(number: int, turn: int) -> Request:
    messages = [{"role": "user", "content": f"Question {number}"}, *history(turn)]
    return {}, {
        "model": MODEL,
        "max_tokens": 100 + turn,
        "system": "Be brief.",
        "messages": messages,
    }


CLIENTS: dict[str, Client] = {
    "claude code": claude_code,
    "claude code by its metadata": claude_code_by_metadata,
    "codex": codex,
    "codex by its cache key": codex_by_cache_key,
    "hermes": hermes,
    "a plain call": plain,
}


async def answer_id(pool: Pool, asked: Request, key: str | None = None) -> str:
    """Send a request; return its answer's id."""
    fields, body = asked
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    reply = await pool.ask(body, fields=lines, key=key)
    assert reply.status == 200, reply.payload
    return reply.id


def served(pool: Pool) -> dict[str, tuple[str, str]]:
    """By answer id: the upstream, and how it was chosen."""
    return {line["id"]: (line["upstream"], line["choice"]) for line in pool.relay.log()}


def lenient(pool: Pool) -> None:
    """Accept everything: the simulator does not know the tools and betas of these requests."""
    for node in pool.nodes.values():
        node.instead = answering(JSON_ANSWER)


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_conversation_stays_on_its_first_upstream(client: str, pool_with: PoolWith) -> None:
    make = CLIENTS[client]
    pool = await pool_with(THREE)
    lenient(pool)
    went: dict[int, list[str]] = {number: [] for number in range(CONVERSATIONS)}
    for turn in range(4):
        for number in went:
            went[number].append(await answer_id(pool, make(number, turn)))
    found = served(pool)
    first = [found[ids[0]] for ids in went.values()]
    assert [name for name, _ in first] == list("abcabcabc")
    assert {how for _, how in first} == {"turn"}
    for ids in went.values():
        assert [found[id] for id in ids[1:]] == [(found[ids[0]][0], "session")] * 3


@pytest.mark.parametrize("client", CLIENTS)
async def test_an_equal_key_of_another_caller_is_another_conversation(
    client: str, pool_with: PoolWith
) -> None:
    make = CLIENTS[client]
    pool = await pool_with(THREE)
    lenient(pool)
    await pool.relay.create_user("grace@example.com")
    hers = await pool.relay.new_key("grace@example.com")
    ids = [await answer_id(pool, make(0, turn), key) for turn in (0, 1) for key in (None, hers)]
    found = served(pool)
    assert [found[id] for id in ids] == [
        ("a", "turn"),
        ("b", "turn"),
        ("a", "session"),
        ("b", "session"),
    ]


async def test_claude_codes_side_requests_follow_its_session(pool_with: PoolWith) -> None:
    pool = await pool_with(THREE)
    lenient(pool)
    fields, body = claude_code(1, 0)
    title = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "p"}]}
    agent = {**fields, "x-claude-code-agent-id": "a5d8ea3ef01f10836"}
    ids = [
        await answer_id(pool, asked)
        for asked in [(fields, title), (fields, body), (agent, hermes(7, 0)[1])]
    ]
    found = served(pool)
    assert [found[id] for id in ids] == [("a", "turn"), ("a", "session"), ("a", "session")]


async def test_sticky_off_spreads_a_conversation(pool_with: PoolWith) -> None:
    pool = await pool_with(THREE, pool={"sticky": "off"})
    lenient(pool)
    ids = [await answer_id(pool, claude_code(1, turn)) for turn in range(3)]
    found = served(pool)
    assert [found[id] for id in ids] == [("a", "turn"), ("b", "turn"), ("c", "turn")]


async def test_counting_tokens_binds_no_conversation(pool_with: PoolWith) -> None:
    pool = await pool_with(THREE)
    _, body = plain(1, 0)
    count = {name: value for name, value in body.items() if name != "max_tokens"}
    for _ in range(2):
        reply = await pool.ask(count, target="/v1/messages/count_tokens")
        assert reply.status == 200
    bindings = pool.relay.app.bindings
    assert bindings is not None
    assert len(bindings) == 0


async def test_an_sdk_agent_stays_on_one_upstream_and_reads_its_cache(pool_with: PoolWith) -> None:
    """Five turns with tools, interleaved with requests that the pool spreads."""
    pool = await pool_with(THREE)
    sdk = anthropic.AsyncAnthropic(
        api_key=pool.relay.key,
        base_url=pool.relay.url,
        max_retries=0,
        timeout=10,
        http_client=anthropic.DefaultAsyncHttpxClient(verify=TRUST),
    )
    async with sdk:
        messages: list[Any] = [{"role": "user", "content": "What is in the files? " * 20}]
        reads, ids = [], []
        for turn in range(5):
            options: JSON = {
                "model": MODEL,
                "max_tokens": 1000,
                "system": [{"type": "text", "text": "You read files. " * 60, **MARK}],
                "tools": [tool("read_file")],
                "messages": marked(messages),
                "tool_choice": {"type": "any" if turn < 4 else "auto"},
            }
            message: anthropic.types.Message = await sdk.messages.create(**options)
            ids.append(str(message._request_id))
            reads.append(message.usage.cache_read_input_tokens or 0)
            messages.append({"role": "assistant", "content": message.content})
            results = [
                {"type": "tool_result", "tool_use_id": block.id, "content": "A line. " * 40}
                for block in message.content
                if block.type == "tool_use"
            ]
            assert bool(results) is (turn < 4)
            messages.append({"role": "user", "content": results})
            await answer_id(pool, plain(turn, 0))
    found = served(pool)
    assert {found[id][0] for id in ids} == {"a"}
    assert [found[id][1] for id in ids] == ["turn"] + ["session"] * 4
    assert reads[0] == 0
    assert all(after > before for before, after in pairwise(reads))
    journal = pool["a"].simulator.journal
    assert journal.cache_read_input_tokens == sum(reads)
    assert {line["upstream"] for line in pool.relay.log()} == {"a", "b", "c"}


def marked(messages: list[Any]) -> list[Any]:
    """A copy with the cache mark on the last block: agents move it on at each turn."""
    content = messages[-1]["content"]
    blocks = [text(content)] if isinstance(content, str) else [*content]
    blocks[-1] = {**blocks[-1], **MARK}
    return [*messages[:-1], {"role": "user", "content": blocks}]

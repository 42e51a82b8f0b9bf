"""A conversation stays where its prompt is cached, whatever client has it."""

import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import anthropic
import pytest

from relay.accounts import keys, users
from relay.store.keys import live_keys
from tests.clients.conftest import TRUST
from tests.fakes.pool import MODEL, Pool, answering, running_pool
from tests.fakes.upstream import JSON_ANSWER

JSON = dict[str, Any]
Request = tuple[dict[str, str], JSON]
Client = Callable[[int, int], Request]

THREE: dict[str, JSON] = {"a": {}, "b": {}, "c": {}}
CONVERSATIONS = 9
MARK = {"cache_control": {"type": "ephemeral"}}
BETAS = "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27"


def text(said: str, **more: Any) -> JSON:
    return {"type": "text", "text": said, **more}


def tool(name: str) -> JSON:
    shape = {"type": "object", "properties": {"path": {"type": "string"}}}
    return {"name": name, "description": f"To {name}.", "input_schema": shape}


def history(turns: int) -> list[JSON]:
    """What came after the first message: a call and its result, so many times."""
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
    """Behind something that drops the fields that it does not know."""
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
    """It names no session: how it begins tells, while the cache's marks move on."""
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


async def told_by(pool: Pool, asked: Request, key: str | None = None) -> str:
    """The id of one answer."""
    fields, body = asked
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    told = await pool.ask(body, fields=lines, key=key)
    assert told.status == 200, told.payload
    return told.id


def served(pool: Pool) -> dict[str, tuple[str, str]]:
    """By the answer's id: which upstream it is of, and how that was chosen."""
    return {line["id"]: (line["upstream"], line["choice"]) for line in pool.relay.log()}


def lenient(pool: Pool) -> None:
    """The requests are real, but what they have of tools and betas is not the simulator's."""
    for node in pool.nodes.values():
        node.instead = answering(JSON_ANSWER)


@pytest.mark.parametrize("client", CLIENTS)
async def test_every_turn_of_a_conversation_goes_where_its_first_one_went(
    client: str, tmp_path: Path
) -> None:
    make = CLIENTS[client]
    async with running_pool(tmp_path, THREE) as pool:
        lenient(pool)
        went: dict[int, list[str]] = {number: [] for number in range(CONVERSATIONS)}
        for turn in range(4):
            for number in went:
                went[number].append(await told_by(pool, make(number, turn)))
        found = served(pool)
        first = [found[ids[0]] for ids in went.values()]
        assert [name for name, _ in first] == list("abcabcabc")
        assert {how for _, how in first} == {"turn"}
        for ids in went.values():
            assert [found[id] for id in ids[1:]] == [(found[ids[0]][0], "session")] * 3


@pytest.mark.parametrize("client", CLIENTS)
async def test_the_equal_key_of_another_caller_is_another_conversation(
    client: str, tmp_path: Path
) -> None:
    make = CLIENTS[client]
    async with running_pool(tmp_path, THREE) as pool:
        lenient(pool)
        app = pool.relay.app
        who = "grace@example.com"
        now = time.time()
        await users.create(app.database, app._settings, who, plan=None, is_admin=False, now=now)
        issued = await keys.create(
            app.database, app._settings, who, keys.KeyOptions("hers"), now=now
        )
        app.callers.replace(await live_keys(app.database))
        hers = issued.key.reveal()
        ids = [await told_by(pool, make(0, turn), key) for turn in (0, 1) for key in (None, hers)]
        found = served(pool)
        assert [found[id] for id in ids] == [
            ("a", "turn"),
            ("b", "turn"),
            ("a", "session"),
            ("b", "session"),
        ]


async def test_claude_codes_title_request_and_its_sub_agents_go_where_its_session_is(
    tmp_path: Path,
) -> None:
    async with running_pool(tmp_path, THREE) as pool:
        lenient(pool)
        fields, body = claude_code(1, 0)
        title = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "p"}]}
        agent = {**fields, "x-claude-code-agent-id": "a5d8ea3ef01f10836"}
        ids = [
            await told_by(pool, asked)
            for asked in [(fields, title), (fields, body), (agent, hermes(7, 0)[1])]
        ]
        found = served(pool)
        assert [found[id] for id in ids] == [("a", "turn"), ("a", "session"), ("a", "session")]


async def test_sessions_are_nobodys_concern_where_they_are_switched_off(tmp_path: Path) -> None:
    async with running_pool(tmp_path, THREE, pool={"sticky": "off"}) as pool:
        lenient(pool)
        ids = [await told_by(pool, claude_code(1, turn)) for turn in range(3)]
        found = served(pool)
        assert [found[id] for id in ids] == [("a", "turn"), ("b", "turn"), ("c", "turn")]


async def test_counting_tokens_binds_nobody(tmp_path: Path) -> None:
    async with running_pool(tmp_path, THREE) as pool:
        _, body = plain(1, 0)
        count = {name: value for name, value in body.items() if name != "max_tokens"}
        for _ in range(2):
            told = await pool.ask(count, target="/v1/messages/count_tokens")
            assert told.status == 200
        sessions = pool.relay.app.sessions
        assert sessions is not None
        assert len(sessions) == 0


async def test_an_agent_of_the_sdk_stays_on_one_upstream_and_reads_its_cache_there(
    tmp_path: Path,
) -> None:
    """Five turns with tools, beside others' requests that go wherever it is their turn."""
    async with running_pool(tmp_path, THREE) as pool:
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
                message = await sdk.messages.create(
                    model=MODEL,
                    max_tokens=1000,
                    system=[{"type": "text", "text": "You read files. " * 60, **MARK}],  # type: ignore[list-item]
                    tools=[tool("read_file")],  # type: ignore[list-item]
                    messages=marked(messages),
                    tool_choice={"type": "any" if turn < 4 else "auto"},  # type: ignore[arg-type]
                )
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
                await told_by(pool, plain(turn, 0))
        found = served(pool)
        assert {found[id][0] for id in ids} == {"a"}
        assert [found[id][1] for id in ids] == ["turn"] + ["session"] * 4
        assert reads[0] == 0
        assert all(after > before for before, after in pairwise(reads))
        journal = pool["a"].simulator.journal
        assert journal.cache_read_input_tokens == sum(reads)
        assert {line["upstream"] for line in pool.relay.log()} == {"a", "b", "c"}


def marked(messages: list[Any]) -> list[Any]:
    """The same with the cache's mark on the last block, as agents move it on in each turn."""
    content = messages[-1]["content"]
    blocks = [text(content)] if isinstance(content, str) else [*content]
    blocks[-1] = {**blocks[-1], **MARK}
    return [*messages[:-1], {"role": "user", "content": blocks}]

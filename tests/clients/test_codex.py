"""Codex's command line works with the relay: headless turns, real tools."""

import base64
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients import mcp_server
from tests.clients.conftest import TRUST
from tests.clients.programs import Ended, run
from tests.clients.test_claude_code import steer
from tests.fakes.live import Live, RelayWith
from tests.fakes.upstream import Upstream

pytestmark = pytest.mark.node

JSON = dict[str, Any]

MODEL = "claude-sonnet-4-7"
VERSION = "0.169.0"
HOURS, WEEK = 5 * 60, 7 * 24 * 60  # minutes, Codex's unit
UNKNOWN_MODEL = "Model metadata for"  # prefix of its warning
CONFIG = """\
model = "{model}"
model_provider = "relay"
check_for_update_on_startup = false
{settings}

[model_providers.relay]
name = "Relay"
base_url = "{url}/v1"
wire_api = "responses"
{credential}

[analytics]
enabled = false

[features]
plugins = false
apps = false
"""
BY_VARIABLE = 'env_key = "RELAY_KEY"'
BY_COMMAND = 'auth = {{ command = "sh", args = ["-c", "printf %s {key}"] }}'
Codex = Callable[..., Awaitable[Ended]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Codex's home and working folder."""
    home = tmp_path / "home"
    (home / ".codex").mkdir(parents=True)
    return home


@pytest.fixture
def codex(node_modules: Path, home: Path) -> Codex:
    """Run `codex exec PROMPT` against a relay."""
    programs = sorted(node_modules.glob("@openai/codex-*/vendor/*/bin/codex"))
    if not programs:
        pytest.skip("Codex has no program for this kind of machine")

    async def codex(
        relay: Live,
        prompt: str,
        *options: str,
        key: str | None = None,
        by_command: bool = False,
        settings: str = "",
    ) -> Ended:
        key = key or relay.key
        (home / ".codex" / "config.toml").write_text(
            CONFIG.format(
                model=MODEL,
                settings=settings,
                url=relay.url,
                credential=BY_COMMAND.format(key=key) if by_command else BY_VARIABLE,
            )
        )
        return await run(
            *(programs[0], "exec", "--skip-git-repo-check"),
            *("--dangerously-bypass-approvals-and-sandbox", *options, prompt),
            cwd=home,
            env={} if by_command else {"RELAY_KEY": key},
        )

    return codex


def session(home: Path) -> list[JSON]:
    """The payloads of this kind in Codex's session file."""
    [file] = (home / ".codex" / "sessions").rglob("*.jsonl")
    return [json.loads(line)["payload"] for line in file.read_text().splitlines()]


def entries(home: Path, kind: str) -> list[JSON]:
    return [payload for payload in session(home) if payload.get("type") == kind]


def well(ended: Ended) -> str:
    """The last message of a successful turn."""
    assert ended.status == 0, f"{ended.out}\n{ended.err}"
    return ended.out


async def ask(relay: Live, method: str, path: str, body: JSON | None = None) -> JSON:
    headers = {"authorization": f"Bearer {relay.key}"}
    async with httpx.AsyncClient(verify=TRUST) as client:
        answer = await client.request(method, relay.url + path, headers=headers, json=body)
    assert answer.status_code == 200, answer.text
    document: JSON = answer.json()
    return document


async def with_catalogue(relay: Live, home: Path) -> str:
    """Settings that read the relay's catalogue from a file."""
    catalogue = await ask(relay, "GET", f"/v1/models?client_version={VERSION}")
    (home / ".codex" / "models.json").write_text(json.dumps(catalogue))
    return 'model_catalog_json = "models.json"'


async def test_a_plain_turn(live: Live, codex: Codex, home: Path) -> None:
    assert "“Say hello”" in well(await codex(live, "Say hello"))
    [line] = live.log()
    assert (line["path"], line["status"], line["outcome"]) == ("/v1/responses", 200, "whole")
    used = entries(home, "token_count")[-1]["info"]["total_token_usage"]
    cached, fresh = line["cache_read"], line["input"] + line["cache_write"]
    assert (used["input_tokens"], used["cached_input_tokens"]) == (fresh + cached, cached)
    assert used["output_tokens"] == line["output"]


async def test_a_turn_writes_a_file(live: Live, codex: Codex, home: Path) -> None:
    said = well(await codex(live, "write hello world to proof.txt"))
    assert "Process exited with code 0" in said
    assert (home / "proof.txt").read_text() == "hello world\n"
    first, second = live.log()
    assert (first["stop"], second["stop"]) == ("tool_use", "end_turn")
    assert second["cache_read"] >= first["cache_write"] > 5000  # the same octets, so a cache hit


@pytest.mark.clients
async def test_parallel_calls_get_their_results(live: Live, codex: Codex, home: Path) -> None:
    steer(live, "tool=exec_command;tools=3")
    well(await codex(live, "write hello world to proof.txt"))
    calls = [call["call_id"] for call in entries(home, "function_call")]
    assert len(set(calls)) == 3
    assert sorted(done["call_id"] for done in entries(home, "function_call_output")) == calls
    assert [line["status"] for line in live.log()] == [200, 200]


@pytest.mark.clients
async def test_a_patch_changes_a_file(live: Live, codex: Codex, home: Path) -> None:
    settings = await with_catalogue(live, home)
    prompt = "with a patch, write hello world to proof.txt"
    ended = await codex(live, prompt, settings=settings)
    assert "Success. Updated the following files: A proof.txt" in well(ended)
    assert (home / "proof.txt").read_text() == "hello world\n"
    [call] = entries(home, "custom_tool_call")
    assert call["input"].startswith("*** Begin Patch\n")  # plain text, not wrapped in JSON


@pytest.mark.clients
async def test_a_grouped_tool_is_found(live: Live, codex: Codex, home: Path) -> None:
    well(await codex(live, "use the tool close_agent"))
    [call] = entries(home, "function_call")
    assert (call["name"], call["namespace"]) == ("close_agent", "multi_agent_v1")
    [done] = entries(home, "function_call_output")
    assert "invalid agent id" in done["output"]  # Codex's own message: there is no such agent


@pytest.mark.clients
async def test_an_mcp_tool_is_called_and_its_picture_read(
    live: Live, codex: Codex, home: Path
) -> None:
    arguments = ["-S", str(Path(mcp_server.__file__))]
    server = {"command": sys.executable, "args": arguments}
    options = [
        option
        for name, value in server.items()
        for option in ("-c", f"mcp_servers.painter.{name}={json.dumps(value)}")
    ]
    said = well(await codex(live, "use the tool draw", *options))
    assert "Done. The tool answered:" in said
    [call] = entries(home, "function_call")
    assert (call["name"], call["namespace"]) == ("draw", "mcp__painter")
    [done] = entries(home, "function_call_output")
    assert [part["type"] for part in done["output"]] == ["input_text", "input_text", "input_image"]
    assert done["output"][1]["text"] == "drawn: simulated colour"
    assert [line["status"] for line in live.log()] == [200, 200]


async def test_the_catalogue_describes_the_models(live: Live, codex: Codex, home: Path) -> None:
    ended = await codex(live, "Say hello", settings=await with_catalogue(live, home))
    well(ended)
    assert UNKNOWN_MODEL not in ended.err
    info = entries(home, "token_count")[-1]["info"]
    assert 180_000 <= info["model_context_window"] <= 200_000


@pytest.mark.clients
async def test_a_key_command_fetches_the_catalogue(live: Live, codex: Codex) -> None:
    ended = await codex(live, "Say hello", by_command=True)
    well(ended)
    assert UNKNOWN_MODEL not in ended.err
    *models, turn = live.log()
    assert {(line["path"], line["status"]) for line in models} == {("/v1/models", 200)}
    assert (turn["path"], turn["status"]) == ("/v1/responses", 200)


async def test_a_resumed_conversation_replays_its_thinking(
    recorder: Upstream, relay_with: RelayWith, codex: Codex, home: Path
) -> None:
    relay = await relay_with(recorder)
    effort = 'model_reasoning_effort = "high"'
    well(await codex(relay, "write hello world to proof.txt", settings=effort))
    well(await codex(relay, "And again", "resume", "--last", settings=effort))
    assert [line["status"] for line in relay.log()] == [200, 200, 200]
    asked = [json.loads(seen.body)["messages"] for seen in recorder.requests]
    assert [len(thoughts(messages)) for messages in asked] == [0, 1, 2]
    assert thoughts(asked[2])[:1] == thoughts(asked[1])
    first, second = map(unmarked, asked[1:])
    assert second[: len(first)] == first  # so the prompt cache hits
    sealed = [item["encrypted_content"] for item in entries(home, "reasoning")]
    assert len(set(sealed)) == len(sealed) == 3


def unmarked(messages: list[JSON]) -> list[JSON]:
    """The messages without their cache marks, which move at each turn."""
    blocks = [block for one in messages for block in one["content"]]
    for block in blocks:
        block.pop("cache_control", None)
    return messages


def thoughts(messages: list[JSON]) -> list[JSON]:
    blocks = [block for one in messages if type(one["content"]) is list for block in one["content"]]
    found = [block for block in blocks if block["type"] == "thinking"]
    assert all(block["signature"] for block in found)
    return found


@pytest.mark.clients
async def test_a_conversation_too_long_is_compacted_and_continues(
    live: Live, codex: Codex, home: Path
) -> None:
    settings = "model_auto_compact_token_limit = 2000"  # its instructions alone exceed this
    well(await codex(live, "write hello world to proof.txt", settings=settings))
    assert any("replacement_history" in payload for payload in session(home))
    assert {line["status"] for line in live.log()} == {200}


@pytest.mark.clients
async def test_a_picture_is_read(live: Live, codex: Codex, home: Path) -> None:
    (home / "dot.png").write_bytes(base64.b64decode(mcp_server.PIXEL))
    assert "“What is this?”" in well(await codex(live, "What is this?", "--image=dot.png", "--"))
    assert [line["status"] for line in live.log()] == [200]


@pytest.mark.clients
async def test_an_answer_fits_the_requested_schema(live: Live, codex: Codex, home: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}},
        "required": ["title"],
        "additionalProperties": False,
    }
    (home / "schema.json").write_text(json.dumps(schema))
    said = well(await codex(live, "Name it", "--output-schema=schema.json"))
    assert json.loads(said) == {"title": "simulated title"}


async def test_codex_shows_the_plans_meters(
    relay_with: RelayWith, codex: Codex, home: Path
) -> None:
    limits = [{"requests": 40, "per": "5h"}, {"requests": 200, "per": "7d"}]
    started = time.time()
    relay = await relay_with(plan=[{"id": "free", "limits": limits}])
    well(await codex(relay, "Say hello"))
    limits = entries(home, "token_count")[-1]["rate_limits"]
    for name, share, minutes in (("primary", 2.5, HOURS), ("secondary", 0.5, WEEK)):
        meter = limits[name]
        assert meter["used_percent"] == pytest.approx(share, abs=0.5)
        assert meter["window_minutes"] == minutes
        assert meter["resets_at"] == pytest.approx(started + minutes * 60, abs=60)


@pytest.mark.clients
async def test_a_plan_without_limits_shows_no_meters(live: Live, codex: Codex, home: Path) -> None:
    well(await codex(live, "Say hello"))
    limits = entries(home, "token_count")[-1]["rate_limits"]
    assert limits is None or (limits["primary"], limits["secondary"]) == (None, None)


async def test_an_exhausted_plan_stops_codex_and_names_the_reset(
    relay_with: RelayWith, codex: Codex
) -> None:
    plan = [{"id": "free", "name": "Free", "limits": [{"requests": 1, "per": "5h"}]}]
    relay = await relay_with(plan=plan)
    well(await codex(relay, "Say hello"))
    ended = await codex(relay, "Say hello")
    assert [line["status"] for line in relay.log()] == [200, 429]
    assert ended.status != 0
    assert ended.seconds < 20
    # A reset after midnight is shown with its date.
    assert re.search(r"hit your usage limit.*try again at [^\n]*\d+:\d\d [AP]M", ended.err, re.I)


async def test_a_wrong_key_stops_codex_without_retry(live: Live, codex: Codex) -> None:
    once = ("-c", "model_providers.relay.stream_max_retries=1")  # the default is five retries
    ended = await codex(live, "Say hello", *once, key="sk-llmapi-" + "0" * 43)
    assert ended.status != 0
    assert ended.seconds < 20
    assert "401 Unauthorized: Incorrect API key" in ended.err
    assert [line["status"] for line in live.log()] == [401, 401]


@pytest.mark.matrix(share=2)
@pytest.mark.parametrize("script", ["status=529", "status=500", "fault=close", "fault=garbage"])
async def test_a_single_failure_is_retried(live: Live, codex: Codex, script: str) -> None:
    steer(live, script)
    ended = await codex(live, "Say hello")
    assert "“Say hello”" in well(ended)
    assert ended.seconds < 20
    assert len(live.log()) == 2


@pytest.mark.parametrize(
    "at", [pytest.param(6, id="thinking", marks=pytest.mark.clients), pytest.param(40, id="text")]
)
async def test_a_cut_stream_never_ends_as_complete(live: Live, codex: Codex, at: int) -> None:
    steer(live, f"fault=cut;at={at}")
    ended = await codex(live, "Say hello")
    assert re.search("You said: “Say hello”.*every byte was read.$", well(ended))
    assert "Reconnecting" in ended.err
    assert [line["outcome"].split(":")[0] for line in live.log()] == ["cut", "whole"]


@pytest.mark.clients
async def test_an_error_event_midway_is_retried(live: Live, codex: Codex) -> None:
    steer(live, "fault=error;at=6")
    assert "simulated upstream" in well(await codex(live, "Say hello"))
    assert len(live.log()) == 2


@pytest.mark.clients
async def test_keepalives_hold_codex_through_a_long_silence(
    relay_with: RelayWith, codex: Codex
) -> None:
    pool = {"grace": 0.2, "keep_alive": 0.3}
    short = ("-c", "model_providers.relay.stream_idle_timeout_ms=1000")
    relay = await relay_with(pool=pool)
    steer(relay, "delay=2.5")
    ended = await codex(relay, "Say hello", *short)
    assert [line["status"] for line in relay.log()] == [200]
    assert "“Say hello”" in well(ended)
    assert "Reconnecting" not in ended.err


@pytest.mark.clients
async def test_items_without_a_meaning_never_break_a_turn(live: Live) -> None:
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
        {"type": "ghost_snapshot", "ghost_commit": {"id": "0" * 40}},
        {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "AAAA"},
        {"type": "agent_message", "content": [{"type": "encrypted_content", "data": "x"}]},
        {"type": "computer_call", "call_id": 7, "action": {}},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Again"}]},
    ]
    tools = [{"type": "image_generation"}]
    body = {"model": MODEL, "input": items, "tools": tools, "store": False}
    document = await ask(live, "POST", "/v1/responses", body)
    assert document["status"] == "completed"
    assert "“Again”" in document["output"][-1]["content"][0]["text"]


@pytest.mark.clients
async def test_a_refusal_is_shown_to_the_user(live: Live, codex: Codex) -> None:
    steer(live, "stop=refusal")
    assert "could do harm" in well(await codex(live, "Say hello"))
    assert [line["status"] for line in live.log()] == [200]


@pytest.mark.clients
async def test_an_empty_balance_stops_codex_at_once(relay_with: RelayWith, codex: Codex) -> None:
    plan = [{"id": "free", "name": "Prepaid", "billing": "per-token"}]
    price = {"input": 3.0, "output": 15.0}
    model = [{"id": MODEL, "price": price}]
    relay = await relay_with(plan=plan, model=model)
    ended = await codex(relay, "Say hello")
    assert [line["status"] for line in relay.log()] == [429]
    assert ended.status != 0
    assert ended.seconds < 20
    assert "Quota exceeded" in ended.err

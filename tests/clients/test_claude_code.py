"""Claude Code's command line works with the relay: headless turns, real tools."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from relay.simulator.script import parse
from tests.clients.programs import Ended, run
from tests.fakes.live import Live, RelayWith
from tests.fakes.upstream import JSON_ANSWER, OK, Seen, UpstreamWith

pytestmark = pytest.mark.node

MODEL = "claude-sonnet-4-7"
QUIET = {  # no telemetry, updates or error reports: it contacts only the relay
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
}
Claude = Callable[..., Awaitable[Ended]]


@pytest.fixture
def claude(node_modules: Path, tmp_path: Path) -> Claude:
    """Run `claude -p PROMPT` against a relay, in an empty home."""
    programs = sorted(node_modules.glob("@anthropic-ai/claude-code-*/claude"))
    if not programs:
        pytest.skip("Claude Code has no program for this kind of machine")
    home = tmp_path / "home"
    home.mkdir()

    async def claude(relay: Live, prompt: str, *options: str, **env: str) -> Ended:
        if not env.keys() & {"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"}:
            env["ANTHROPIC_API_KEY"] = relay.key
        return await run(
            *[str(programs[0]), "-p", prompt, "--model", MODEL, *options],
            cwd=home,
            env={"ANTHROPIC_BASE_URL": relay.url, "TMPDIR": str(tmp_path), **QUIET, **env},
        )

    return claude


def steer(live: Live, *scripts: str) -> None:
    """Script the simulated upstream's next answers."""
    assert live.simulator is not None
    live.simulator.scripts.extend(map(parse, scripts))


def result_of(ended: Ended) -> dict[str, Any]:
    assert ended.status == 0, f"{ended.out}\n{ended.err}"
    result: dict[str, Any] = json.loads(ended.out)
    assert not result["is_error"]
    return result


async def test_a_plain_turn(live: Live, claude: Claude) -> None:
    result = result_of(await claude(live, "Say hello", "--output-format", "json"))
    assert "“Say hello”" in result["result"]
    [line] = live.log()
    assert (line["path"], line["status"], line["outcome"]) == ("/v1/messages", 200, "whole")
    used = result["usage"]  # shown to the user, and equal to the relay's count
    assert (used["input_tokens"], used["output_tokens"]) == (line["input"], line["output"])
    assert used["cache_creation_input_tokens"] == line["cache_write"] > 5000


async def test_a_turn_writes_a_file(live: Live, claude: Claude, tmp_path: Path) -> None:
    ended = await claude(
        live,
        "write hello world to proof.txt",
        *("--output-format", "json", "--allowedTools", "Write Bash"),
    )
    result = result_of(ended)
    assert result["num_turns"] == 2
    assert result["permission_denials"] == []
    assert (tmp_path / "home" / "proof.txt").read_text() == "hello world"
    first, second = live.log()
    assert (first["stop"], second["stop"]) == ("tool_use", "end_turn")
    assert second["cache_read"] >= first["cache_write"] > 5000  # the same octets, so a cache hit


async def test_a_resumed_conversation_replays_its_thinking(live: Live, claude: Claude) -> None:
    result_of(await claude(live, "Say hello", "--output-format", "json"))
    result = result_of(await claude(live, "And again", "--continue", "--output-format", "json"))
    assert "“And again”" in result["result"]
    assert {line["outcome"] for line in live.log()} == {"whole"}


@pytest.mark.parametrize("both", [False, pytest.param(True, marks=pytest.mark.clients)])
async def test_an_auth_token_works_like_a_key(live: Live, claude: Claude, both: bool) -> None:
    env = {"ANTHROPIC_AUTH_TOKEN": live.key}
    if both:  # sends both fields: only one is a key of this relay
        env["ANTHROPIC_API_KEY"] = "sk-ant-of-something-else"
    ended = await claude(live, "Say hello", **env)
    assert ended.status == 0, ended.err
    assert "“Say hello”" in ended.out


async def test_a_wrong_key_stops_at_once_with_a_reason(live: Live, claude: Claude) -> None:
    ended = await claude(live, "Say hello", ANTHROPIC_API_KEY="sk-llmapi-" + "0" * 43)
    assert ended.status != 0
    assert ended.seconds < 5
    assert "Invalid API key" in ended.out
    assert [line["status"] for line in live.log()] == [401]  # without its ten retries


@pytest.mark.matrix(share=2)
@pytest.mark.parametrize("script", ["status=529", "status=500", "fault=close", "fault=garbage"])
async def test_a_single_failure_is_retried(live: Live, claude: Claude, script: str) -> None:
    steer(live, script)
    ended = await claude(live, "Say hello")
    assert ended.status == 0, ended.err
    assert "“Say hello”" in ended.out
    assert len(live.log()) == 2


async def test_a_cut_stream_is_requested_again(live: Live, claude: Claude) -> None:
    steer(live, "fault=cut;at=6")
    ended = await claude(live, "Say hello")
    assert ended.status == 0, ended.err
    # It repeats the request, or continues if the thinking was complete.
    assert "“Say hello”" in ended.out or "cut off mid-stream" in ended.out
    assert [line["outcome"].split(":")[0] for line in live.log()] == ["cut", "whole"]


@pytest.mark.clients
async def test_an_error_event_after_thinking_is_retried(live: Live, claude: Claude) -> None:
    steer(live, "fault=error;at=6")
    ended = await claude(live, "Say hello")
    assert ended.status == 0, ended.err
    assert "simulated upstream" in ended.out
    assert len(live.log()) == 2


@pytest.mark.clients
async def test_an_error_event_within_text_falls_back_to_a_document(
    claude: Claude, upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    def event(kind: str, **fields: Any) -> bytes:
        data = json.dumps({"type": kind, **fields})
        piece = f"event: {kind}\ndata: {data}\n\n".encode()
        return b"%x\r\n%b\r\n" % (len(piece), piece)

    started = {**json.loads(JSON_ANSWER), "content": [], "stop_reason": None}
    broken = b"".join(
        [
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n",
            b"transfer-encoding: chunked\r\n\r\n",
            event("message_start", message=started),
            event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            event("content_block_delta", index=0, delta={"type": "text_delta", "text": "half"}),
            event("error", error={"type": "overloaded_error", "message": "Overloaded"}),
            b"0\r\n\r\n",
        ]
    )

    async def answer(reader: Any, writer: Any, seen: Seen) -> None:
        writer.write(broken if json.loads(seen.body).get("stream") else OK)

    upstream = await upstream_with(answer)
    relay = await relay_with(upstream)
    ended = await claude(relay, "Say hello")
    assert (ended.status, ended.out) == (0, "hi\n")
    asked = [json.loads(seen.body) for seen in upstream.requests]
    assert [bool(body.get("stream")) for body in asked] == [True, False]
    assert asked[0]["messages"] == asked[1]["messages"]


@pytest.mark.clients
async def test_two_dozen_concurrent_token_counts_are_answered(live: Live, claude: Claude) -> None:
    ended = await claude(live, "/context")
    assert ended.status == 0, ended.err
    assert "System prompt" in ended.out
    lines = [line for line in live.log() if line["path"] == "/v1/messages/count_tokens"]
    assert len(lines) >= 10
    assert {line["status"] for line in lines} == {200}


@pytest.mark.clients
async def test_the_model_choices_are_the_relays(live: Live, claude: Claude) -> None:
    ended = await claude(live, "/model", CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY="1")
    assert "Claude Sonnet 4.7" in ended.out  # only the relay has this name
    assert [line["path"] for line in live.log()] == ["/v1/models"]

"""Claude Code waits for a slow upstream, and not for a dead one."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.clients.programs import Ended, run
from tests.fakes import answers
from tests.fakes.live import Live, RelayWith
from tests.fakes.upstream import OK, Answer, Seen, UpstreamWith

pytestmark = pytest.mark.node

MODEL = "claude-sonnet-4-7"
QUIET = {  # it contacts only the relay
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
}
EVENTS = answers.stream(("I have ", "thought about it."))
Claude = Callable[..., Awaitable[Ended]]


@pytest.fixture
def claude(node_modules: Path, tmp_path: Path) -> Claude:
    """Run `claude -p` against a relay, in an empty home, for at most `wait` seconds."""
    programs = sorted(node_modules.glob("@anthropic-ai/claude-code-*/claude"))
    if not programs:
        pytest.skip("Claude Code has no program for this kind of machine")
    home = tmp_path / "home"
    home.mkdir()

    async def claude(relay: Live, wait: float, **env: str) -> Ended:
        return await run(
            *(programs[0], "-p", "Think well", "--model", MODEL),
            cwd=home,
            env={
                "ANTHROPIC_BASE_URL": relay.url,
                "ANTHROPIC_API_KEY": relay.key,
                "TMPDIR": str(tmp_path),
                **QUIET,
                **env,
            },
            wait=wait,
        )

    return claude


def silent(seconds: float, shown: int | None = None) -> Answer:
    """A stream that is silent before its head or after `shown` events; others answer at once."""

    async def answer(reader: object, writer: asyncio.StreamWriter, seen: Seen) -> None:
        if not json.loads(seen.body).get("stream"):
            writer.write(OK)
            return
        if shown is not None:
            started = b"".join(map(answers.chunk, EVENTS[:shown]))
            writer.write(answers.chunked_head() + started)
        await asyncio.sleep(seconds)
        if shown is None:
            writer.write(answers.chunked(EVENTS))
        else:
            writer.write(b"".join(map(answers.chunk, EVENTS[shown:])) + answers.LAST)

    return answer


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        pytest.param(2.5, None, id="before-the-head"),
        pytest.param(25, None, id="long-before-the-head", marks=pytest.mark.long),
        pytest.param(25, 4, id="long-within-the-text", marks=pytest.mark.long),
    ],
)
async def test_pings_fill_a_worrying_silence(
    claude: Claude,
    upstream_with: UpstreamWith,
    relay_with: RelayWith,
    seconds: float,
    shown: int | None,
) -> None:
    """After 20 s of silence it warns its user."""
    upstream = await upstream_with(silent(seconds, shown))
    relay = await relay_with(upstream, pool={"grace": 0.5, "keep_alive": 0.5})
    ended = await claude(relay, 60)
    lines = [line for line in relay.log() if line["path"] == "/v1/messages"]
    assert (ended.status, ended.out) == (0, "I have thought about it.\n"), ended.err
    assert ended.seconds > seconds
    assert [line["outcome"] for line in lines] == ["whole"]  # without a retry


@pytest.mark.long
async def test_default_settings_outlast_two_minutes_of_silence(
    claude: Claude, upstream_with: UpstreamWith, relay_with: RelayWith
) -> None:
    upstream = await upstream_with(silent(120))
    relay = await relay_with(upstream)
    ended = await claude(relay, 170)
    lines = [line for line in relay.log() if line["path"] == "/v1/messages"]
    assert (ended.status, ended.out) == (0, "I have thought about it.\n"), ended.err
    assert [line["outcome"] for line in lines] == ["whole"]


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(None, id="before-the-head", marks=pytest.mark.clients),
        pytest.param(4, id="within-the-text"),
    ],
)
async def test_a_dead_upstream_fails_within_its_timeout(
    claude: Claude, upstream_with: UpstreamWith, relay_with: RelayWith, shown: int | None
) -> None:
    """Pings keep it alive, so only the upstream's timeout ends it."""

    async def dead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen) -> None:
        if shown is not None and json.loads(seen.body).get("stream"):
            started = b"".join(map(answers.chunk, EVENTS[:shown]))
            writer.write(answers.chunked_head() + started)
        await reader.read(1)

    times = {"first_byte": 1.5, "silence": 1.5}
    upstream = await upstream_with(dead)
    relay = await relay_with(
        upstream, pool={"grace": 0.25, "keep_alive": 0.25}, upstream_options={"timeouts": times}
    )
    ended = await claude(relay, 60, CLAUDE_CODE_MAX_RETRIES="1")
    lines = [line for line in relay.log() if line["path"] == "/v1/messages"]
    assert "in time" in ended.out + ended.err
    assert lines
    assert all(line["us"] < 3_000_000 for line in lines)  # each at the timeout

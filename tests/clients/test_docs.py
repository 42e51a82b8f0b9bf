"""The examples of the documentation for callers work as pasted, with this relay's address and key.

They are those that a running relay serves, so values from its settings are in them.
"""

import ast
import json
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from relay import config
from relay.web.languages import read_texts, translator
from relay.web.manual.edition import Edition
from relay.web.set_up.script import setup_ps1
from tests.clients.programs import run
from tests.clients.test_litellm import QUIET
from tests.clients.test_readme import LAST, program_of, run_client
from tests.fakes.live import MODELS, Live, RelayWith
from tests.fakes.ports import free_port

ADDRESS = "http://127.0.0.1:8080"
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INSTALLED = ("anthropic", "openai", "json")  # what a Python example begins with


class Example(NamedTuple):
    page: str
    kind: str
    text: str


def examples() -> list[Example]:
    """All code of all pages. It is the same in every language."""
    tree = {"model": MODELS, "plan": [{"id": "free"}], "server": {"public_url": ADDRESS}}
    edition = Edition("en", config.parse(tree), translator(read_texts()["en"]))
    return [
        Example(page.name, kind, text)
        for page in edition.pages.values()
        for kind, text in BLOCK.findall(page.source)
    ]


EXAMPLES = examples()


def of(*kinds: str) -> list[Example]:
    return [one for one in EXAMPLES if one.kind in kinds]


def named(found: list[Example]) -> list[object]:
    """Parameters with a page and a number as their ids."""
    return [pytest.param(one, id=f"{one.page}-{number}") for number, one in enumerate(found)]


SET_UP = [one for one in of("sh") if "/setup.sh" in one.text]
CURL = [one for one in of("sh") if one.text.startswith("curl ") and one not in SET_UP]
OTHER_SHELL = [one for one in of("sh") if not one.text.startswith("curl ")]
PYTHON = [one for one in of("python") if one.text.split()[1] in INSTALLED]


def filled(example: Example, live: Live) -> str:
    """An example with this relay's address, and a key if it has a place for one."""
    text = example.text.replace(ADDRESS, live.url)
    assert live.url in text
    assert "YOUR_KEY" in text
    return text.replace("YOUR_KEY", live.key)


def test_no_kind_of_code_is_left_untested() -> None:
    known = {"sh", "powershell", "python", "js", "json", "toml", "yaml", "http", "sse"}
    assert {one.kind for one in EXAMPLES} == known
    assert len(CURL) >= 15


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("example", named(CURL))
async def test_a_curl_example_is_answered(live: Live, tmp_path: Path, example: Example) -> None:
    ended = await run("sh", "-ec", filled(example, live), cwd=tmp_path, env={})
    assert ended.status == 0, ended.err
    assert ended.out.strip()
    assert '"error":{' not in ended.out.replace(" ", "")
    if '"stream": true' in example.text:
        path = next(path for path in LAST if f"{path} " in example.text)
        assert LAST[path] in ended.out.rstrip().split("\n\n")[-1]
    assert {line["status"] for line in live.log()} == {200}


async def test_the_python_examples_print_answers(live: Live, tmp_path: Path) -> None:
    """In one interpreter, each for itself: importing an SDK takes longer than its example."""
    assert len(PYTHON) >= 5
    texts = [filled(one, live) for one in PYTHON]
    program = f"for text in {texts!r}:\n    exec(text, {{}})\n    print('\\n---')"
    ended = await run(sys.executable, "-c", program, cwd=tmp_path, env={})
    assert (ended.status, ended.err) == (0, "")
    *answers, rest = ended.out.split("\n---\n")
    assert rest == ""
    assert len(answers) == len(PYTHON)
    assert all(answer.strip() for answer in answers)
    assert sum("Hello!" in answer for answer in answers) == len(PYTHON) - 1  # and its usage
    assert [line["status"] for line in live.log()] == [200] * len(PYTHON)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("example", named(SET_UP))
async def test_a_set_up_example_writes_settings(
    relay_with: RelayWith, tmp_path: Path, example: Example
) -> None:
    port = free_port()
    live = await relay_with(
        server={"listen": [f"127.0.0.1:{port}"], "public_url": f"http://127.0.0.1:{port}"}
    )
    text = example.text.replace(ADDRESS, live.url).replace("YOUR_KEY", live.key)
    if text.endswith("| bash\n"):  # it asks; `tests/set_up` answers
        text = text.replace("| bash\n", "| bash -s -- --client codex --yes\n")
    home = tmp_path / "home"
    home.mkdir()
    ended = await run("sh", "-ec", text, cwd=home, env={"RELAY_KEY": live.key})
    assert ended.status == 0, ended.err
    settings = tomllib.loads((home / ".codex" / "config.toml").read_text())
    assert settings["model_providers"]["relay"]["base_url"] == f"{live.url}/v1"


def test_the_powershell_examples_are_those_of_the_script() -> None:
    tree = {"model": MODELS, "plan": [{"id": "free"}], "server": {"public_url": ADDRESS}}
    script = setup_ps1(config.parse(tree))
    examples = of("powershell")
    assert len(examples) == 2
    for example in examples:
        assert f"{ADDRESS}/setup.ps1" in example.text
        assert example.text.partition(" -Client")[0].strip() in script


@pytest.mark.parametrize("example", named(OTHER_SHELL))
async def test_a_shell_example_is_shell(tmp_path: Path, example: Example) -> None:
    assert "YOUR_KEY" in example.text or example.text.startswith("hermes")
    ended = await run("sh", "-n", "-c", example.text, cwd=tmp_path, env={})
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.parametrize("example", named(of("python", "json", "toml", "yaml")))
def test_an_example_can_be_read(example: Example) -> None:
    text = example.text
    match example.kind:
        case "python":
            ast.parse(text)
        case "json":
            json.loads(text)
        case "toml":
            assert tomllib.loads(text)["model_providers"]["relay"]["wire_api"] == "responses"
        case "yaml":
            assert yaml.safe_load(text)["custom_providers"][0]["key_env"] == "RELAY_KEY"


@pytest.mark.parametrize("example", named(of("sse")))
def test_an_example_of_a_stream_is_one(example: Example) -> None:
    for event in example.text.rstrip("\n").split("\n\n"):
        *_, data = event.splitlines()
        assert data.startswith("data: ")
        if data != "data: [DONE]":
            json.loads(data.removeprefix("data: "))


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
async def test_javascript_examples_can_be_read(tmp_path: Path) -> None:
    for number, example in enumerate(of("js")):
        (tmp_path / f"{number}.mjs").write_text(example.text)
        ended = await run("node", "--check", f"{number}.mjs", cwd=tmp_path, env={})
        assert (ended.status, ended.err) == (0, ""), example.text


@pytest.mark.node
@pytest.mark.parametrize("package", ["@anthropic-ai/sdk", "openai"])
async def test_a_node_example_prints_an_answer(
    live: Live, node_modules: Path, tmp_path: Path, package: str
) -> None:
    [example] = [one for one in of("js") if f'from "{package}"' in one.text]
    (tmp_path / "node_modules").symlink_to(node_modules)
    (tmp_path / "example.mjs").write_text(filled(example, live))
    ended = await run("node", "example.mjs", cwd=tmp_path, env={})
    assert ended.status == 0, ended.err
    assert "Hello!" in ended.out


@pytest.mark.litellm
@pytest.mark.clients
async def test_the_litellm_example_prints_an_answer(
    live: Live, litellm_python: Path, tmp_path: Path
) -> None:
    [example] = [one for one in of("python") if one.text.startswith("import litellm")]
    text = filled(example, live)
    ended = await run(litellm_python, "-c", text, cwd=tmp_path, env=QUIET, wait=90)
    assert ended.status == 0, ended.err
    assert "Hello!" in ended.out
    assert {line["status"] for line in live.log()} == {200}


def has_command(example: Example, command: str) -> bool:
    return f"\n{command} " in example.text


@pytest.mark.node
@pytest.mark.parametrize("example", named([one for one in of("sh") if has_command(one, "claude")]))
async def test_claude_code_answers(
    live: Live, node_modules: Path, tmp_path: Path, example: Example
) -> None:
    program = program_of(node_modules, "@anthropic-ai/claude-code-*/claude")
    text = "$ " + filled(example, live).replace("\n", "\n$ ")
    ended = await run_client(text, live, program, tmp_path)
    assert ended.status == 0, f"{ended.out}\n{ended.err}"
    assert "“Say hello”" in ended.out
    assert {line["status"] for line in live.log()} == {200}


@pytest.mark.node
async def test_claude_code_answers_by_its_settings_file(
    live: Live, node_modules: Path, tmp_path: Path
) -> None:
    [example] = [one for one in of("json") if "ANTHROPIC_DEFAULT_OPUS_MODEL" in one.text]
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / "settings.json").write_text(filled(example, live))
    program = program_of(node_modules, "@anthropic-ai/claude-code-*/claude")
    text = f'$ : {live.key}\n$ claude -p "Say hello"'
    ended = await run_client(text, live, program, tmp_path)
    assert ended.status == 0, f"{ended.out}\n{ended.err}"
    assert "“Say hello”" in ended.out


@pytest.mark.node
async def test_codex_answers(live: Live, node_modules: Path, tmp_path: Path) -> None:
    [settings] = of("toml")
    [example] = [one for one in of("sh") if has_command(one, "codex")]
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex" / "config.toml").write_text(
        settings.text.replace(ADDRESS, live.url)
        + "[analytics]\nenabled = false\n[features]\nplugins = false\napps = false\n"
    )
    program = program_of(node_modules, "@openai/codex-*/vendor/*/bin/codex")
    text = "$ " + example.text.replace("YOUR_KEY", live.key).replace("\n", "\n$ ")
    ended = await run_client(text, live, program, tmp_path)
    assert ended.status == 0, f"{ended.out}\n{ended.err}"
    assert "“Say hello”" in ended.out
    assert "/v1/models" in [line["path"] for line in live.log()]

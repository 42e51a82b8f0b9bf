"""Rivals get the settings that their modules declare; a wrong one costs its own figures alone."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import orjson
import pytest

from bench import stage as stages
from bench.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from bench.process import Cores, NoProcess, Process
from bench.rivals.choice import RECIPES, Choice
from bench.rivals.nginx import Nginx, nginx_program
from bench.rivals.program import PLACES, Program, Recipe, found, read_template
from bench.rivals.relay import TREE
from bench.rivals.rival import UPSTREAM_KEY, Rival
from bench.scenarios import EVERYWHERE, SCENARIOS, lack, measure
from bench.stage import JSON_ANSWER, Settings, Stage, json_load, stream_load
from bench.upstreams import start_simulator

from .runs import bench, refusal

_PLACE = re.compile(rf"\{{({'|'.join(PLACES)})\}}")
_WRONG = """\
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Wrong(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(b"ready")

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(b'{"type":"message","content":[{"type":"text","text":"Another text."}]}')

    def answer(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(sys.argv[1])), Wrong).serve_forever()
"""


def _template(folder: Path, *argv: str) -> Path:
    path = folder / "template.toml"
    path.write_text(f'argv = {orjson.dumps(argv).decode()}\ndialects = ["messages"]\n')
    return path


# --- the programs -------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulator_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    process, port = start_simulator(tmp_path_factory.mktemp("simulator"), Cores.choose().load)
    with process:
        yield port


def _installed(recipe: Recipe) -> Recipe:
    """With its program's path, where that is installed; RELAY_BENCH_RIVALS adds a folder."""
    folder = os.environ.get("RELAY_BENCH_RIVALS")
    choice = Choice.of((recipe.name,), Path(folder) if folder else None)
    if not choice.programs:
        pytest.skip(choice.missing[0])
    return choice.programs[0]


@contextmanager
def _running(rival: Rival) -> Iterator[Process]:
    process, _ = rival.start(Cores.choose().proxy)
    with process:
        yield process


async def test_nginx_writes_no_body_to_a_file(tmp_path: Path, simulator_port: int) -> None:
    if nginx_program() is None:
        pytest.skip("nginx is not installed")
    nginx = Nginx(tmp_path / "nginx", simulator_port)
    with _running(nginx) as process:
        load = json_load(nginx, MESSAGES, 300_000)
        try:
            await load.open(1)
        finally:
            load.close()
        assert "temporary file" not in process.tail(1_000)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
async def test_a_program_speaks_its_declared_dialects(
    recipe: Recipe, tmp_path: Path, simulator_port: int
) -> None:
    rival = Program(tmp_path / "rival", simulator_port, _installed(recipe))
    upstream = stages.Testbed(NoProcess(), simulator_port, [rival])
    stage = Stage(Settings(), Cores.choose(), {"simulator": upstream}, lambda *round: None)
    assert rival.version != "unknown"
    stage.script(rival, JSON_ANSWER)
    with _running(rival):
        for dialect in (MESSAGES, CHAT, RESPONSES):
            if dialect.name in rival.dialects:
                await _answers(stage, rival, dialect)
            if dialect.name in rival.streams:
                assert await stage.events_of(JSON_ANSWER, rival, dialect) > 40


async def _answers(stage: Stage, rival: Rival, dialect: Dialect) -> None:
    load = json_load(rival, dialect)
    try:
        await load.open(2)
        assert load.text == await stage.upstream_text()
        if rival.name == "litellm-rust" and dialect is MESSAGES:
            assert b"\r\nx-litellm-rust: true\r\n" in load.answer
    finally:
        load.close()


@pytest.mark.parametrize("name", ["haproxy", "envoy", "caddy"])
async def test_a_plain_proxy_carries_a_stream_unchanged(
    name: str, tmp_path: Path, simulator_port: int
) -> None:
    rival = Program(tmp_path / "rival", simulator_port, _installed(RECIPES[name]))
    with _running(rival):
        load = stream_load(rival, JSON_ANSWER)
        try:
            await load.open(1)
            await load.ended(20.0)
        finally:
            load.close()
    assert b"\r\nset-cookie:" not in load.head.lower()
    assert b"\r\nanthropic-ratelimit" not in load.head.lower()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_no_place_in_a_recipe_stays_open(recipe: Recipe, tmp_path: Path) -> None:
    rival = Program(tmp_path, 12345, recipe)
    written = "\n".join((*rival.argv(), rival.settings, rival.fields))
    assert not _PLACE.search(written)
    assert "12345" in written
    assert str(rival.json_port) in written
    if rival.key != UPSTREAM_KEY:
        assert rival.key in written
    assert recipe.install


# --- which ones are measured --------------------------------------------------------


def test_a_missing_program_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    choice = Choice.of(("crabllm", "ferro"), tmp_path)
    assert not choice.programs
    assert choice.missing == (
        "crabllm is not installed (cargo install crabllm@0.0.25 --locked): it is left out.",
        "ferro is not installed (pip install ferrogw==1.5.10): it is left out.",
    )


def test_all_is_every_rival_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "smg-environment" / "bin" / "smg"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    choice = Choice.of(("all",), tmp_path)
    assert str(program) in [recipe.program for recipe in choice.programs]
    assert {"direct", "relay"} <= set(choice.references)
    shown = {recipe.name for recipe in choice.programs} | set(choice.references)
    absent = {sentence.partition(" ")[0] for sentence in choice.missing}
    assert shown | absent == {"direct", "nginx", "relay", *RECIPES}


def test_a_program_is_found_where_npm_puts_it(tmp_path: Path) -> None:
    name = "@portkey-ai/gateway/build/start-server.js"
    path = tmp_path / "node" / "node_modules" / name
    path.parent.mkdir(parents=True)
    path.touch(0o755)
    assert found(name, tmp_path) == str(path)


def test_without_a_rival_that_is_installed_nothing_is_measured(tmp_path: Path) -> None:
    done = bench("--only", "json", "--rival", f"smg={tmp_path}/smg")
    assert done.returncode == 1
    assert "nothing to measure" in done.stdout
    assert "pip install smg" in done.stdout


@pytest.mark.parametrize(
    "value", ["unknown", "a=", "=b", "nginx=/bin/true", "all=/b:t", "new=/bin/true", "A=/b:t"]
)
def test_a_rival_that_cannot_be_meant_is_refused(value: str) -> None:
    said = refusal("--rival", value)
    assert "--rival" in said


@pytest.mark.parametrize("text", ["argv = []", 'argv = []\ndialects = []\nports = "1"', "="])
def test_a_template_that_is_no_recipe_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "template.toml").write_text(text)
    said = refusal("--rival", f"new=/bin/true:{tmp_path}/template.toml")
    assert "cannot be used" in said


@pytest.mark.parametrize(
    "line",
    [
        'argv = ["{progam}"]',
        'argv = ["{program}", "{anything}"]',
        'argv = ["{program}"]\nfiles = { "a.conf" = "listen {prot}" }',
    ],
)
def test_a_misspelt_place_in_a_template_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "template.toml").write_text(f'{line}\ndialects = ["messages"]\n')
    said = refusal("--rival", f"new=/bin/true:{tmp_path}/template.toml")
    words = " ".join(said.split())
    assert "is none of {port}" in words
    assert "{program}" in words


def test_braces_of_a_program_stay_in_its_settings(tmp_path: Path) -> None:
    path = _template(tmp_path, "{program}")
    path.write_text(path.read_text() + 'files = { "a.conf" = "log {remote_host} {port}" }\n')
    assert read_template(path).files["a.conf"] == "log {remote_host} {port}"


def test_the_documented_template_is_a_recipe(tmp_path: Path) -> None:
    page = (TREE / "relay" / "docs" / "bench.md").read_text()
    text = page.partition("```toml\n")[2].partition("```")[0]
    recipe = msgspec.toml.decode(text, type=Recipe)
    rival = Program(tmp_path, 12345, msgspec.structs.replace(recipe, name="b", program="/b"))
    assert "127.0.0.1:12345" in rival.settings
    assert str(rival.json_port) in rival.settings
    assert not _PLACE.search(rival.settings)


# --- the scenarios of a rival -------------------------------------------------------


def test_a_rival_is_left_out_where_it_lacks_the_dialect(tmp_path: Path) -> None:
    rivals = {
        name: Program(tmp_path / name, 1, RECIPES[name]) for name in ("haproxy", "crabllm", "ferro")
    }
    able = {
        name: [scenario for scenario in SCENARIOS if not lack(scenario, rival)]
        for name, rival in rivals.items()
    }
    assert able["haproxy"] == list(SCENARIOS)
    assert able["ferro"] == ["chat-json", "chat-sse", "chat-body-memory", "ready"]
    assert {"json", "sse", "chat-json", "body-memory"} <= set(able["crabllm"])
    assert not {"chat-sse", "chat-first", "responses-json"} & set(able["crabllm"])
    assert "stream" in lack("chat-sse", rivals["crabllm"])


def test_a_rival_is_left_out_where_its_recipe_says_so(tmp_path: Path) -> None:
    rival = Program(tmp_path, 1, RECIPES["portkey"])
    assert lack("idle", rival) == RECIPES["portkey"].unable["idle"]
    assert not lack("sse", rival)


def test_a_rival_that_answers_wrongly_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "wrong.py"
    program.write_text(_WRONG)
    program.chmod(0o755)
    template = _template(tmp_path, sys.executable, "{program}", "{port}")
    figures = tmp_path / "figures.json"
    done = bench(
        *("--quick", "--only", "latency", "--json", str(figures)),
        *("--rival", f"wrong={program}:{template}", "--rival", "direct"),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "wrong is refused" in done.stdout
    document = orjson.loads(figures.read_bytes())
    assert set(document["rounds"]["latency"]) == {"direct"}
    assert "Another text." in document["refused"]["latency"]["wrong"]
    assert document["rivals"]["wrong"]["command"][:2] == [sys.executable, str(program)]


class _Broken(Rival):
    """A proxy that ends at once."""

    name = "broken"
    dialects = streams = frozenset({"messages"})
    version = settings = key = ""

    def __init__(self, folder: Path, *, may_fail: bool) -> None:
        super().__init__(folder)
        self.may_fail = may_fail
        self.json_port = self.sse_port = 1

    def argv(self) -> list[str]:
        return ["false"]


def _stage(rival: Rival) -> Stage:
    testbed = stages.Testbed(NoProcess(), 1, [rival])
    return Stage(Settings(rounds=2), Cores.choose(), {"simulator": testbed}, lambda *round: None)


async def test_a_rival_that_does_not_start_is_refused_everywhere(tmp_path: Path) -> None:
    stage = _stage(_Broken(tmp_path, may_fail=True))
    assert await measure(stage, ("sse", "ready")) == {}
    assert list(stage.refused) == [EVERYWHERE]
    assert "status 1" in stage.refused[EVERYWHERE]["broken"]


async def test_a_relay_that_does_not_start_is_refused_as_well(tmp_path: Path) -> None:
    stage = _stage(_Broken(tmp_path, may_fail=False))
    assert await measure(stage, ("ready",)) == {}
    assert "broken ended with status 1" in stage.refused[EVERYWHERE]["broken"]

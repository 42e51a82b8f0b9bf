"""The two scripts as texts and as files of the relay: nothing that a setting says breaks out."""

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import config
from relay.config import Settings
from relay.web.set_up.clients import KEY, NEW_LINE, clients
from relay.web.set_up.script import ps_text, setup_ps1, setup_sh, sh_text
from tests.fakes.live import MODELS, Live
from tests.set_up.conftest import SHELLS, shell_command

SCRIPTS = {"setup.sh": setup_sh, "setup.ps1": setup_ps1}
TYPES = {"setup.sh": "text/x-shellscript; charset=utf-8", "setup.ps1": "text/plain; charset=utf-8"}


def settings(url: str = "https://relay.example", model: str = "claude-sonnet-4-7") -> Settings:
    return config.parse(
        {
            "model": [{**MODELS[0], "id": model}],
            "plan": [{"id": "free"}],
            "server": {"public_url": url},
        }
    )


# --- quoting ---

# What relay.toml takes in an address and in the id of a model.
URLS = st.text("abc09._~:/@!$&()*+,;=%-", max_size=30).map(
    lambda tail: f"https://relay.example/{tail}"
)
IDS = st.text([chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"\\*'], min_size=1,
              max_size=30)  # fmt: skip
POWERSHELL_QUOTES = "'\u2018\u2019\u201a\u201b"
ANY = st.text('"`$\\\n;|&(){}@# aZ0' + POWERSHELL_QUOTES + NEW_LINE, max_size=20)


@given(st.lists(ANY, min_size=1, max_size=8))
def test_a_value_is_one_word_of_the_shell(values: list[str]) -> None:
    words = " ".join(sh_text(value) for value in values)
    shown = subprocess.run(
        ["sh", "-c", f"separator=$(printf '\\036'); printf '%s\\0' {words}"], capture_output=True,
        check=True,
    )  # fmt: skip
    assert shown.stdout.decode().split("\0")[:-1] == values


@given(ANY)
def test_a_value_is_one_text_of_powershell(value: str) -> None:
    """A text in single quotes has no escape but a doubled quote, which may be a curved one
    (about_Quoting_Rules; the language's specification, 2.3.5.2)."""
    value = value.replace(NEW_LINE, "")
    text = ps_text(value)
    assert (text[0], text[-1]) == ("'", "'")
    doubled = re.compile(f"([{POWERSHELL_QUOTES}])\\1")
    assert not set(POWERSHELL_QUOTES) & set(doubled.sub("", text[1:-1]))
    assert doubled.sub(r"\1", text[1:-1]) == value


def test_marks_are_variables_between_texts() -> None:
    value = f"it's {KEY}{NEW_LINE}."
    assert sh_text(value) == "'it'\\''s '\"$key\"\"$separator\"'.'"
    assert ps_text(value) == "('it''s ' + $Key + $Separator + '.')"


@given(URLS, IDS)
def test_settings_break_out_of_no_script(url: str, model: str) -> None:
    """The scripts keep their form, whatever the address and the models are called."""
    try:
        hostile = settings(url, model)
    except config.ConfigError:
        return
    plain = settings()
    text = setup_sh(hostile)
    assert structure(text, hostile) == structure(setup_sh(plain), plain)
    checked = subprocess.run(["sh", "-n"], input=text.encode(), capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, b"")
    powershell = setup_ps1(hostile)
    assert structure(powershell, hostile) == structure(setup_ps1(plain), plain)
    assert powershell.isascii()


def structure(text: str, of: Settings) -> list[str]:
    """A script with a word in place of the texts that settings fill."""
    url = of.server.public_url.rstrip("/")
    model = of.model[0].id
    texts = {edit.value for client in clients(of) for file in client.files for edit in file.edits}
    found = [sh_text(one) for one in texts] + [ps_text(one) for one in texts]
    found += [sh_text(url), ps_text(url), sh_text(f'"{model}"'), ps_text(f'"{model}"')]
    for one in sorted(found, key=len, reverse=True):
        if len(one) > 2:
            text = text.replace(one, "TEXT")
    lines = text.replace(url, "URL").splitlines()
    return [line for line in lines if "TEXT" not in line]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_reads_the_script(shell: str) -> None:
    text = setup_sh(settings("https://relay.example/$(id)", "a'b`c$d")).encode()
    command = [*shell_command(shell).split(), "-n"]
    checked = subprocess.run(command, input=text, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, b"")


# --- PowerShell, by its tree ---

_ALIASES = """
% ? cat cd clear copy cp curl del dir echo erase foreach ft fl gc gci gcm gi gm gp gv h history
icm iex ii irm iwr kill ls measure mkdir move mv popd ps pushd pwd r rd ren ri rm rmdir sal saps
select set sl sleep sort sp start tee type wget where write
"""
ALIASES = frozenset(_ALIASES.split())
# Cmdlets of Windows PowerShell 5.1 and of PowerShell 7.
_CMDLETS = """
Add-Type ConvertFrom-Json Copy-Item ForEach-Object Get-ChildItem Get-Command Get-Date Get-Item
Join-Path Move-Item New-Object Read-Host Remove-Item Sort-Object Split-Path Test-Path
Where-Object Write-Host
"""
CMDLETS = frozenset(_CMDLETS.split())


@pytest.fixture(scope="module")
def tree() -> Any:
    """The tree of setup.ps1."""
    tree_sitter = pytest.importorskip("tree_sitter", reason="tree-sitter is not installed")
    grammar = pytest.importorskip("tree_sitter_powershell", reason="its grammar is not installed")
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    return parser.parse(setup_ps1(settings()).encode())


def nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in node.children:
        yield from nodes(child)


def texts(tree: Any, *kinds: str) -> list[str]:
    return [node.text.decode() for node in nodes(tree.root_node) if node.type in kinds]


def test_setup_ps1_is_powershell_5_1(tree: Any) -> None:
    """The grammar is that of Windows PowerShell: no ternary, no `??`, no `?.`."""
    bad = [node for node in nodes(tree.root_node) if node.is_error or node.is_missing]
    assert [node.text[:60] for node in bad] == []
    kinds = {node.type for node in nodes(tree.root_node)}
    assert kinds.isdisjoint({"&&", "||", "?", "??", "?."})


def test_setup_ps1_calls_only_known_commands(tree: Any) -> None:
    functions = set(texts(tree, "function_name"))
    called = set(texts(tree, "command_name"))
    assert called <= functions | CMDLETS
    assert functions <= called
    assert not {name.lower() for name in called} & ALIASES


def test_setup_ps1_stays_in_its_scope(tree: Any) -> None:
    """`iex` runs it in the person's own shell: nothing is left there, and it is not closed."""
    variables = texts(tree, "variable")
    assert variables
    assert not [name for name in variables if name.lower().startswith(("$script:", "$global:"))]
    flows = texts(tree, "flow_control_statement")
    assert flows
    assert not [flow for flow in flows if flow.startswith("exit")]
    top = [node for node in tree.root_node.children if node.type != "comment"]
    assert [node.type for node in top] == ["param_block", "statement_list"]
    assert len(top[1].children) == 1


def test_setup_ps1_asks_for_tls_first(tree: Any) -> None:
    text = setup_ps1(settings())
    assert text.isascii()
    assert text.index("SecurityProtocolType]::Tls12") < text.index("System.Net.Http.HttpClient")


# --- as files of the relay ---


async def get(live: Live, name: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=live.url) as client:
        return await client.get(f"/{name}", headers=headers)


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_script_is_served_by_its_settings_alone(live: Live, name: str) -> None:
    answer = await get(live, name)
    assert answer.status_code == 200
    assert answer.text == SCRIPTS[name](live.settings)
    assert answer.headers["content-type"] == TYPES[name]
    assert answer.headers["cache-control"] == "no-cache"
    assert live.settings.server.public_url in answer.text
    for host in ("evil.example", "evil.example/x", "$(id)", "evil.example:8080"):
        other = await get(live, name, host=host, **{"x-forwarded-host": host})
        assert other.text == answer.text or other.status_code == 400
        assert "evil" not in other.text or other.status_code == 400
    assert live.key not in answer.text


@pytest.mark.parametrize("name", SCRIPTS)
async def test_an_unchanged_script_is_not_sent_again(live: Live, name: str) -> None:
    first = await get(live, name)
    again = await get(live, name, **{"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert (await get(live, name, **{"if-none-match": '"other"'})).status_code == 200
    async with httpx.AsyncClient(base_url=live.url) as client:
        head = await client.head(f"/{name}")
    assert (head.status_code, head.content) == (200, b"")


async def test_both_scripts_have_the_same_table() -> None:
    sh, ps1 = setup_sh(settings()), setup_ps1(settings())
    table = clients(settings())
    assert len(table) == 5
    for client in table:
        assert f"Id = '{client.id}'" in ps1
        assert f"    {client.id})" in sh
        for file in client.files:
            assert file.folder in sh
            assert file.folder in ps1
            for edit in file.edits:
                assert sh_text(edit.value) in sh
                assert ps_text(edit.value) in ps1

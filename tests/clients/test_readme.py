"""The README's snippets work as pasted, with this relay's base URL and key."""

import re
import shutil
import sys
import textwrap
from pathlib import Path

import pytest

from tests.clients.programs import run
from tests.fakes.live import Live

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(kind, textwrap.dedent(text)) for _, kind, text in BLOCK.findall(README)]
# A line that ends with an ellipsis is the output of another command.
CURL = [
    line.removeprefix("$ ")
    for _, text in BLOCKS
    for line in text.splitlines()
    if line.removeprefix("$ ").startswith("curl ") and not line.endswith("…")
]
LAST = {  # the end of a complete stream
    "/v1/chat/completions": "data: [DONE]",
    "/v1/responses": "event: response.completed",
}
PYTHON = [text for kind, text in BLOCKS if kind == "python" and "import openai" in text]


def filled_in(text: str, live: Live) -> str:
    assert "http://127.0.0.1:8080" in text
    assert "sk-llmapi-…" in text
    return text.replace("http://127.0.0.1:8080", live.url).replace("sk-llmapi-…", live.key)


def test_the_readme_has_snippets_for_openai_clients() -> None:
    for path in LAST:
        assert any(path in line for line in CURL)
    assert PYTHON


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


@pytest.mark.parametrize("text", PYTHON)
async def test_a_python_snippet_prints_the_answer(live: Live, tmp_path: Path, text: str) -> None:
    ended = await run(sys.executable, "-c", filled_in(text, live), cwd=tmp_path, env={})
    assert (ended.status, ended.err) == (0, "")
    assert "Hello!" in ended.out

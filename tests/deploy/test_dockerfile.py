"""The Dockerfile, read as an engine reads it: its sources exist, and it does not run as root."""

import fnmatch
import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()


def instructions() -> list[tuple[str, str]]:
    """Name and arguments, continued lines joined."""
    lines = [line for line in TEXT.splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.split("\n"))]


def ignored(path: str) -> bool:
    """By .dockerignore, whose last matching line decides."""
    result = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        again, pattern = pattern.startswith("!"), pattern.removeprefix("!").removeprefix("**/")
        parts = [path, *path.split("/")]
        if any(fnmatch.fnmatch(part, pattern) for part in parts):
            result = not again
    return result


def test_every_copied_file_exists_and_is_sent() -> None:
    copies = [shlex.split(rest) for name, rest in instructions() if name == "COPY"]
    sources = [word for words in copies if not words[0].startswith("--from") for word in words[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source
    for path in (".git", "tests", "relay.db", "dist", "relay/__pycache__", ".venv"):
        assert ignored(path), path


def test_each_stage_is_known_and_the_last_is_not_root() -> None:
    names = re.findall(r"^FROM \S+ AS (\w+)$", TEXT, re.MULTILINE)
    for _, rest in instructions():
        for stage in re.findall(r"--from=(\w+)", rest):
            assert stage in names
    last = instructions()
    last = last[max(index for index, (name, _) in enumerate(last) if name == "FROM") :]
    values = dict(last)
    assert values["USER"] == "relay"
    assert "useradd" in values["RUN"]
    assert values["VOLUME"] == "/data"
    assert [name for name, _ in last].index("USER") < [name for name, _ in last].index("CMD")


def test_the_last_stage_has_no_compiler() -> None:
    stages = TEXT.split("\nFROM ")
    assert "build-essential" in stages[1]
    assert "deploy/prefix.py /opt/relay" in stages[1]
    assert "apt-get" not in stages[-1]
    assert "COPY --from=build /opt/relay /opt/relay" in stages[-1]


@pytest.mark.parametrize("name", ["ENTRYPOINT", "CMD", "HEALTHCHECK"])
def test_commands_are_lists_and_get_signals(name: str) -> None:
    [text] = [rest for found, rest in instructions() if found == name]
    command = json.loads(text[text.index("[") :])
    assert all(isinstance(word, str) for word in command)
    if name == "HEALTHCHECK":
        compile(command[2], "HEALTHCHECK", "exec")
    else:
        assert command[0] in ("relay", "serve")

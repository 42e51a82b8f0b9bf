"""Whatever a home had before, `--undo` gives it back to the octet, and a second run changes none.

The relay is a program of that name here: only files matter.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from relay import config
from relay.web.set_up.script import setup_sh
from tests.fakes.live import MODELS

CURL = """#!/bin/sh
while [ $# -gt 1 ]; do
    case $1 in -o) answer=$2 ;; esac
    shift
done
echo 'event: message_stop' > "$answer"
printf 200
"""
KEY = "sk-llmapi-0123456789abcdefghijklmnopqrstuvwxyz_-ABCDE"
SCRIPT = setup_sh(config.parse({"model": MODELS, "plan": [{"id": "free"}]}))

NAMES = st.sampled_from(
    ["env", "apiKeyHelper", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "customApiKeyResponses",
     "approved", "rejected", "provider", "relay", "model", "other"]
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([1, None, "text", 'a"b\\', KEY[-20:], "é"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)
JSON = st.builds(
    lambda document, indent, end: (json.dumps(document, indent=indent) + end).encode(),
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.sampled_from([None, 2, "\t"]),
    st.sampled_from(["", "\n", "\r\n", "\n\n"]),
)
LINES = st.lists(
    st.sampled_from(
        ["model: x", "model:", "  default: y", "providers:", "  relay:", "    name: n", "# about",
         "", "model = 'gpt'", "profile = 'a'", "[model_providers.relay]", "[tools]", "a = '''",
         "RELAY_KEY=old", "export OTHER=1\r", "\tx", "[[a]]", "a: {"]
    ),
    max_size=8,
).map(lambda lines: "\n".join(lines).encode())  # fmt: skip
ANY = st.one_of(JSON, LINES, st.binary(max_size=20), st.none())
FILES = {
    ".claude/settings.json": ANY, ".claude.json": ANY, ".codex/config.toml": ANY,
    ".codex/relay-key": ANY, ".hermes/config.yaml": ANY, ".hermes/.env": ANY,
    ".config/opencode/opencode.json": ANY, ".config/Code/User/settings.json": ANY,
}  # fmt: skip


def run(folder: Path, options: str) -> int:
    command = f"sh setup.sh --client claude-code,vscode,codex,hermes,opencode {options}"
    env = {
        "HOME": str(folder / "home"), "PATH": f"{folder}:{os.environ['PATH']}", "RELAY_KEY": KEY,
        "TMPDIR": str(folder),
    }  # fmt: skip
    done = subprocess.run(command.split(), cwd=folder, env=env, capture_output=True)
    assert done.returncode in (0, 1), done.stderr.decode()
    return done.returncode


def tree(home: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(home)): (
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in home.rglob("*")
    }


@given(st.fixed_dictionaries(FILES), st.sampled_from([0o600, 0o644]))
@settings(max_examples=max(3, settings().max_examples // 16))
def test_every_octet_is_given_back(files: dict[str, bytes | None], mode: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = folder / "home"
        home.mkdir()
        (folder / "setup.sh").write_text(SCRIPT)
        (folder / "curl").write_text(CURL)
        (folder / "curl").chmod(0o755)
        for path, content in files.items():
            if content is not None:
                (home / path).parent.mkdir(parents=True, exist_ok=True)
                (home / path).write_bytes(content)
                (home / path).chmod(mode)
        before = tree(home)
        first = run(folder, "--yes")
        written = tree(home)
        assert run(folder, "--yes") == first
        assert tree(home) == written
        changed = any(not path.startswith(".local") for path in written.keys() - before.keys())
        changed = changed or any(written[path] != before[path] for path in before)
        assert run(folder, "--undo") == (0 if changed else 1)
        assert tree(home) == before
        assert not [path for path in folder.iterdir() if path.name.startswith("relay-setup")]

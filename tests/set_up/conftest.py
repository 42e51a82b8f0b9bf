"""A home with nothing in it, and a relay whose set-up script runs there."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.programs import Ended, run
from tests.fakes.live import Live, RelayWith
from tests.fakes.ports import free_port

# All that the script may need. Nothing else is on its PATH.
TOOLS = (
    "awk", "cat", "chmod", "cmp", "cp", "curl", "date", "dirname", "grep", "id", "mkdir", "mktemp",
    "mv", "readlink", "rm", "rmdir", "sed", "stty", "tr", "uname",
)  # fmt: skip
SHELLS = [name for name in ("dash", "bash", "zsh", "busybox") if shutil.which(name)]
# For tests that start dozens of programs: make thorough runs the other shells.
ONE_SHELL = [
    pytest.param(name, marks=pytest.mark.thorough if SHELLS.index(name) else ()) for name in SHELLS
]
CLIENTS = ("claude", "codex", "hermes", "opencode")


def shell_command(shell: str) -> str:
    """The absolute command of a shell."""
    path = shutil.which(shell)
    assert path is not None
    return f"{path} sh" if shell == "busybox" else path


@dataclass
class Home:
    """A home, its programs, and the relay."""

    live: Live
    folder: Path
    programs: Path

    async def set_up(
        self, options: str = "", *, shell: str = "dash", key: str | None = "", **env: str
    ) -> Ended:
        """Run `curl … | SHELL -s -- OPTIONS`; the key is in its variable, unless it is None."""
        if key is not None:
            env["RELAY_KEY"] = key or self.live.key
        line = f"curl -fsSL {self.live.url}/setup.sh | {shell_command(shell)} -s -- {options}"
        return await self.run(line, **env)

    async def run(self, line: str, **env: str) -> Ended:
        """Run a line of shell, with no terminal."""
        env = {"PATH": str(self.programs), "TMPDIR": str(self.programs.parent), **env}
        return await run("/bin/sh", "-c", line, cwd=self.folder, env=env, wait=60)

    def install(self, *clients: str) -> None:
        """Put programs with these names on the PATH."""
        for client in clients:
            program = self.programs / client
            program.write_text('#!/bin/sh\necho "started $0"\n')
            program.chmod(0o755)

    def write(self, name: str, content: str | bytes, mode: int = 0o644) -> Path:
        """A file that is there before."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def files(self) -> dict[str, tuple[int, bytes | str]]:
        """Every file, link and folder, with its mode and what is in it."""
        found: dict[str, tuple[int, bytes | str]] = {}
        for folder, folders, files in os.walk(self.folder):
            for name in folders + files:
                path = Path(folder, name)
                key = str(path.relative_to(self.folder))
                if path.is_symlink():
                    found[key] = (0, os.readlink(path))
                else:
                    mode = path.stat().st_mode
                    found[key] = (mode, b"" if path.is_dir() else path.read_bytes())
        return found


NewHome = Callable[[Live], Home]


@pytest.fixture
def home_of(tmp_path: Path) -> NewHome:
    """An empty home for a relay."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for tool in TOOLS:
        path = shutil.which(tool)
        if path is None:
            pytest.skip(f"{tool} is not installed")
        (programs / tool).symlink_to(path)
    folder = tmp_path / "home of ada"
    folder.mkdir()
    return lambda live: Home(live, folder, programs)


@pytest.fixture
async def known_address(relay_with: RelayWith) -> Live:
    """A relay that knows the address at which it is reached."""
    port = free_port()
    return await relay_with(
        server={"listen": [f"127.0.0.1:{port}"], "public_url": f"http://127.0.0.1:{port}"}
    )


@pytest.fixture
def home(known_address: Live, home_of: NewHome) -> Home:
    return home_of(known_address)

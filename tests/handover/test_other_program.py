"""A relay that was not started by the link to its version is not taken for the new version."""

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil

from .relays import Relays

PROGRAM = os.path.realpath(sys.executable)


def _write_version(place: Path, name: str) -> None:
    command = place / "versions" / name / "bin" / "relay"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m relay "$@"\n')
    command.chmod(0o755)


async def test_the_command_says_that_another_program_serves(metered: tuple[Path, str]) -> None:
    folder, _ = metered
    path = folder / "relay.toml"
    path.write_text(path.read_text().replace('admin_listen = ""\n', ""))
    place = folder / "opt"
    for name in ("one", "two"):
        _write_version(place, name)
    (place / "current").symlink_to("versions/two")
    (place / "previous").symlink_to("versions/one")
    relays = Relays(folder)
    try:
        await relays.start()
        words = [sys.executable, "-m", "relay", "rollback", "--folder", str(place)]
        done = await asyncio.to_thread(
            subprocess.run, words, cwd=folder, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1
        assert f"one is in place, but {PROGRAM} serves" in done.stderr
        assert "Restart its service" in done.stderr
    finally:
        relays.kill()
        for process in psutil.process_iter():  # the one that serves now is no child of this one
            with contextlib.suppress(psutil.Error):
                if process.cwd() == str(folder):
                    process.kill()

"""The access log as JSON or text, in a file that is opened again on SIGUSR1."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from relay.gateway.access_fields import AccessRecord
from relay.gateway.access_text import access_line
from tests.durability.process import serving, write_settings
from tests.fakes.until import until


def settings_with(folder: Path, log: str) -> None:
    write_settings(folder, "http://127.0.0.1:9")
    path = folder / "relay.toml"
    path.write_text(f"{path.read_text()}\n[log]\n{log}\n")


async def ask(port: int) -> None:
    async with httpx.AsyncClient() as client:
        await client.get(f"http://127.0.0.1:{port}/healthz")


async def test_a_rotated_file_is_opened_again_on_sigusr1(tmp_path: Path) -> None:
    settings_with(tmp_path, 'file = "access.log"')
    file, old = tmp_path / "access.log", tmp_path / "access.log.1"
    with serving(tmp_path) as running:
        await ask(running.port)
        await until(lambda: file.read_text().count("\n") == 1)
        file.rename(old)
        running.signal(signal.SIGUSR1)
        await until(file.exists)
        await ask(running.port)
        await until(lambda: file.read_text().count("\n") == 1)
        running.signal()
        assert await running.exited(within=6) == 0
    assert old.read_text().count("\n") == 1
    assert file.stat().st_mode & 0o777 == 0o640
    assert json.loads(file.read_text())["path"] == "/healthz"
    assert (tmp_path / "out").read_text() == ""


async def test_text_for_people_is_one_line_a_request(tmp_path: Path) -> None:
    write_settings(tmp_path, "http://127.0.0.1:9")
    with serving(tmp_path, ("serve", "--log", "text")) as running:
        await ask(running.port)
        out = tmp_path / "out"
        await until(lambda: "\n" in out.read_text())
    line = out.read_text()
    assert line.count("\n") == 1
    assert " 200 " in line
    assert "/healthz" in line
    assert "\x1b" not in line


def test_a_file_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    settings_with(tmp_path, 'file = "missing/access.log"')
    done = subprocess.run(
        [sys.executable, "-m", "relay", "serve"], cwd=tmp_path, capture_output=True, text=True,
        timeout=20,
    )  # fmt: skip
    assert done.returncode == 2
    assert "log.file" in done.stderr
    assert "create its folder" in done.stderr
    assert "Traceback" not in done.stderr


RECORD = AccessRecord(
    "2026-04-08T12:31:07.000Z", "req_1", "10.0.0.1", "POST", "/v1/messages", 200, "whole",
    user="ada@example.com", model="claude-opus-4-8", upstream="main", input=1204, output=310,
    us=1_240_000,
)  # fmt: skip


def test_a_line_shows_what_a_person_asks_first() -> None:
    assert access_line(RECORD) == (
        "12:31:07 200   1.2s main claude-opus-4-8 1,204 in 310 out ada@example.com /v1/messages"
    )
    assert "\x1b[32m200\x1b[0m" in access_line(RECORD, in_color=True)


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\u202eevil", "\x9b31m"])
def test_no_text_of_a_caller_moves_the_cursor(text: str) -> None:
    record = AccessRecord(
        RECORD.time, "req_1", "10.0.0.1", "POST", f"/{text}", 404, f"refused: {text}"
    )
    line = access_line(record)
    assert text not in line
    assert line.isprintable()

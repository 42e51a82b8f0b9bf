"""relay/docs/operating.md, "Set up a server": each command as it stands there, on a bare machine.

SET_UP_ROOT names a folder with a Debian from an earlier run, which saves its installation.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.bare_machine import (
    ACME_PORT,
    inside,
    make_root,
    missing_tools,
    running_machine,
)
from tests.scoreboard import RecordProperty

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "relay" / "docs" / "operating.md").read_text()
SECONDS = 180

# The one step that a real machine does not need: the authority is not Let's Encrypt.
PRIVATE_AUTHORITY = f"""set -e
sed -i '/^\\[acme\\]/a directory = "https://acme.example:{ACME_PORT}/dir"\\n\
ca = "/usr/local/share/ca-certificates/world.crt"' /etc/relay/relay.toml
relay check >/dev/null
relay reload
"""


def steps() -> list[str]:
    """The commands of the section, in order; continued lines are one."""
    section = PAGE.split("## Set up a server\n")[1].split("\n## ")[0]
    found = []
    for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL):
        text = re.sub(r"\\\n\s*", "", re.sub(r"^ {3}", "", block, flags=re.MULTILINE))
        found += [line[2:] for line in text.splitlines()]
    return found


def test_the_section_has_every_step() -> None:
    words = [step.split()[0] for step in steps()]
    assert words == ["apt-get", "apt-get", "(umask", "curl", "sh", "relay", "curl"]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[int]:
    kept = os.environ.get("SET_UP_ROOT")
    if kept is None:
        make_root(tmp_path / "root")
    else:
        subprocess.run(["cp", "-a", kept, str(tmp_path / "root")], check=True)
    dist = [sys.executable, str(ROOT / "deploy" / "build.py"), "--pythons", "3.11"]
    subprocess.run([*dist, "--output", str(tmp_path / "dist")], check=True, stdout=subprocess.PIPE)
    with running_machine(tmp_path) as leader:
        yield leader


@pytest.mark.long
@pytest.mark.skipif(bool(missing_tools()), reason=f"needs {', '.join(missing_tools())}")
def test_a_bare_machine_streams_over_https_in_three_minutes(
    machine: int, record_property: RecordProperty
) -> None:
    times: list[tuple[str, float]] = []
    began = time.monotonic()

    def run(command: str, stdin: str = "") -> str:
        started = time.monotonic()
        done = inside(machine, command, stdin)
        times.append((command.split("\n")[0][:60], time.monotonic() - started))
        log = inside(machine, "journalctl -u relay --no-pager").stdout
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}\n{log}"
        return done.stdout

    *prepare, paste, fetch, install, doctor, ask = steps()
    for command in prepare:
        run(command)
    run(paste, "sim-key\n")
    run(fetch)
    said = run(install)
    key = re.findall(r"sk-llmapi-\S+", said)[0]
    run(PRIVATE_AUTHORITY)
    first_fault = ""
    while (examined := inside(machine, doctor)).returncode:
        first_fault = first_fault or examined.stdout
        assert time.monotonic() < began + SECONDS, examined.stdout
    times.append((doctor, time.monotonic() - began - sum(seconds for _, seconds in times)))
    answer = run(f"export KEY={key}\n{ask}")
    total = time.monotonic() - began
    assert answer.count("event: content_block_delta") > 1
    assert answer.count("event: message_stop") == 1
    shown = "\n".join(f"{seconds:6.1f} s  {command}" for command, seconds in times)
    print(f"{shown}\n{total:6.1f} s  in all\n{first_fault}\n{examined.stdout}")
    record_property("figure", f"{total:.0f} s from nothing to a streamed answer")
    assert total <= SECONDS
    check_service(machine)


def check_service(machine: int) -> None:
    """It is systemd's, without privileges, starts with the machine, and is asked by its name."""
    shown = inside(
        machine,
        "systemctl show relay --property=ActiveState,User,UnitFileState,NRestarts,StatusText;"
        "systemd-analyze security relay --no-pager | tail -1;"
        "curl -sS -o /dev/null -w '%{http_code} %{http_version} %{ssl_verify_result}\\n' "
        "https://relay.example/healthz; curl -sS -o /dev/null -w '%{http_code}\\n' "
        "http://relay.example/",
    ).stdout
    print(shown)
    assert "User=relay\n" in shown
    assert "ActiveState=active\n" in shown
    assert "UnitFileState=enabled\n" in shown
    assert "NRestarts=0\n" in shown
    assert "200 2 0\n308\n" in shown
    health = json.loads(inside(machine, "relay upstreams --json").stdout)
    assert health

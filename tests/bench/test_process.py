"""What a process costs includes all that it started, and nothing of it is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.process import Process, family
from bench.rivals.relay import TREE

_ORPHAN = """
import os, signal, subprocess
print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
_ENDED = """
import subprocess, sys, threading, time

def spin(clock):
    while clock() < 0.2:
        pass

thread = threading.Thread(target=spin, args=(time.thread_time,))
thread.start()
thread.join()
if sys.argv[1] == "child":
    spin_alone = "import time\\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", spin_alone])
print("done", flush=True)
time.sleep(60)
"""
_DEEP = """
import subprocess, sys, time
held = bytearray(b"x" * (40 << 20))
while time.process_time() < 0.1:
    pass
left = int(sys.argv[1])
if left:
    more = [sys.executable, "-c", sys.argv[2], str(left - 1), sys.argv[2]]
    child = subprocess.Popen(more, stdout=subprocess.PIPE)
    child.stdout.readline()
print("ready", flush=True)
time.sleep(60)
"""
_MOST_S = 30.0


def _printed(process: Process) -> str:
    """The first line of its output, once it is there."""
    deadline = time.monotonic() + _MOST_S
    while "\n" not in (text := process.log.with_suffix(".out").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return text.partition("\n")[0]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _started(folder: Path, script: str, *arguments: str) -> Process:
    core = min(os.sched_getaffinity(0))
    log = folder / f"log-{arguments[0] if arguments else ''}"
    return Process("python", [sys.executable, "-c", script, *arguments], core, log)


def test_children_of_a_process_that_died_are_ended(tmp_path: Path) -> None:
    with _started(tmp_path, _ORPHAN) as process:
        orphan = int(_printed(process))
        while process.running():
            time.sleep(0.01)
        assert _lives(orphan)
    deadline = time.monotonic() + _MOST_S
    while _lives(orphan) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _lives(orphan)


def test_descendants_of_any_depth_are_weighed(tmp_path: Path) -> None:
    with _started(tmp_path, _DEEP, "3", _DEEP) as process:
        _printed(process)
        assert len(family(process.pid)) == 4
        assert process.rss() > 4 * 40 * 2**20
        assert process.cpu_ns() >= 4 * 100_000_000


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_run_while_a_rival_starts(tmp_path: Path, name: str) -> None:
    started = tmp_path / "pid"
    program = tmp_path / "never.sh"
    write = f"echo $$ > {started}.new; mv {started}.new {started}"
    program.write_text(f"#!/bin/sh\n{write}\nsleep 600\n")
    program.chmod(0o755)
    template = tmp_path / "template.toml"
    template.write_text(
        'argv = ["{program}"]\ndialects = ["messages"]\nversion = ["true"]\nready_s = 300\n'
    )
    argv = [sys.executable, "-m", "bench", "--only", "ready", "--json", str(tmp_path / "a.json")]
    argv += ["--rival", f"never={program}:{template}"]
    # A program that was started in the background ignores Ctrl-C.
    bench = subprocess.Popen(
        argv, cwd=TREE, stdout=subprocess.PIPE, text=True, preexec_fn=_heeding_signals
    )
    deadline = time.monotonic() + 2 * _MOST_S
    while not started.exists():
        assert bench.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child = int(started.read_text())
    bench.send_signal(getattr(signal, name))
    printed, _ = bench.communicate(timeout=60)
    assert bench.returncode == 130
    assert "interrupted" in printed
    assert not _lives(child)


def _heeding_signals() -> None:
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_DFL)


def test_the_time_of_a_thread_that_ended_counts(tmp_path: Path) -> None:
    with _started(tmp_path, _ENDED, "thread") as process:
        _printed(process)
        assert process.cpu_ns() >= 200_000_000


def test_the_time_of_a_child_that_ended_counts_once(tmp_path: Path) -> None:
    with _started(tmp_path, _ENDED, "thread") as process:
        _printed(process)
        alone = process.cpu_ns()
    with _started(tmp_path, _ENDED, "child") as process:
        _printed(process)
        # A child's time is known in ticks of 10 ms, and its start is part of it.
        assert 180_000_000 < process.cpu_ns() - alone < 390_000_000

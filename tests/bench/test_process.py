"""What a process costs includes all that it started, and nothing of it is left behind."""

import os
import sys
import time
from pathlib import Path

from bench.process import Process

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
    log = folder / "-".join(("log", *arguments))
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

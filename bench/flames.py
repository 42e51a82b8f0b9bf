"""Flame graphs of relay: which functions call which, and how much of the time each takes.

Decides which programs sample and draw. py-spy sees Python's functions and compiled ones in one
stack. inferno draws them without the threads that only wait; where it is missing, py-spy draws all
threads. Must not know what relay does meanwhile.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.process import BenchError, Process

INSTALL_SPY = "pip install py-spy"
INSTALL_INFERNO = "cargo install inferno --locked"
_HERTZ = 199  # prime, so that it keeps in step with no timer
_WAIT_S = 30.0  # until the graph is written
_INNERMOST = 5  # frames of a stack in which a thread that waits shows it
_WAITS = re.compile(
    r"_queue_SimpleQueue_get|acquire_lock|wait \(threading\.py|epoll_p?wait|_pthread_cond_|"
    r"uv__epoll|select_epoll_poll"
)


def sampler() -> str | None:
    """py-spy, which pip puts beside Python."""
    folders = (os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent))
    return shutil.which("py-spy", path=os.pathsep.join(folders))


def painter() -> str | None:
    """The program of inferno that draws stacks; cargo's folder need not be on PATH."""
    folders = (os.environ.get("PATH", os.defpath), os.path.expanduser("~/.cargo/bin"))
    return shutil.which("inferno-flamegraph", path=os.pathsep.join(folders))


@contextmanager
def sampled(process: Process, graph: Path, title: str) -> Iterator[None]:
    """Sample the process until this is left, then write its flame graph to `graph`.

    Raises:
        BenchError: py-spy is missing, or may not look into the process.
    """
    spy, paint = sampler(), painter()
    if spy is None:
        raise BenchError(f"there is no flame graph: py-spy is not installed ({INSTALL_SPY})")
    graph.parent.mkdir(parents=True, exist_ok=True)
    output = graph if paint is None else graph.with_suffix(".stacks")
    output.unlink(missing_ok=True)
    form = "flamegraph" if paint is None else "raw"
    argv = [spy, "record", "--native", "--nolineno", "--rate", str(_HERTZ), "--duration", "3600"]
    recorder = subprocess.Popen(
        [*argv, "--format", form, "--output", str(output), "--pid", str(process.pid)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    try:
        yield
    finally:
        errors = _ended(recorder)
    if not output.exists():
        raise BenchError(
            "there is no flame graph: py-spy may not look into relay (it takes root, or "
            f"kernel.yama.ptrace_scope = 0): {errors[-300:].strip()}"
        )
    if paint is not None:
        graph.write_bytes(_drawn(paint, working(output.read_text()), title))


def _ended(recorder: subprocess.Popen[bytes]) -> str:
    """Let the recorder write what it has; its messages."""
    recorder.send_signal(signal.SIGINT)
    try:
        _, errors = recorder.communicate(timeout=_WAIT_S)
    except subprocess.TimeoutExpired:
        recorder.kill()
        _, errors = recorder.communicate()
    return errors.decode(errors="replace")


def working(stacks: str) -> str:
    """The stacks of threads that do not wait; a line is `outer;…;inner COUNT`."""
    return "".join(
        f"{line}\n"
        for line in stacks.splitlines()
        if not _WAITS.search(";".join(line.rpartition(" ")[0].split(";")[-_INNERMOST:]))
    )


def _drawn(paint: str, stacks: str, title: str) -> bytes:
    argv = [paint, "--title", title, "--inverted", "--colors", "python", "--countname", "samples"]
    done = subprocess.run(argv, input=stacks.encode(), capture_output=True, timeout=_WAIT_S)
    if done.returncode:
        raise BenchError(f"inferno draws no flame graph: {done.stderr.decode()[-300:].strip()}")
    return done.stdout

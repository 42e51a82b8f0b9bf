"""One relay under callgrind, and its instructions between two marks.

Decides how the process is started and how a count is read. Must not know which requests are sent,
nor how counts are compared. Kernel instructions are not counted.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.process import BenchError, refusal
from bench.rivals.relay import Relay

_START_TIMEOUT_S = 300.0
_TIMEOUT_S = 60.0
_POLL_S = 0.0002
_STEPS = 20  # of the launcher, in a second
_TOTALS = re.compile(r"^totals: (\d+)$", re.MULTILINE)
# Modules that are imported at first use stop the loop for longer than it may stop elsewhere.
_LIMITS = "[server.limits]\n"
_PATIENT = _LIMITS + "loop_lag = 60\n"
_LAUNCHER = Path(__file__).with_name("launcher.py")


def valgrind() -> str | None:
    return shutil.which("valgrind")


class Counted:
    """A relay whose instructions are counted."""

    def __init__(self, relay: Relay, process: subprocess.Popen[bytes], wishes: int, answers: int):
        self.process = process
        self._dump = relay.folder / "callgrind.out"
        self._wishes = wishes
        self._answers = answers
        self._marks = 0

    def mark(self) -> int:
        """The instructions since the last mark."""
        self._wish(b"m")
        self._marks += 1
        return _total(self.dump)

    def run_reference(self) -> None:
        """Let it run plain Python of a fixed amount."""
        self._wish(b"r")

    def pass_second(self) -> None:
        """Let a second pass for its timers."""
        for _ in range(_STEPS):
            self._wish(b"t")
            self.rest()

    def rest(self) -> None:
        """Wait until all of its threads wait."""
        deadline = time.monotonic() + _TIMEOUT_S
        quiet = 0
        while quiet < 2:
            quiet = 0 if self._running() else quiet + 1
            if time.monotonic() > deadline:
                raise BenchError("the relay under callgrind never waits")
            time.sleep(_POLL_S)

    def _running(self) -> bool:
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return any((task / "stat").read_text().rpartition(") ")[2][0] != "S" for task in tasks)

    def _wish(self, wish: bytes) -> None:
        os.write(self._wishes, wish)
        if os.read(self._answers, 1) != wish:
            raise BenchError("the relay under callgrind has ended")

    @property
    def dump(self) -> Path:
        """The counts of the last mark, by function."""
        return self._dump.with_name(f"{self._dump.name}.{self._marks}")


@contextmanager
def counted(relay: Relay) -> Iterator[Counted]:
    """Start `relay` under callgrind; it serves."""
    program = valgrind()
    if program is None:
        raise BenchError("valgrind is not installed (Debian: apt-get install valgrind)")
    relay.config.write_text(relay.settings.replace(_LIMITS, _PATIENT))
    wish_in, wish_out = os.pipe()
    answer_in, answer_out = os.pipe()
    log = relay.folder / "error.log"
    argv = [
        program,
        "--tool=callgrind",
        f"--callgrind-out-file={relay.folder}/callgrind.out",
        "--dump-before=getloadavg",
        relay.build.python, "-P", str(_LAUNCHER), str(wish_in), str(answer_out), *relay.serve(),
    ]  # fmt: skip
    environment = {**relay.environment(), "PYTHONHASHSEED": "0"}
    try:
        with log.open("ab") as errors, (relay.folder / "out.log").open("ab") as out:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, env=environment,
                pass_fds=(wish_in, answer_out), process_group=0,
            )  # fmt: skip
    finally:
        os.close(wish_in)
        os.close(answer_out)
    try:
        _await_ready(process, relay.json_port, log)
        yield Counted(relay, process, wish_out, answer_in)
    finally:
        os.close(wish_out)
        os.close(answer_in)
        process.kill()
        process.wait()


def _await_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while refusal(port, "/readyz"):
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:]
            raise BenchError(f"the relay does not start under callgrind:\n{tail}")
        time.sleep(0.2)


def _total(dump: Path) -> int:
    """The instructions in a dump, which callgrind has written before the mark was answered."""
    found = _TOTALS.search(dump.read_text(errors="replace"))
    if found is None:
        raise BenchError(f"{dump} has no total")
    return int(found[1])

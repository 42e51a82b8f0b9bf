"""Processes on a core of their own, and their costs as /proc has them.

Decides how a process is started, pinned, read and ended. Must not know what it serves.

CPU time is read in nanoseconds from the CPU-time clock of the process and of each of its
descendants, in which threads that have ended still count. The ticks in /proc/PID/stat are 10 ms
each, too coarse for a cost of 20 µs; only children that have ended and been waited for are read
there. Memory is `Rss` of smaps_rollup, since the counter behind VmRSS is kept per CPU
and may be off by hundreds of KiB.
"""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_PROC = Path("/proc")
_STOP_WAIT_S = 5.0
_COMMAND_TIMEOUT_S = 20.0
_POLL_S = 0.001
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_CPU_CLOCK = 2  # CPUCLOCK_SCHED: of all threads, in nanoseconds
# Ends when its parent has ended in any way, and after its time.
_SPIN = """
import os, sys, time
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
parent, end = os.getppid(), time.monotonic() + float(sys.argv[1])
while os.getppid() == parent and time.monotonic() < end:
    for _ in range(100_000):
        pass
"""


class BenchError(Exception):
    """The bench cannot go on, or a measurement is wrong; the message says which."""


@dataclass(frozen=True, slots=True)
class Cores:
    """The core that the proxy has alone, and the core that clients and upstream share."""

    proxy: int
    load: int

    @classmethod
    def choose(cls) -> Self:
        """The last core that this process may use for the proxy, the first one for the load."""
        allowed = sorted(os.sched_getaffinity(0))
        return cls(proxy=allowed[-1], load=allowed[0])

    @property
    def shared(self) -> bool:
        """True on a machine with one core: costs stay right there, but rates mean little."""
        return self.proxy == self.load


class Process:
    """A child process pinned to one core from its first instruction; ended on leaving `with`."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        core: int,
        log: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        before = os.sched_getaffinity(0)
        # A child inherits the affinity, so that none of its threads ever runs on the other core.
        os.sched_setaffinity(0, {core})
        try:
            with log.with_suffix(".out").open("ab") as out, log.open("ab") as errors:
                self.started = time.monotonic()
                self._popen = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    env=None if env is None else dict(env),
                    # Ctrl-C reaches the bench alone, which ends its children in order. A session
                    # of its own would have the same effect, but the kernel divides a core between
                    # sessions first (autogroup), which delays wake-ups by milliseconds.
                    process_group=0,
                )
        except OSError as error:
            raise BenchError(f"{name} cannot be started: {error}") from None
        finally:
            os.sched_setaffinity(0, before)
        _STARTED.add(self)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def ready(
        self, port: int, path: str, within: float = 10.0, tls: ssl.SSLContext | None = None
    ) -> float:
        """Wait until `GET path` is answered with 200; seconds since the start."""
        deadline = self.started + within
        tries = 0
        while self.running():
            tries += 1
            reason = refusal(port, path, tls)
            if not reason:
                return time.monotonic() - self.started
            if time.monotonic() > deadline:
                raise BenchError(
                    f"{self.name} did not answer GET {path} with 200 within {within:g} s "
                    f"({tries} tries, the last: {reason})\n{self.tail()}"
                )
            time.sleep(_POLL_S)
        raise BenchError(
            f"{self.name} ended with status {self._popen.returncode} while starting\n{self.tail()}"
        )

    def running(self) -> bool:
        return self._popen.poll() is None

    def tail(self, lines: int = 15) -> str:
        """The last lines of the standard error of the process."""
        try:
            text = self.log.read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def cpu_ns(self) -> int:
        """CPU time used so far by this process and its descendants, with what has ended of them."""
        return sum(_cpu_ns(pid) for pid in family(self.pid))

    def rss(self) -> int:
        """Resident octets of this process and its descendants; shared pages count in each."""
        return sum(_rss(pid) for pid in family(self.pid))

    def stop(self) -> int:
        """SIGTERM, then SIGKILL after 5 s, also for orphaned children; the exit status."""
        if self.running():
            self._popen.terminate()
            try:
                self._popen.wait(_STOP_WAIT_S)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
        _kill_group(self.pid)
        _STARTED.discard(self)
        return self._popen.returncode


# Processes that run, so that none is left when the bench is interrupted as it starts one.
_STARTED: set[Process] = set()
# The loops that keep cores awake at this moment.
_SPINNERS: dict[int, Process] = {}


class NoProcess(Process):
    """Stands where a proxy would run; it uses nothing and never fails."""

    def __init__(self) -> None:
        self.name = "no proxy"

    def running(self) -> bool:
        return True

    def tail(self, lines: int = 15) -> str:
        return ""

    def cpu_ns(self) -> int:
        return 0

    def rss(self) -> int:
        return 0

    def stop(self) -> int:
        return 0


def stop_all() -> None:
    """End every process that still runs."""
    for process in tuple(_STARTED):
        process.stop()


def interrupted_by_signals() -> None:
    """Let Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt at once, also where nothing awaits.

    Further signals are ignored, so that the processes are ended in order.
    """
    chosen = [one for one in _SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]

    def interrupt(number: int, frame: object) -> None:
        for one in chosen:
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    for one in chosen:
        signal.signal(one, interrupt)


def output(argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """The output of a short command; `nginx -v` prints to standard error.

    Raises:
        BenchError: it cannot be started, fails, or takes too long.
    """
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            env=None if env is None else dict(env),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{' '.join(argv)}: {error}") from None
    if done.returncode:
        raise BenchError(
            f"{' '.join(argv)} ended with status {done.returncode}:\n{done.stderr or done.stdout}"
        )
    return done.stdout or done.stderr


@contextmanager
def awake(cores: Cores, folder: Path, seconds: float) -> Iterator[None]:
    """Keeps both cores from sleeping, by a loop of the lowest priority.

    Waking a sleeping core costs a virtual machine 300 µs, four times the time of a request:
    a latency measured without this is the machine's, not the proxy's.
    """
    with ExitStack() as held:
        for core in {cores.proxy, cores.load}:
            argv = [sys.executable, "-c", _SPIN, f"{seconds:g}"]
            spinner = Process("awake", argv, core, folder / "awake.log")
            _SPINNERS[core] = held.enter_context(spinner)
            held.callback(_SPINNERS.pop, core)
        yield


def pin(core: int) -> None:
    """Keep this process on one core."""
    os.sched_setaffinity(0, {core})


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        for task in _tasks(parent):
            try:
                children = (task / "children").read_text()
            except OSError:
                continue
            found.extend(int(child) for child in children.split())
    return found


def refusal(port: int, path: str, tls: ssl.SSLContext | None = None) -> str:
    """Why `GET path` on 127.0.0.1 is not answered with 200; empty if it is."""
    try:
        with ExitStack() as held:
            peer = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1.0))
            if tls is not None:
                peer = held.enter_context(tls.wrap_socket(peer))
            peer.sendall(
                b"GET %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nconnection: close\r\n\r\n"
                % (path.encode(), port)
            )
            line = peer.recv(64).partition(b"\r\n")[0]
            return "" if line.startswith(b"HTTP/1.1 200") else f"answered {line!r}"
    except OSError as error:
        return str(error)


def free_ports(count: int) -> list[int]:
    """Unused ports on 127.0.0.1; bound at the same time, so that they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for peer in held:
            peer.bind(("127.0.0.1", 0))
        return [int(peer.getsockname()[1]) for peer in held]
    finally:
        for peer in held:
            peer.close()


def busy_ns(core: int) -> tuple[int, int]:
    """Busy time and total time of a core since boot, from /proc/stat in steps of a tick. Time of
    a loop that keeps it awake is not busy."""
    label = f"cpu{core} "
    for line in (_PROC / "stat").read_text().splitlines():
        if line.startswith(label):
            # user nice system idle iowait irq softirq steal (guest times are in user already)
            ticks = [int(field) for field in line.split()[1:9]]
            busy = sum(ticks) - ticks[3] - ticks[4]
            spinner = _SPINNERS.get(core)
            return busy * _TICK_NS - (spinner.cpu_ns() if spinner else 0), sum(ticks) * _TICK_NS
    raise BenchError(f"/proc/stat has no core {core}")


def machine() -> dict[str, str | int]:
    """The machine, for a reader who compares two runs."""
    model = ""
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    system = os.uname()
    return {
        "cpu": model,
        "cores": os.cpu_count() or 1,
        "kernel": f"{system.sysname} {system.release} {system.machine}",
    }


def _tasks(pid: int) -> Iterable[Path]:
    try:
        return list((_PROC / str(pid) / "task").iterdir())
    except OSError:
        return ()


def _cpu_ns(pid: int) -> int:
    """CPU time of a process, and of its children that have ended and been waited for."""
    try:
        # The id of the clock is that of clock_getcpuclockid(3).
        own = time.clock_gettime_ns(~pid << 3 | _CPU_CLOCK)
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0  # it has ended since it was listed
    # cutime and cstime are the fields 16 and 17; the first two are cut off.
    return own + (int(fields[13]) + int(fields[14])) * _TICK_NS


def _rss(pid: int) -> int:
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    return 0


def _kill_group(leader: int) -> None:
    """End what is left of the group of a process that has ended and been waited for."""
    # A pid stays taken while its group has a member: if another process has it, nothing is left.
    if not (_PROC / str(leader)).exists():
        with suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)

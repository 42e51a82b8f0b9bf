"""Instructions per request of one build of the relay, for each kind of request.

Decides how many requests make a count. Must not know how it is compared. Work that
the relay puts off belongs to a request: after the requests two seconds pass, in which they are
summed up, less the cost of two seconds without requests. A count is the median of several, since
the database tidies up now and then. Two runs differ by less than 1 %, whatever else the machine
does.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec

from bench.cost.callgrind import Counted, counted
from bench.cost.functions import Functions, read_calls, read_functions
from bench.cost.lockstep import KINDS, Kind, Lockstep
from bench.rivals.relay import Build, Relay

_WARM = 50  # requests of each kind
_JSON_REQUESTS = 300
STREAM_REQUESTS = 60
_COUNTS = 3
_LATER_SECONDS = 2
_IDLE_SECONDS = 5


class Cost(msgspec.Struct, frozen=True):
    """The figures of one build: instructions outside the kernel."""

    reference: int  # of the reference workload, which differs between builds of Python
    requests: dict[str, int]  # for each kind, of one request


def count(build: Build, folder: Path) -> Cost:
    """Run `build` under callgrind; its database, settings and dumps stay in `folder`.

    Raises:
        BenchError: it does not start, or an answer was wrong.
    """
    with _running(build, folder) as run:
        return run.cost()


def count_functions(build: Build, folder: Path, kind: Kind) -> Functions:
    """The instructions of each function while `build` serves requests of one kind."""
    with _running(build, folder) as run:
        return run.functions(kind)


def count_calls(build: Build, folder: Path) -> dict[str, Counter[str]]:
    """How often each function is called in `STREAM_REQUESTS` requests of each kind."""
    with _running(build, folder) as run:
        return {kind.name: run.calls(kind) for kind in KINDS}


@contextmanager
def _running(build: Build, folder: Path) -> Iterator["Run"]:
    lockstep = Lockstep()
    try:
        relay = Relay(folder, lockstep.port, build=build)
        with counted(relay) as process:
            lockstep.connect(relay.json_port, process.rest)
            yield Run(process, lockstep, relay)
    finally:
        lockstep.close()


class Run:
    """Counts of one process."""

    def __init__(self, process: Counted, lockstep: Lockstep, relay: Relay) -> None:
        self._process = process
        self._lockstep = lockstep
        self._requests = {kind: kind.request(relay.json_port, relay.key) for kind in KINDS}

    def cost(self) -> Cost:
        for kind in KINDS:
            self._send(kind, _WARM)
        self._later(_LATER_SECONDS)
        idle = round(median(self._later(1) for _ in range(_IDLE_SECONDS)))
        requests = {kind.name: self._count(kind, idle) for kind in KINDS}
        self._process.run_reference()
        return Cost(self._process.mark(), requests)

    def functions(self, kind: Kind) -> Functions:
        return read_functions([self._dumped(kind)])

    def calls(self, kind: Kind) -> Counter[str]:
        return read_calls([self._dumped(kind)])

    def _dumped(self, kind: Kind) -> Path:
        """The counts of `STREAM_REQUESTS` requests of one kind."""
        self._send(kind, _WARM)
        self._process.mark()
        self._send(kind, STREAM_REQUESTS)
        self._process.mark()
        return self._process.dump

    def _count(self, kind: Kind, idle: int) -> int:
        number = STREAM_REQUESTS if kind.stream else _JSON_REQUESTS
        counts = []
        for _ in range(_COUNTS):
            self._send(kind, number)
            total = self._process.mark() + self._later(_LATER_SECONDS) - _LATER_SECONDS * idle
            counts.append(total / number)
        return round(median(counts))

    def _send(self, kind: Kind, number: int) -> None:
        for _ in range(number):
            self._lockstep.exchange(kind, self._requests[kind])
        self._process.rest()

    def _later(self, seconds: int) -> int:
        """The instructions in so many seconds without requests."""
        for _ in range(seconds):
            self._process.pass_second()
        return self._process.mark()

"""CPU, memory and descriptors of several processes, from /proc.

Processes are known by a name; one may take the place of another. Decides that the CPU time of
processes that have ended stays counted. Not for the loop: it reads files. Must not know the
processes' work.
"""

import threading
from collections.abc import Mapping
from typing import Final, Literal

from relay.telemetry.exposition import AnyFamily, Family, Labels

_CPU: Final = "process_cpu_seconds"
_START: Final = "process_start_time_seconds"
_TOTALS: Final = {
    "process_virtual_memory_bytes": "Virtual memory of all processes.",
    "process_resident_memory_bytes": "Resident memory of all; shared pages count in each.",
    _START: "When the first process started.",
    _CPU: "CPU time of all processes.",
    "process_open_fds": "Open file descriptors of all processes.",
    "process_max_fds": "The most open file descriptors of all processes.",
}
_OF_EACH: Final = {
    "process_resident_memory_bytes": "Resident memory of each process.",
    _CPU: "CPU time of each process and of those whose place it took.",
    "process_open_fds": "Open file descriptors of each process.",
}


class ProcessTable:
    """Remembers the CPU time that was last read of each process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # each scrape has a thread
        self._cpu: dict[tuple[str, int], float] = {}  # seconds, by name and pid

    def read(self, pids: Mapping[str, int]) -> list[AnyFamily]:
        """The figures of the processes with these names, of which the first started first."""
        found = {name: _read(pid) for name, pid in pids.items()}
        with self._lock:
            for name, values in found.items():
                if _CPU in values:
                    self._cpu[name, pids[name]] = values[_CPU]
            cpu: dict[str, float] = {}
            for (name, _), seconds in self._cpu.items():
                cpu[name] = cpu.get(name, 0.0) + seconds
        for name, seconds in cpu.items():
            found.setdefault(name, {})[_CPU] = seconds
        families = [_total(name, help, found) for name, help in _TOTALS.items()]
        return [*families, *(_of_each(name, help, found) for name, help in _OF_EACH.items())]


def _total(name: str, help: str, found: Mapping[str, dict[str, float]]) -> AnyFamily:
    of_all = [values[name] for values in found.values() if name in values]
    total = of_all[0] if of_all and name == _START else sum(of_all)
    return Family(name, _kind(name), help, values=[((), total)] if of_all else [])


def _of_each(name: str, help: str, found: Mapping[str, dict[str, float]]) -> AnyFamily:
    rows: list[tuple[Labels, float]] = []
    rows += [((process,), one[name]) for process, one in found.items() if name in one]
    return Family(f"relay_{name}", _kind(name), help, ("process",), rows)


def _kind(name: str) -> Literal["counter", "gauge"]:
    return "counter" if name == _CPU else "gauge"


def _read(pid: int) -> dict[str, float]:
    """The values by their names, without `_total`; empty if the process has ended."""
    from prometheus_client import ProcessCollector

    collector = ProcessCollector(registry=None, pid=lambda: pid)
    return {metric.name: metric.samples[0].value for metric in collector.collect()}

"""Allocations per request, counted exactly: the calls of the allocators under callgrind.

Decides which functions allocate what. Must not know how they are counted. Two runs differ by less
than one call, whatever else the machine does.
"""

import tempfile
from collections import Counter
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench.cost.count import STREAM_REQUESTS, count_calls
from bench.rivals.relay import Build

# By what is counted: the functions that Python's allocator, its collector and the C library have
# for it. Larger blocks of Python's allocator come from the C library and count in both.
_COUNTED = {
    "objects": ("_PyObject_Malloc", "_PyObject_Calloc"),
    "of them collected": ("_PyObject_GC_New", "_PyObject_GC_NewVar"),
    "resized": ("_PyObject_Realloc",),
    "freed": ("_PyObject_Free",),
    "malloc": ("malloc", "calloc", "realloc", "memalign", "aligned_alloc", "posix_memalign"),
    "free": ("free",),
}


def allocations(calls: Counter[str], requests: int) -> dict[str, float]:
    """The allocations of each request."""
    return {
        title: sum(calls[name] for name in names) / requests for title, names in _COUNTED.items()
    }


def show(console: Console, builds: list[Build]) -> None:
    """Print the allocations of each build for a request of each kind."""
    table = Table(title="Allocations per request", title_justify="left", box=SIMPLE)
    for column in ("", "build", *_COUNTED):
        table.add_column(column, justify="left" if column in ("", "build") else "right")
    for build in builds:
        with tempfile.TemporaryDirectory(prefix="relay-profile-") as folder:
            counted = count_calls(build, Path(folder))
        for kind, calls in counted.items():
            found = allocations(calls, STREAM_REQUESTS)
            table.add_row(kind, build.name, *(f"{value:,.1f}" for value in found.values()))
    console.print(table)

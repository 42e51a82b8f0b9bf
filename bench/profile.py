"""Where relay's time goes: by function and by part, as flame graphs, and what it allocates.

Decides which functions belong together, and how a profile is shown. perf samples the running
process, the kernel included, at almost no cost. Where it may not run, callgrind counts the
instructions outside the kernel instead. Python's own profiler knows Python's functions alone, and
makes all of them slower.
"""

import pstats
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bench import allocations, flames
from bench.cost.callgrind import valgrind
from bench.cost.count import count_functions
from bench.cost.functions import Functions
from bench.cost.lockstep import KINDS
from bench.process import BenchError, Process, output
from bench.rivals.relay import Relay
from bench.scenarios import PROFILED, upstream_of
from bench.stage import Stage
from bench.stored import RESULTS

_SHOWN = 30  # functions
_WAYS = 3  # to look at relay: flame graph, functions, allocations
_HERTZ = 1997  # prime, so that it keeps in step with no timer
_WRITE_S = 60  # in which perf writes its samples
_ALLOCATION = re.compile(
    r"_?Py(Object|Mem)_(Raw)?(Malloc|Calloc|Realloc|Free)|pymalloc_\w+|_?PyObject_GC_\w+|gc_alloc"
    r"|(__libc_|_int_|__)?(malloc|free|calloc|realloc|memalign)\w*|unlink_chunk.*|tcache_\w+"
    r"|arena_get\w*|sysmalloc|systrim.*"
)
_PARTS = (  # by the name of the object file
    ("interpreter", re.compile(r"libpython3|python3")),
    ("uvloop", re.compile(r"loop\.cpython")),
    ("SQLite", re.compile(r"libsqlite3|_sqlite3\.")),
    ("msgspec", re.compile(r"_core\.cpython")),
    ("orjson", re.compile(r"orjson\.")),
    ("libc", re.compile(r"libc[.-]|ld-linux|libpthread|libm[.-]")),
)
# The kinds of requests that callgrind can count in place of a scenario.
_COUNTED = {
    "json": "messages-json",
    "sse": "messages-sse",
    "chat-json": "chat-json",
    "responses-sse": "responses-sse",
}


def part_of(file: str, function: str, own: frozenset[str]) -> str:
    """The part that a function belongs to; `own` are the names of relay's compiled modules."""
    name = file.rpartition("/")[2]
    if name.startswith("[") or function.startswith("[k]"):
        return "kernel"
    if name in own or "__mypyc." in name:
        return "compiled relay"
    if _ALLOCATION.fullmatch(function.removeprefix("[.] ").partition("@")[0]):
        return "allocation"
    return next((part for part, pattern in _PARTS if pattern.match(name)), "other")


async def profile_natively(stage: Stage, scenarios: tuple[str, ...], console: Console) -> None:
    """Print the functions and parts that take most of the time of each build of relay."""
    perf = _usable_perf()
    if perf is None:
        console.print("perf is missing or may not run here: callgrind counts instructions instead.")
        if valgrind() is None:
            raise BenchError("neither perf nor valgrind is usable: there is no profile")
    for name in PROFILED:
        if name not in scenarios:
            continue
        for rival in stage.testbeds[upstream_of(name)].rivals:
            if isinstance(rival, Relay):
                functions, source = await _functions(stage, name, rival, perf)
                if functions:
                    own = frozenset(path.name for path in rival.build.found().package.rglob("*.so"))
                    _show(console, f"{name}, {rival.name}: {source}", functions, own)


async def _functions(
    stage: Stage, scenario: str, rival: Relay, perf: str | None
) -> tuple[Functions, str]:
    if perf is None:
        kind = next((kind for kind in KINDS if kind.name == _COUNTED.get(scenario)), None)
        if kind is None:
            return Counter(), ""
        with tempfile.TemporaryDirectory(prefix="relay-profile-") as folder:
            return count_functions(rival.build, Path(folder), kind), "instructions of callgrind"
    data = RESULTS / f"perf-{scenario}-{rival.name}.data"
    data.parent.mkdir(parents=True, exist_ok=True)
    with stage.running(rival) as process:
        with _recorded(perf, process, data):
            await PROFILED[scenario](stage, rival, process)
        # perf finds symbols in the files of the process, which is alive here.
        return read_perf(perf, data), f"samples of perf (more: perf report -i {data})"


@contextmanager
def _recorded(perf: str, process: Process, data: Path) -> Iterator[None]:
    """perf samples the process, with the functions that called, until this is left."""
    argv = [perf, "record", "-q", "-e", "cpu-clock", "-F", str(_HERTZ), "-g"]
    recorder = subprocess.Popen(
        [*argv, "-o", str(data), "-p", str(process.pid)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        yield
    finally:
        recorder.send_signal(signal.SIGINT)
        try:
            recorder.wait(_WRITE_S)
        except subprocess.TimeoutExpired:
            recorder.kill()
            recorder.wait()


def read_perf(perf: str, data: Path) -> Functions:
    """The samples of each function by itself."""
    report = ("report", "--no-children", "-g", "none", "--stdio", "-F", "sample,dso,sym", "-t", "|")
    found: Functions = Counter()
    for line in output([perf, *report, "-i", str(data)]).splitlines():
        samples, *where = (part.strip() for part in line.split("|"))
        if len(where) == 2 and samples.isdigit():
            found[where[0], where[1]] += int(samples)
    return found


def _usable_perf() -> str | None:
    """perf, if it is there and the kernel lets it sample."""
    perf = shutil.which("perf")
    if perf is None:
        return None
    with tempfile.TemporaryDirectory(prefix="relay-profile-") as folder:
        try:
            output([perf, "record", "-q", "-e", "cpu-clock", "-o", f"{folder}/data", "true"])
        except BenchError:
            return None
    return perf


def _show(console: Console, title: str, functions: Functions, own: frozenset[str]) -> None:
    total = functions.total()
    parts: Counter[str] = Counter()
    for (file, function), cost in functions.items():
        parts[part_of(file, function, own)] += cost
    table = Table(title=title, box=SIMPLE, pad_edge=False, title_justify="left")
    for column in ("share", "part", "function"):
        table.add_column(column, justify="right" if column == "share" else "left")
    for part, cost in parts.most_common():
        table.add_row(f"{cost / total:.1%}", part, "")
    table.add_section()
    for (file, function), cost in functions.most_common(_SHOWN):
        name = re.sub(r"^\[[.k]\] ", "", function)
        table.add_row(f"{cost / total:.1%}", part_of(file, function, own), name)
    console.print(table)


async def profile_python(stage: Stage, scenarios: tuple[str, ...], console: Console) -> None:
    """Print Python's functions that take most of the time of this tree's relay."""
    for name, round_of in PROFILED.items():
        if name not in scenarios:
            continue
        for rival in stage.testbeds[upstream_of(name)].rivals:
            if not isinstance(rival, Relay) or rival.name != "relay":
                continue
            rival.profile = RESULTS / f"profile-{name}.prof"
            rival.profile.parent.mkdir(parents=True, exist_ok=True)
            rival.profile.unlink(missing_ok=True)
            try:
                with stage.running(rival) as process:
                    await round_of(stage, rival, process)
                    process.stop()
            finally:
                written, rival.profile = rival.profile, None
            if not written.exists():
                raise BenchError(f"relay left no profile: {process.tail()}")
            console.print(f"\n{name}: {written}", highlight=False, soft_wrap=True)
            pstats.Stats(str(written)).sort_stats("tottime").print_stats(25)


async def profile_all(stage: Stage, scenarios: tuple[str, ...], console: Console) -> None:
    """Flame graphs, functions and parts, and allocations per request; what cannot be had is named.

    Raises:
        BenchError: nothing can be had.
    """
    missing: list[str] = []
    try:
        await _draw_flames(stage, scenarios, console)
    except BenchError as error:
        missing.append(str(error))
    try:
        await profile_natively(stage, scenarios, console)
    except BenchError as error:
        missing.append(str(error))
    if valgrind() is None:
        missing.append(
            "allocations are not counted: valgrind is missing (Debian: apt-get install valgrind)"
        )
    else:
        console.print("allocations are counted under valgrind, which takes a minute or two a build")
        testbed = stage.testbeds["simulator"]
        builds = [rival.build for rival in testbed.rivals if isinstance(rival, Relay)]
        allocations.show(console, builds)
    if len(missing) == _WAYS:
        raise BenchError("\n".join(missing))
    for note in missing:
        console.print(f"[yellow]note:[/] {note}", soft_wrap=True, highlight=False)


async def _draw_flames(stage: Stage, scenarios: tuple[str, ...], console: Console) -> None:
    """Write a flame graph of each build in each scenario."""
    if flames.painter() is None:
        note = f"waiting threads are drawn, too, without inferno ({flames.INSTALL_INFERNO})"
        console.print(f"[yellow]note:[/] {note}", soft_wrap=True, highlight=False)
    for name in (one for one in PROFILED if one in scenarios):
        for rival in stage.testbeds[upstream_of(name)].rivals:
            if not isinstance(rival, Relay):
                continue
            graph = RESULTS / f"flames-{name}-{rival.name}.svg"
            with (
                stage.running(rival) as process,
                flames.sampled(process, graph, f"{name}, {rival.name}: {rival.version}"),
            ):
                await PROFILED[name](stage, rival, process)
            console.print(f"flame graph: {graph}", highlight=False, soft_wrap=True)

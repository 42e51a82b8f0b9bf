"""A profile adds up to what was counted, and names the part that a function belongs to."""

from collections import Counter
from pathlib import Path

import pytest

from bench.allocations import allocations
from bench.cost.functions import read_calls, read_functions
from bench.flames import working
from bench.profile import part_of

# As callgrind writes it: a name once, then its number; the line after `calls=` is the call's.
_DUMP = """\
# callgrind format
positions: line
events: Ir
summary: 160

ob=(1) /usr/lib/libpython3.11.so.1.0
fl=(1) ceval.c
fn=(1) _PyEval_EvalFrameDefault
10 100
cob=(2) /usr/lib/libc.so.6
cfi=(2) malloc.c
cfn=(2) malloc
calls=3 20
11 40
+2 10

fn=(3) _PyEval_EvalFrameDefault'2
* 10

ob=(2)
fl=(2)
fn=(2)
20 40

totals: 160
"""


def test_the_functions_of_a_dump_add_up_to_its_total(tmp_path: Path) -> None:
    dump = tmp_path / "callgrind.out.1"
    dump.write_text(_DUMP)
    functions = read_functions([dump])
    assert functions.total() == 160
    assert functions == {
        ("/usr/lib/libpython3.11.so.1.0", "_PyEval_EvalFrameDefault"): 120,
        ("/usr/lib/libc.so.6", "malloc"): 40,
    }
    assert read_functions([dump, dump]).total() == 320


def test_the_calls_in_a_dump_are_counted_by_function(tmp_path: Path) -> None:
    dump = tmp_path / "callgrind.out.1"
    again = "fn=(2)\ncob=(1)\ncfn=(3)\ncalls=4 10\n20 8\ncfn=(2)\ncalls=5 20\n21 9\n\n"
    dump.write_text(_DUMP.replace("totals:", again + "totals:"))
    assert read_calls([dump]) == {"malloc": 8, "_PyEval_EvalFrameDefault": 4}
    assert read_functions([dump]).total() == 160


def test_allocations_are_those_of_one_request() -> None:
    calls = Counter({"_PyObject_Malloc": 120, "_PyObject_Calloc": 6, "malloc": 30, "other": 9})
    found = allocations(calls, 60)
    assert (found["objects"], found["malloc"], found["freed"]) == (2.1, 0.5, 0)


def test_threads_that_wait_are_no_part_of_a_flame_graph() -> None:
    works = [
        "serve (relay/process.py);uv_run (uvloop/loop.so);uv__read (uvloop/loop.so) 9",
        "thread_run;acquire_lock (a.c);run (b.py);execute (c.c);step (d.c);exec (d.c);read 3",
    ]
    waits = [
        "serve (relay/process.py);uv_run (uvloop/loop.so);uv__io_poll;epoll_pwait (libc.so.6) 40",
        "thread_run;_run (executor.py);_queue_SimpleQueue_get (_queuemodule.c);futex (libc.so) 7",
    ]
    assert working("\n".join([waits[0], works[0], waits[1], works[1]])).splitlines() == works


@pytest.mark.parametrize(
    ("file", "function", "part"),
    [
        ("[kernel.kallsyms]", "[k] tcp_sendmsg", "kernel"),
        ("libpython3.11.so.1.0", "[.] _PyEval_EvalFrameDefault", "interpreter"),
        ("/usr/bin/python3.11", "PyDict_New", "interpreter"),
        ("libpython3.11.so.1.0", "[.] _PyObject_Malloc", "allocation"),
        ("libc.so.6", "[.] malloc@@GLIBC_2.2.5", "allocation"),
        ("libc.so.6", "[.] __memmove_avx", "libc"),
        ("loop.cpython-311-x86_64-linux-gnu.so", "[.] uv__read", "uvloop"),
        ("libsqlite3.so.0.8.6", "[.] sqlite3VdbeExec", "SQLite"),
        ("_core.cpython-311-x86_64-linux-gnu.so", "[.] mpack_skip", "msgspec"),
        ("h1.cpython-311-x86_64-linux-gnu.so", "[.] CPyDef_read", "compiled relay"),
        ("/a/8ed1__mypyc.cpython-311-x86_64-linux-gnu.so", "CPyDef_read", "compiled relay"),
        ("libcrypto.so.3", "[.] SHA256", "other"),
    ],
)
def test_a_function_belongs_to_one_part(file: str, function: str, part: str) -> None:
    own = frozenset({"h1.cpython-311-x86_64-linux-gnu.so"})
    assert part_of(file, function, own) == part

"""A profile adds up to what was counted, and names the part that a function belongs to."""

from pathlib import Path

import pytest

from bench.cost.functions import read_functions
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

"""Size, arity and vocabulary of the source, checked by `make lint`.

    python .ci/gates.py [PATH ...]     default: relay bench tests

Limits: a module has at most 450 lines, a function 60 and 6 parameters (a constructor may have
more where the composition root alone calls it), a test's name 60 characters. Words that have
meant too many things in this code are refused as identifiers. Exit status 1 with one line per
fault, in the form `path:line: text`.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

MODULE_LINES = 450
FUNCTION_LINES = 60
PARAMETERS = 6
TEST_NAME = 60

# Too many meanings: say which one it is (stated, started, complete, write, report ...).
REFUSED_WORDS = frozenset({"told", "begun", "whole", "tell"})
VAGUE_MODULES = frozenset(
    {"utils", "util", "helpers", "common", "manager", "service", "base", "misc"}
)

# Built once, by relay.app: each parameter is a part that it is composed of.
COMPOSED = frozenset({"Relay", "Handler", "Router", "Metering", "Dispatch", "Responders", "App"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


def faults(path: Path) -> Iterator[str]:
    """Every fault of one module, as `path:line: text`."""
    source = path.read_text()
    lines = source.count("\n")
    if lines > MODULE_LINES:
        yield f"{path}:1: {lines} lines, {MODULE_LINES} is the limit: is it still one noun?"
    if path.stem in VAGUE_MODULES:
        yield f"{path}:1: the module's name says nothing"
    tree = ast.parse(source)
    composed = {
        id(member)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name in COMPOSED
        for member in node.body
    }
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield from _function_faults(path, node, id(node) in composed)
        for line, name in _names(node):
            if name.strip("_") in REFUSED_WORDS:
                yield f"{path}:{line}: the name {name!r} has too many meanings: use a precise one"


def _function_faults(path: Path, node: Function, composed: bool) -> Iterator[str]:
    where, is_test = f"{path}:{node.lineno}: {node.name}", node.name.startswith("test_")
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    if length > FUNCTION_LINES:
        yield f"{where} has {length} lines, {FUNCTION_LINES} is the limit"
    arguments = node.args
    count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
    first = (arguments.posonlyargs + arguments.args)[:1]
    if first and first[0].arg in ("self", "cls"):
        count -= 1
    if count > PARAMETERS and not is_test and not (composed and node.name == "__init__"):
        yield f"{where} has {count} parameters, {PARAMETERS} is the limit"
    if is_test and len(node.name) > TEST_NAME:
        yield f"{where} has {len(node.name)} characters, {TEST_NAME} is the limit"


def _names(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Identifiers that `node` defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.lineno, node.name
    elif isinstance(node, ast.arg):
        yield node.lineno, node.arg
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.lineno, node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.lineno, node.attr
    elif isinstance(node, ast.ExceptHandler) and node.name:
        yield node.lineno, node.name
    elif isinstance(node, ast.alias) and node.asname:
        yield node.lineno, node.asname


def main(arguments: list[str]) -> int:
    """Check the modules below the paths given; the exit status."""
    found = 0
    for root in arguments or ["relay", "bench", "tests", ".ci"]:
        start = Path(root)
        modules = [start] if start.is_file() else sorted(start.rglob("*.py"))
        for path in modules:
            if ".venv" in path.parts or "node_modules" in path.parts:
                continue
            for fault in faults(path):
                print(fault)
                found += 1
    if found:
        print(f"{found} faults of size, arity or naming", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

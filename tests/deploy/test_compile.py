"""The compiled path: which modules it has, and the shapes that a compiled module must not have."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def compiler() -> Any:
    """deploy/compile.py as a module."""
    spec = importlib.util.spec_from_file_location("deploy_compile", ROOT / "deploy" / "compile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES = [file.relative_to(ROOT) for file in compiler().compiled_modules(ROOT / "relay")]


def _waits(statements: list[Any]) -> bool:
    return any(
        isinstance(node, ast.Await | ast.Yield | ast.YieldFrom | ast.AsyncFor | ast.AsyncWith)
        for statement in statements
        for node in ast.walk(statement)
    )


def faults(tree: ast.Module) -> Iterator[str]:
    """What a compiled module would do otherwise than the same one uncompiled."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Try):
            handlers = [handler.body for handler in node.handlers]
            if any(map(_waits, (*handlers, node.finalbody))):
                # The error would be everybody's until the coroutine goes on, and the context of
                # each later one.
                yield f"line {node.lineno}: it waits while an error is handled"
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            value = ast.unparse(node.value)
            if isinstance(node.value, ast.GeneratorExp) or value.startswith("map("):
                # An error within the iterator would become "not enough values".
                yield f"line {node.lineno}: it unpacks an iterator"
        if isinstance(node, ast.ClassDef) and "dataclass" in str(
            [ast.unparse(decorator) for decorator in node.decorator_list]
        ):
            for statement in node.body:
                if "ClassVar" in ast.unparse(statement).partition("=")[0]:  # it would be a field
                    yield f"line {statement.lineno}: a dataclass with a class attribute"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_compiled_module_behaves_as_its_source(module: Path) -> None:
    assert list(faults(ast.parse((ROOT / module).read_text()))) == []


def test_a_shape_that_compiles_otherwise_is_found() -> None:
    source = """
async def f(w):
    try:
        await w
    except ValueError:
        await w
    a, b = map(int, w)
@dataclass
class C:
    name: ClassVar[str] = ""
"""
    found = sorted(fault.partition(": ")[2] for fault in faults(ast.parse(source)))
    assert found == [
        "a dataclass with a class attribute",
        "it unpacks an iterator",
        "it waits while an error is handled",
    ]


def test_the_path_of_a_request_is_compiled() -> None:
    names = {module.as_posix() for module in MODULES}
    path = ["net/http1", "wire/h1", "gateway/relay", "gateway/attempt", "net/upstream/splice",
            "quota/bucket", "translate/chat/stream", "api/handler"]  # fmt: skip
    assert {f"relay/{name}.py" for name in path} <= names


def test_the_version_says_whether_it_is_compiled() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "relay", "--version"], capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    from relay.wire import chunked

    form = "not compiled" if chunked.__file__.endswith(".py") else "compiled"
    assert shown.startswith("relay, version ")
    assert shown.endswith(f" ({form})\n")

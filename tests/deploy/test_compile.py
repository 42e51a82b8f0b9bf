"""The compiled path: which modules it has, and the shapes that a compiled module must not have."""

import ast
import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
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


def run_compiler(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "deploy" / "compile.py"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=60
    )


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_without_a_c_compiler_the_reason_is_said(tmp_path: Path) -> None:
    done = run_compiler(str(tmp_path / "copy"), PATH=str(tmp_path), CC="gcc -O2")
    assert done.returncode == 2
    assert "there is no C compiler (gcc); Debian: apt-get install build-essential" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "copy").exists()


def test_a_compiler_that_fails_is_named_with_its_words(tmp_path: Path) -> None:
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("Python's headers are not installed")
    broken = script(tmp_path / "broken", "#!/bin/sh\necho no such header >&2\nexit 1\n")
    done = run_compiler("--check", CC=broken)
    assert done.returncode == 2
    assert f"{broken} does not work: no such header;" in done.stderr


def test_without_headers_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "sh")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "/nonexistent")
    why_not = compiler().missing_tool()
    assert why_not is not None
    assert why_not.startswith("there is no Python.h in /nonexistent; Debian:")


def test_without_mypy_the_reason_is_said(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    code = "import compile; print(compile.missing_package())"
    done = subprocess.run(
        [tmp_path / "bin" / "python", "-c", code], cwd=ROOT / "deploy",
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "has no mypyc; pip install --require-hashes -r requirements-compile" in done.stdout


def test_no_folder_is_a_usage_error() -> None:
    done = run_compiler()
    assert done.returncode == 2
    assert "give a folder, or --check" in done.stderr


@pytest.mark.parametrize(
    ("entry", "words"),
    [("versions/1/x", "use relay upgrade"), ("file", "it has other files")],
)
def test_make_install_keeps_a_folder_of_others(tmp_path: Path, entry: str, words: str) -> None:
    (tmp_path / entry).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / entry).touch()
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "prefix.py"), str(tmp_path)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"relay cannot be installed in {tmp_path}: " in done.stderr
    assert words in done.stderr
    assert not (tmp_path / "pyvenv.cfg").exists()


def test_a_folder_that_cannot_be_made_is_a_clear_error() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "prefix.py"), "/proc/relay"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "relay cannot be installed in /proc/relay: " in done.stderr
    assert done.stderr.count("\n") == 2


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    """A limit on the size of files is in place of it: pip does not fit."""
    command = shlex.join([sys.executable, str(ROOT / "deploy" / "prefix.py"), str(tmp_path)])
    done = subprocess.run(["sh", "-c", f"ulimit -f 64; {command}"], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"relay cannot be installed in {tmp_path}: " in done.stderr
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 2


def test_the_next_steps_of_an_install_work_as_pasted() -> None:
    code = "import pathlib, prefix; print(prefix.next_steps(pathlib.Path('/a b')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "deploy",
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    command = done.stdout.splitlines()[0].removeprefix("Try it: ")
    example = "/a b/share/relay/relay.toml"
    assert shlex.split(command) == ["/a b/bin/relay", "demo", "--config", example]

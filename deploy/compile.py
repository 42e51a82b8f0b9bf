"""Compiles the path of a request with mypyc, from the very files that run uncompiled as well.

    python deploy/compile.py FOLDER            a copy, with native modules beside the source
    python deploy/compile.py FOLDER --wheel    a copy, and a wheel in FOLDER/dist
    python deploy/compile.py --check           only whether it can be done here

The environment of the Python that runs this has mypy (requirements-compile.lock). The exit status
is 2 where something is missing, and the message says what.

Decides which modules are compiled. A native module is one library and a stub for each module; an
edited source beside it would be ignored, so the copy is never the tree that is worked on.
"""

import argparse
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
_PACKAGES: Final = ("wire", "quota", "net", "gateway", "pool", "translate")
_MODULES: Final = (
    "api/handler.py",
    "api/router.py",
    "clock.py",
    "cluster/ledger.py",  # its ledger is a subclass of the compiled one
    "cluster/reservations.py",  # and so is its reservation
    "cluster/shares.py",  # and so are its counters
    "errors.py",
    "handover/borrow.py",  # its ledger is a subclass of the compiled one
    "store/batch.py",
    "store/journal.py",
    "store/unfold.py",
    "store/unfolder.py",
    "telemetry/access_log.py",
    "telemetry/histogram.py",
    "workers/admissions.py",
    "workers/inner_exchange.py",  # its exchange is a subclass of the compiled one
    "workers/lending.py",
    "workers/link_journal.py",
    "workers/loans.py",
    "workers/slots.py",
    "workers/worker_admissions.py",
)
# Modules of those packages that stay as they are, beside those that define a `msgspec.Struct`: a
# compiled class loses its types and keywords.
_LEFT_OUT: Final = (
    # Not on the path of a request.
    "net/acme/", "net/asgi.py", "net/certificate_files.py", "net/certificate_source.py",
    "net/descriptors.py", "net/prelude.py", "net/tls.py", "net/upstream/proxy.py",
    "net/upstream/resolver.py", "pool/plan_polling.py", "pool/probing.py", "pool/setup.py",
    # Referred to weakly, which a native class does not allow.
    "net/handshake.py", "wire/repeated_head.py", "quota/plans.py",
)  # fmt: skip
_STRUCT: Final = re.compile(r"^class \w+\(\s*(msgspec\.Struct|LongMembers)", re.MULTILINE)
_OF_THE_PROJECT: Final = (
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md",
    "CONTRIBUTING.md", "relay.toml", "Makefile",
    "relay", "tests", "bench", "deploy", ".ci",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the path of a request.")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--wheel", action="store_true", help="build a wheel in FOLDER/dist")
    parser.add_argument("--check", action="store_true", help="only whether it can be done here")
    options = parser.parse_args()
    if options.folder is None and not options.check:
        parser.error("give a folder, or --check")
    why_not = missing_tool() or missing_package()
    if why_not is not None:
        print(f"relay cannot be compiled here: {why_not}", file=sys.stderr)
        return 2
    return 0 if options.check else compile_copy(options.folder, options.wheel)


def missing_tool() -> str | None:
    """What keeps C from being compiled for this Python; the reason, or None."""
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if shutil.which(command[0]) is None:
        return f"there is no C compiler ({command[0]}); Debian: apt-get install build-essential"
    headers = sysconfig.get_path("include")
    if not Path(headers, "Python.h").exists():
        return f"there is no Python.h in {headers}; Debian: apt-get install python3-dev"
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, "trial.c")
        trial.write_text("#include <Python.h>\n")
        arguments = [f"-I{headers}", "-fPIC", "-shared", str(trial), "-o", f"{folder}/trial.so"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it says nothing"]
        return f"{command[0]} does not work: {lines[0]}; Debian: apt-get install build-essential"
    return None


def missing_package() -> str | None:
    """The package that this Python lacks, in words, or None."""
    for name in ("mypyc", "setuptools", "msgspec"):
        if importlib.util.find_spec(name) is None:
            return (
                f"{sys.executable} has no {name}; "
                "pip install --require-hashes -r requirements-compile.lock"
            )
    return None


def build_wheel_for(python: str, folder: Path) -> Path | str:
    """Build a compiled wheel for another Python, in a new folder, with an environment of its own.

    Returns the wheel, or why there is none.
    """
    code = "import compile; print(compile.missing_tool() or '')"
    found = subprocess.run(  # noqa: S603
        [python, "-c", code], cwd=ROOT / "deploy", capture_output=True, text=True, check=False
    )
    why_not = found.stdout.strip() if found.returncode == 0 else f"{python} does not run"
    if why_not:
        return why_not
    own = folder / "environment"
    pip = [f"{own}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    made = subprocess.run([python, "-m", "venv", str(own)], capture_output=True, check=False)  # noqa: S603
    if made.returncode:
        return f"{python} makes no virtual environment; Debian: apt-get install python3-venv"
    locked = ["--require-hashes", "-r", str(ROOT / "requirements-compile.lock")]
    subprocess.run([*pip, *locked], check=True)  # noqa: S603
    command = [f"{own}/bin/python", str(Path(__file__).resolve()), str(folder / "copy"), "--wheel"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    [wheel] = (folder / "copy" / "dist").glob("*.whl")
    return wheel


def compiled_modules(package: Path) -> Iterator[Path]:
    """The modules of the package that are compiled."""
    for name in _MODULES:
        yield package / name
    for folder in _PACKAGES:
        for file in sorted((package / folder).rglob("*.py")):
            name = file.relative_to(package).as_posix()
            left_out = file.name == "__init__.py" or name.startswith(_LEFT_OUT)
            if not left_out and not _STRUCT.search(file.read_text()):
                yield file


def copy_project(target: Path) -> None:
    """Copy the project into a folder; what else is there stays, such as an earlier build."""
    target.mkdir(parents=True, exist_ok=True)
    for name in _OF_THE_PROJECT:
        source = ROOT / name
        if source.is_dir():
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copyfile(source, target / name)


def compile_copy(target: Path, wheel: bool) -> int:
    """Copy the project into a folder, and compile it there; the exit status."""
    try:
        copy_project(target)
    except OSError as error:
        print(f"relay cannot be compiled in {target}: {error.strerror or error}", file=sys.stderr)
        return 2
    code = f"import sys; sys.path.insert(0, 'deploy'); import compile; compile.build({wheel})"
    # The order of sets shows in the C code: the same source gives the same octets.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-W", "ignore", "-c", code]  # setuptools warns of its own commands
    done = subprocess.run(command, cwd=target, env=environment, check=False)  # noqa: S603
    return done.returncode


def build(wheel: bool) -> None:
    """Compile the project in the working directory: in place, or as a wheel."""
    from mypyc.build import mypycify
    from setuptools import setup

    os.environ["MYPYPATH"] = str(_true_stubs())
    modules = [file.as_posix() for file in compiled_modules(Path("relay"))]
    extensions = mypycify(
        ["--config-file=pyproject.toml", *modules],
        opt_level="3", group_name="relay", multi_file=True,
    )  # fmt: skip
    for extension in extensions:
        arguments = [word for word in extension.extra_compile_args if word != "-Werror"]
        if wheel:  # without names and symbols of this machine, and a quarter of the size
            arguments += ["-g0", f"-ffile-prefix-map={Path.cwd()}=."]
            extension.extra_link_args = ["-s"]
            os.environ["LDSHARED"] = _without_search_paths(sysconfig.get_config_var("LDSHARED"))
        extension.extra_compile_args = arguments
    if wheel:
        setup(script_args=["--quiet", "bdist_wheel", "--dist-dir", "dist"], ext_modules=extensions)
    else:
        arguments = ["--quiet", "build_ext", "--inplace"]
        setup(name="relay", script_args=arguments, ext_modules=extensions, packages=[])


def _without_search_paths(linker: str | None) -> str:
    """A linker's command without the folders in which a library is to look for others: some Pythons
    name those of the machine that they were built on."""
    words = shlex.split(linker or "cc -shared")
    return shlex.join([word for word in words if not word.startswith("-Wl,-rpath")])


def _true_stubs() -> Path:
    """The stubs of msgspec, in which `Raw` is what it is when it runs: no `bytes`.

    A compiled function would refuse a `Raw` where its own type says `bytes`, which type checkers
    allow by msgspec's stubs. Returns the folder they are in.
    """
    import msgspec

    folder = Path("build", "stubs").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "msgspec").mkdir(parents=True)
    installed = Path(str(msgspec.__file__)).parent
    for file in (*installed.glob("*.pyi"), installed / "py.typed"):
        shutil.copyfile(file, folder / "msgspec" / file.name)
    module = folder / "msgspec" / "__init__.pyi"
    buffer = "class Raw:\n    def __buffer__(self, flags: int, /) -> memoryview: ..."
    text = module.read_text()
    assert "class Raw(bytes):" in text
    module.write_text(text.replace("class Raw(bytes):", buffer))
    return folder


if __name__ == "__main__":
    sys.exit(main())

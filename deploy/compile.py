"""Compiles the path of a request with mypyc, from the very files that run uncompiled as well.

    python deploy/compile.py FOLDER [--wheel]

FOLDER gets a copy of the project with native modules beside the source; the environment of the
Python that runs this has mypy (requirements-compile.lock). `--wheel` builds a wheel there too.

Decides which modules are compiled. A native module is one library and a stub for each module; an
edited source beside it would be ignored, so the copy is never the tree that is worked on.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
_PACKAGES: Final = ("wire", "quota", "net", "gateway", "pool", "translate")
_MODULES: Final = (
    "api/handler.py",
    "api/router.py",
    "clock.py",
    "errors.py",
    "handover/borrow.py",  # its ledger is a subclass of the compiled one
    "store/batch.py",
    "store/journal.py",
    "store/unfold.py",
    "store/unfolder.py",
    "telemetry/access_log.py",
    "telemetry/histogram.py",
)
# Modules of those packages that stay as they are, beside those that define a `msgspec.Struct`: a
# compiled class loses its types and keywords.
_LEFT_OUT: Final = (
    # Not on the path of a request.
    "net/acme/", "net/asgi.py", "net/certificate_files.py", "net/certificate_source.py",
    "net/descriptors.py", "net/prelude.py", "net/tls.py", "net/upstream/proxy.py",
    "net/upstream/resolver.py", "pool/plan_polling.py", "pool/probing.py", "pool/setup.py",
    # Referred to weakly, which a native class does not allow.
    "net/handshake.py", "quota/plans.py",
)  # fmt: skip
_STRUCT: Final = re.compile(r"^class \w+\(\s*(msgspec\.Struct|LongMembers)", re.MULTILINE)
_OF_THE_PROJECT: Final = (
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md",
    "CONTRIBUTING.md", "relay.toml", "Makefile",
    "relay", "tests", "bench", "deploy", ".ci",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the path of a request.")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    return compile_copy(options.folder)


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


def compile_copy(target: Path) -> int:
    """Copy the project into a folder, and compile it there."""
    target.mkdir(parents=True, exist_ok=True)
    for name in _OF_THE_PROJECT:
        source = ROOT / name
        if source.is_dir():
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copyfile(source, target / name)
    code = "import sys; sys.path.insert(0, 'deploy'); import compile; compile.build()"
    return subprocess.run([sys.executable, "-c", code], cwd=target, check=False).returncode  # noqa: S603


def build() -> None:
    """Compile the project in the working directory, in place."""
    from mypyc.build import mypycify
    from setuptools import setup

    os.environ["MYPYPATH"] = str(_true_stubs())
    modules = [file.as_posix() for file in compiled_modules(Path("relay"))]
    extensions = mypycify(
        ["--config-file=pyproject.toml", *modules],
        opt_level=os.environ.get("RELAY_OPT", "3"), group_name="relay", multi_file=True,
    )  # fmt: skip
    for extension in extensions:
        extension.extra_compile_args = [
            argument for argument in extension.extra_compile_args if argument != "-Werror"
        ]
    setup(name="relay", script_args=["build_ext", "--inplace"], ext_modules=extensions, packages=[])


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

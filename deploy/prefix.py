"""Installs relay from this source into a folder, compiled where that can be done: `make install`.

    python deploy/prefix.py FOLDER [--extras cluster]

FOLDER becomes a virtual environment of its own, with the locked packages, and relay.toml as the
example to copy. It may be one that this made before, and keeps the extra that it has. The extra
`cluster` is the client of PostgreSQL, for relays that share a ledger. The exit status is 2 if the
folder cannot be written, or has other files.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Final

import compile

ROOT: Final = Path(__file__).parents[1]
_EXAMPLE: Final = "share/relay/relay.toml"
_CLUSTER: Final = "cluster"
_CLUSTER_PACKAGE: Final = "psycopg"


def main() -> int:
    parser = argparse.ArgumentParser(description="Install relay from this source into a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--extras", choices=[_CLUSTER])
    options = parser.parse_args()
    prefix = options.folder.expanduser().absolute()
    try:
        why_not = _unfit(prefix)
        if why_not is None:
            venv.create(prefix, symlinks=True, with_pip=True)
    except OSError as error:
        why_not = error.strerror or str(error)
    except subprocess.CalledProcessError as error:  # ensurepip, with its output
        why_not = error.output.decode(errors="replace").strip().rpartition("\n")[2]
    if why_not is not None:
        print(f"relay cannot be installed in {prefix}: {why_not}", file=sys.stderr)
        print("Choose another folder: make install PREFIX=$HOME/relay", file=sys.stderr)
        return 2
    try:
        _install(prefix, with_cluster=options.extras == _CLUSTER or _has_cluster(prefix))
    except subprocess.CalledProcessError as error:
        print(f"relay is not installed: {error.cmd[0]} failed", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"relay is not installed: {error}", file=sys.stderr)
        return 1
    subprocess.run([prefix / "bin" / "relay", "--version"], check=True)  # noqa: S603
    print(next_steps(prefix))
    return 0


def next_steps(prefix: Path) -> str:
    """Commands for a shell: the folder's name may have blanks."""
    relay, example = (shlex.quote(f"{prefix}/{name}") for name in ("bin/relay", _EXAMPLE))
    return (
        f"Try it: {relay} demo --config {example}\n"
        f"Or copy {example}, change it, and: {relay} serve --config COPY"
    )


def _unfit(prefix: Path) -> str | None:
    """Makes the folder; returns why it must not be used."""
    prefix.mkdir(parents=True, exist_ok=True)
    if (prefix / "versions").is_dir():
        return "install.sh has installed a service there; use relay upgrade"
    if any(prefix.iterdir()) and not (prefix / "pyvenv.cfg").exists():
        return "it has other files"
    with tempfile.TemporaryFile(dir=prefix):
        return None


def _has_cluster(prefix: Path) -> bool:
    """Whether an earlier installation has the extra."""
    return any(prefix.glob(f"lib/python*/site-packages/{_CLUSTER_PACKAGE}"))


def _install(prefix: Path, *, with_cluster: bool) -> None:
    """Install the locked packages, and relay."""
    python = str(prefix / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    locked = f"requirements-{_CLUSTER}.lock" if with_cluster else "requirements.lock"
    _run(*pip, "--require-hashes", "-r", str(ROOT / locked))
    with tempfile.TemporaryDirectory(prefix="relay-install-") as folder:
        if compile.missing_tool() is None:
            print("Compiling takes some minutes.", flush=True)
        built = compile.build_wheel_for(sys.executable, Path(folder))
        if isinstance(built, str):
            print(f"relay is installed uncompiled: {built}", file=sys.stderr)
            built = Path(folder, "plain")
            compile.copy_project(built)
        example = prefix / _EXAMPLE
        example.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "relay.toml", example)
        again = "--force-reinstall"  # the version's number may be the same
        _run(*pip, again, "--no-deps", "--no-build-isolation", str(built))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())

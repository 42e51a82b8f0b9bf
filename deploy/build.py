"""Builds everything that is given to others, into dist/: `make dist`.

    relay-VERSION-py3-none-any.whl, relay-VERSION.tar.gz
    relay-VERSION-cp311-….whl  the path of a request compiled, for each Python that is here with
                               its headers and a C compiler; the output says which are not
    relay.pyz                  the command and its dependencies, for CPython on this platform, with
                               those compiled modules
    install.sh, SHA256SUMS

The same commit gives the same octets: all times are SOURCE_DATE_EPOCH, by default the commit's.
For compiled modules that takes the same Python, C compiler and C library, too.
"""

import argparse
import gzip
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import compile

ROOT: Final = Path(__file__).parents[1]
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")  # that relay.pyz has native modules for
_SHEBANG: Final = b"#!/usr/bin/env python3\n"
# Files of pip's in .dist-info; they name folders of this machine.
_OF_THIS_MACHINE: Final = ("direct_url.json", "RECORD", "REQUESTED", "INSTALLER")
_MIN_EPOCH: Final = 315_532_800  # 1980, where the times of zip files begin


def main() -> int:
    parser = argparse.ArgumentParser(description="Build relay's wheel, sdist, pyz and checksums.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument("--pythons", default=",".join(PYTHONS), help="for relay.pyz")
    options = parser.parse_args()
    output: Path = options.output
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    epoch = source_date_epoch()
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch)
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="relay-dist-") as folder:
        source = Path(folder, "source")
        copy_source(source)
        wheel = build_wheel_and_sdist(source, output, epoch)
        libraries = Path(folder, "lib")
        pythons = options.pythons.split(",")
        compiled = build_compiled_wheels(Path(folder), output, pythons)
        wheels = {python: compiled.get(python, wheel) for python in pythons}
        collect_libraries(wheels, libraries)
        build_pyz(libraries, output / "relay.pyz", pythons, epoch)
    shutil.copyfile(ROOT / "deploy" / "install.sh", output / "install.sh")
    (output / "install.sh").chmod(0o755)
    write_checksums(output)
    for file in sorted(output.iterdir()):
        print(f"{file.stat().st_size:>12,}  {file.name}")
    return 0


def source_date_epoch() -> int:
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        try:
            given = _output("git", "log", "-1", "--format=%ct")
        except (OSError, subprocess.CalledProcessError):  # an sdist has no history
            given = "0"
    return max(int(given), _MIN_EPOCH)


def _output(*command: str) -> str:
    result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603
    return result.stdout.strip()


def copy_source(target: Path) -> None:
    """Copy the files of the package, with the same modes everywhere."""
    names = ["pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "relay.toml"]
    files = [ROOT / name for name in names]
    files += [
        file
        for file in sorted((ROOT / "relay").rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    ]
    for file in files:
        place = target / file.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
        place.chmod(0o644)


def build_wheel_and_sdist(source: Path, output: Path, epoch: int) -> Path:
    """Returns the wheel."""
    code = (
        "import sys; from setuptools import build_meta as b; target = sys.argv[1]; "
        "b.build_sdist(target); b.build_wheel(target)"  # either changes sys.argv
    )
    subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, str(output)], cwd=source, check=True, capture_output=True
    )
    [sdist] = output.glob("*.tar.gz")
    _normalise(sdist, epoch)
    [wheel] = output.glob("*.whl")  # the only one until now
    return wheel


def build_compiled_wheels(work: Path, output: Path, pythons: list[str]) -> dict[str, Path]:
    """The compiled wheel for each Python that can be compiled for; prints which cannot, and why."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    result = {}
    for python in pythons:
        program = sys.executable if python == here else shutil.which(f"python{python}")
        built: Path | str = f"there is no python{python}"
        if program is not None:
            folder = work / f"compiled-{python}"
            folder.mkdir()
            built = compile.build_wheel_for(program, folder)
        if isinstance(built, str):
            print(f"not compiled for Python {python}: {built}", flush=True)
        else:
            print(f"compiled for Python {python}", flush=True)
            result[python] = Path(shutil.copy(built, output))
    return result


def _normalise(sdist: Path, epoch: int) -> None:
    """Write an sdist again, without times, users and modes of this machine."""
    with tarfile.open(sdist) as archive:
        entries = sorted(archive.getmembers(), key=lambda entry: entry.name)
        contents = [archive.extractfile(entry) if entry.isfile() else None for entry in entries]
        with (
            sdist.with_suffix(".new").open("wb") as file,
            gzip.GzipFile("", "wb", mtime=epoch, fileobj=file) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as result,
        ):
            for entry, content in zip(entries, contents, strict=True):
                clean = tarfile.TarInfo(entry.name)
                clean.size, clean.type, clean.mtime = entry.size, entry.type, epoch
                clean.mode = 0o755 if entry.isdir() else 0o644
                result.addfile(clean, content)
    sdist.with_suffix(".new").replace(sdist)


def collect_libraries(wheels: dict[str, Path], target: Path) -> None:
    """Install the wheel and its dependencies, for each Python, into one folder.

    Native modules have the Python's version in their names, so they stand side by side.
    """
    for python, wheel in wheels.items():
        folder = target.with_name(f"lib-{python}")
        pip = [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--no-compile", "--no-deps", "--target", str(folder), "--python-version", python,
            "--implementation", "cp", "--only-binary", ":all:",
        ]  # fmt: skip
        machine = platform.machine()
        for tag in ("manylinux_2_28", "manylinux_2_17", "manylinux2014"):
            pip += ["--platform", f"{tag}_{machine}"]
        pip += ["--platform", f"linux_{machine}"]  # relay's own
        locked = ["--require-hashes", "-r", str(ROOT / "requirements-cluster.lock")]
        subprocess.run([*pip, *locked], check=True)  # noqa: S603
        shutil.rmtree(folder / "bin", ignore_errors=True)  # unneeded, and pip warns of it
        subprocess.run([*pip, str(wheel)], check=True)  # noqa: S603
        _merge(folder, target)


def _merge(folder: Path, target: Path) -> None:
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        unneeded = name.parts[0] in ("bin", "setuptools", "_distutils_hack", "pkg_resources")
        if not file.is_file() or unneeded or "__pycache__" in name.parts:
            continue
        if ".dist-info" in name.parts[0] and name.name in _OF_THIS_MACHINE:
            continue
        if name.parts[0].startswith("setuptools-") or name.name == "distutils-precedence.pth":
            continue
        place = target / name
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        elif ".dist-info" not in name.parts[0] and place.read_bytes() != file.read_bytes():
            raise SystemExit(f"{name} differs between Python versions")


def build_pyz(libraries: Path, target: Path, pythons: list[str], epoch: int) -> None:
    """A zip file that Python runs: bootstrap, BUILD, and the libraries below lib/."""
    bootstrap = (ROOT / "deploy" / "bootstrap.py").read_bytes()
    files = [file for file in sorted(libraries.rglob("*")) if file.is_file()]
    digest = hashlib.sha256(bootstrap)
    for file in files:
        digest.update(f"{file.relative_to(libraries)}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    build = f"relay-{digest.hexdigest()[:16]} {platform.machine()} {' '.join(pythons)}\n"

    def entries() -> Iterator[tuple[str, bytes]]:
        yield "__main__.py", bootstrap
        yield "BUILD", build.encode()
        for file in files:
            yield f"lib/{file.relative_to(libraries).as_posix()}", file.read_bytes()

    moment = time.gmtime(epoch)[:6]
    with target.open("wb") as result:
        result.write(_SHEBANG)
        with zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
            for name, octets in entries():
                entry = zipfile.ZipInfo(name, moment)
                entry.external_attr = 0o100644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                packed.writestr(entry, octets, compresslevel=9)
    target.chmod(0o755)


def write_checksums(output: Path) -> None:
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(output.iterdir())
    ]
    (output / "SHA256SUMS").write_text("".join(lines))


if __name__ == "__main__":
    sys.exit(main())

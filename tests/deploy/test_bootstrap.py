"""The first code of relay.pyz: unpacked once, safely, and refused with one line where it cannot."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
TAG = HERE.replace(".", "")
COMMAND = """import os, sys
def main(prog_name):
    print(prog_name, os.path.dirname(os.path.dirname(__file__)), sys.argv[1:])
"""


def archive(folder: Path, *, pythons: str = HERE, machine: str = "", build: str = "1") -> Path:
    """A small relay.pyz, with native modules that are none."""
    target = folder / "relay.pyz"
    with zipfile.ZipFile(target, "w") as packed:
        packed.write(ROOT / "deploy" / "bootstrap.py", "__main__.py")
        packed.writestr("BUILD", f"relay-{build} {machine or os.uname().machine} {pythons}\n")
        packed.writestr("lib/relay/__init__.py", "")
        packed.writestr("lib/relay/cli.py", COMMAND)
        packed.writestr(f"lib/a.cpython-{TAG}-x86_64-linux-gnu.so", "mine")
        packed.writestr("lib/a.cpython-39-x86_64-linux-gnu.so", "another's")
    return target


def start(
    pyz: Path, *arguments: str, python: str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, str(pyz), *arguments],
        capture_output=True, text=True, timeout=30, env={"PATH": os.defpath, **environment},
    )  # fmt: skip


def test_it_is_unpacked_once_and_run(tmp_path: Path) -> None:
    cache = tmp_path / "cache-folder"
    pyz = archive(tmp_path)
    first = start(pyz, "serve", "--x", RELAY_CACHE=str(cache))
    folder = cache / f"relay-1-{HERE}"
    assert first.stdout == f"relay {folder} ['serve', '--x']\n"
    assert sorted(entry.name for entry in folder.glob("*.so")) == [
        f"a.cpython-{TAG}-x86_64-linux-gnu.so"
    ]
    (folder / "mark").touch()
    assert start(pyz, RELAY_CACHE=str(cache)).stdout == f"relay {folder} []\n"
    assert (folder / "mark").exists()
    assert [entry.name for entry in cache.iterdir()] == [folder.name]
    assert cache.stat().st_mode & 0o777 == 0o700


def with_compiled(folder: Path, library: bytes) -> Path:
    """A small relay.pyz with `library` in the place of relay's own."""
    target = archive(folder)
    with zipfile.ZipFile(target, "a") as packed:
        packed.writestr(f"lib/relay__mypyc.cpython-{TAG}-x86_64-linux-gnu.so", library)
        packed.writestr(f"lib/relay/wire/h1.cpython-{TAG}-x86_64-linux-gnu.so", "a stub")
        packed.writestr("lib/relay/wire/h1.py", "")
    return target


def native_names(cache: Path) -> list[str]:
    return sorted(file.name.partition(".")[0] for file in cache.rglob("*.so"))


def test_modules_that_do_not_load_are_left_out(tmp_path: Path) -> None:
    pyz = with_compiled(tmp_path, b"for another C library")
    result = start(pyz, RELAY_CACHE=str(tmp_path / "cache-folder"))
    assert result.stdout.startswith("relay "), result.stderr
    assert result.stderr == ""
    assert native_names(tmp_path / "cache-folder") == ["a"]
    assert list((tmp_path / "cache-folder").rglob("h1.py"))


def test_modules_that_load_are_kept(tmp_path: Path) -> None:
    source = tmp_path / "library.c"
    source.write_text(
        "#include <Python.h>\n"
        'static struct PyModuleDef it = {PyModuleDef_HEAD_INIT, "relay__mypyc"};\n'
        "PyMODINIT_FUNC PyInit_relay__mypyc(void) { return PyModule_Create(&it); }\n"
    )
    headers = f"-I{sysconfig.get_path('include')}"
    command = ["cc", headers, "-fPIC", "-shared", str(source), "-o", str(tmp_path / "library")]
    if shutil.which("cc") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("there is no C compiler, or no Python.h")
    pyz = with_compiled(tmp_path, (tmp_path / "library").read_bytes())
    result = start(pyz, RELAY_CACHE=str(tmp_path / "cache-folder"))
    assert result.stdout.startswith("relay "), result.stderr
    assert native_names(tmp_path / "cache-folder") == ["a", "h1", "relay__mypyc"]


def test_many_first_starts_at_once_agree(tmp_path: Path) -> None:
    pyz = archive(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        starts = [
            pool.submit(start, pyz, RELAY_CACHE=str(tmp_path / "cache-folder")) for _ in range(8)
        ]
    assert len({one.result().stdout for one in starts}) == 1
    assert [entry.name for entry in (tmp_path / "cache-folder").iterdir()] == [f"relay-1-{HERE}"]


def test_the_cache_of_an_old_build_is_deleted(tmp_path: Path) -> None:
    cache = tmp_path / "cache-folder"
    start(archive(tmp_path, build="1"), RELAY_CACHE=str(cache))
    start(archive(tmp_path, build="2"), RELAY_CACHE=str(cache))
    os.utime(cache / f"relay-1-{HERE}", (0, 0))
    start(archive(tmp_path, build="3"), RELAY_CACHE=str(cache))
    assert {entry.name for entry in cache.iterdir()} == {f"relay-2-{HERE}", f"relay-3-{HERE}"}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"CACHE_DIRECTORY": "{}/systemd"}, "systemd"),
        ({"XDG_CACHE_HOME": "{}/xdg"}, "xdg/relay"),
        ({"HOME": "{}/home"}, "home/.cache/relay"),
        ({"HOME": "/nonexistent", "TMPDIR": "{}"}, f"relay-{os.getuid()}"),
        ({"CACHE_DIRECTORY": "/proc/none", "HOME": "{}/home"}, "home/.cache/relay"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, environment: dict[str, str], place: str
) -> None:
    changed = {name: value.format(tmp_path) for name, value in environment.items()}
    result = start(archive(tmp_path), **changed)
    assert result.stdout == f"relay {tmp_path / place / f'relay-1-{HERE}'} []\n", result.stderr


def test_a_cache_beside_it_is_preferred(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o755)
    result = start(archive(tmp_path), HOME=str(tmp_path))
    assert str(tmp_path / "cache" / "relay-1-") in result.stdout


def test_a_folder_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    cache = tmp_path / "open"
    cache.mkdir()
    cache.chmod(0o777)
    result = start(archive(tmp_path), RELAY_CACHE=str(cache))
    assert result.returncode == 1
    assert "other users can write there); set RELAY_CACHE" in result.stderr
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pythons": "3.99 3.100"}, f"no modules for cpython {HERE}; it runs on CPython 3.99,"),
        ({"machine": "mips"}, "is for Linux on mips; this is linux on"),
    ],
)
def test_what_it_cannot_run_on_is_said(tmp_path: Path, options: dict[str, str], words: str) -> None:
    result = start(archive(tmp_path, **options), RELAY_CACHE=str(tmp_path / "cache-folder"))
    assert (result.returncode, result.stdout) == (1, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8", "3.9", "3.10"])
def test_an_old_python_gets_a_message(tmp_path: Path, version: str) -> None:
    old = shutil.which(f"python{version}")
    if old is None or start(Path("--version"), python=old, **os.environ).returncode:
        pytest.skip(f"python{version} is not installed")
    result = start(archive(tmp_path), python=old, **os.environ)
    assert result.returncode == 1
    assert result.stderr == (
        f"relay: this relay.pyz needs Python 3.11 or newer; this is {version}\n"
    )

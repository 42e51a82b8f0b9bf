"""A new version has the client of PostgreSQL where the running one has it."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from relay.cli.versions import installed

from .wheels import wheel

pytestmark = pytest.mark.long  # a version is a virtual environment of its own


def client_wheel(folder: Path) -> None:
    """A package that stands for the client: nothing is fetched."""
    info = "stands_in-1.0.dist-info"
    with zipfile.ZipFile(folder / "stands_in-1.0-py3-none-any.whl", "w") as file:
        file.writestr("stands_in.py", "")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: stands-in\nVersion: 1.0\n")
        file.writestr(f"{info}/RECORD", "")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )


def has_client(version: Path) -> bool:
    python = str(version / "bin/python")
    return subprocess.run([python, "-c", "import stands_in"], capture_output=True).returncode == 0


def test_the_client_comes_along_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    client_wheel(tmp_path)
    extra = 'Provides-Extra: cluster\nRequires-Dist: stands-in; extra == "cluster"\n'
    first = wheel(tmp_path, "2.0.0", metadata=extra)
    assert not has_client(installed(str(first), tmp_path / "opt"))
    second = wheel(tmp_path, "2.0.1", metadata=extra)
    assert has_client(installed(str(second), tmp_path / "opt", with_cluster=True))
    earlier = wheel(tmp_path, "1.0.0")  # which has no such extra
    assert not has_client(installed(str(earlier), tmp_path / "opt", with_cluster=True))

"""Vendored scripts and styles are those that were looked at, each with its licence."""

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "relay" / "web" / "static" / "vendor"


def test_vendored_files_are_as_recorded() -> None:
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    recorded = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FOLDER.iterdir()
        if path.name != "SHA256SUMS"
    }
    assert found == recorded


def test_every_vendored_library_has_its_licence() -> None:
    libraries = {path.name.partition("-")[0] for path in FOLDER.glob("*-*")}
    assert libraries == {path.stem for path in FOLDER.glob("*.LICENSE")}

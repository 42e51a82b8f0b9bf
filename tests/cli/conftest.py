"""A folder with a relay.toml, and an account."""

from pathlib import Path

import pytest

from tests.cli.command import SETTINGS, done


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a relay.toml in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relay.toml").write_text(SETTINGS)
    return tmp_path


@pytest.fixture
def ann(folder: Path) -> str:
    done("user", "create", "ann@example.com")
    return "ann@example.com"

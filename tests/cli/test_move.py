"""`relay move`: an install to one file and back, with everything that relay.toml names."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from relay import config
from tests.cli.command import data, done, refused, run

SETTINGS = """# my relay
[database]
path = "data/mine.db"
[[upstream]]
name = "main"
base_url = "http://127.0.0.1:9"
api_key = "file:keys/main"  # not in the repository
ca = "ca.pem"
[[upstream]]
name = "spare"
base_url = "http://127.0.0.1:9"
api_key = "env:SPARE_KEY"
[[plan]]
id = "free"
[responses]
store = "database"
key = "file:keys/other/main"
"""


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "old"
    (folder / "keys" / "other").mkdir(parents=True)
    (folder / "data" / "mine.db.certificates" / "live").mkdir(parents=True)
    (folder / "data" / "mine.db.certificates" / "live" / "a.pem").write_text("certificate")
    (folder / "relay.toml").write_text(SETTINGS)
    (folder / "keys" / "main").write_text("sk-upstream-canary\n")
    (folder / "keys" / "other" / "main").write_text("r" * 40)
    (folder / "ca.pem").write_text("authority")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SPARE_KEY", "sk-spare")
    done("user", "create", "ann@example.com")
    done("key", "create", "--user", "ann@example.com")
    return folder


@pytest.fixture
def secret(tmp_path: Path) -> str:
    file = tmp_path / "passphrase"
    file.write_text("correct horse battery\n")
    return str(file)


def contents(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_an_install_moves_with_all_its_files(old: Path, tmp_path: Path, secret: str) -> None:
    exported = data("move", "export", "all.relay", "--passphrase-file", secret)
    assert exported["environment"] == ["SPARE_KEY"]
    file = old / "all.relay"
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"canary" not in file.read_bytes()
    new = tmp_path / "new"
    result = data("move", "import", str(file), "--to", str(new), "--passphrase-file", secret)
    assert (result["accounts"], result["keys"]) == (1, 1)
    names = contents(new)
    [other] = [name for name in names if name.endswith("-main")]
    assert names == {
        "relay.toml", "relay.db", "relay.db.certificates/live/a.pem",
        "secrets/main", "secrets/ca.pem", other,
    }  # fmt: skip
    settings = config.load(new / "relay.toml")
    assert settings.upstream[0].credential().reveal() == "sk-upstream-canary"
    assert settings.upstream[0].ca == str(new / "secrets" / "ca.pem")
    assert settings.responses.secret() is not None
    assert settings.database.path == str(new / "relay.db")
    text = (new / "relay.toml").read_text()
    assert text.startswith("# my relay\n")
    assert "# not in the repository" in text
    users = data("user", "list", "--config", str(new / "relay.toml"))
    assert [user["email"] for user in users] == ["ann@example.com"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in new.rglob("*") if path.is_file())


def test_a_dry_run_writes_nothing(old: Path, tmp_path: Path, secret: str) -> None:
    done("move", "export", "all.relay", "--passphrase-file", secret)
    new = tmp_path / "new"
    text = done(
        "move", "import", "all.relay", "--to", str(new), "--dry-run", "--passphrase-file", secret
    )
    assert "1 accounts, 1 keys" in text
    assert "It can be imported; nothing was written." in text
    assert not new.exists()


def test_an_unencrypted_export_is_private_and_warned_of(old: Path, tmp_path: Path) -> None:
    result = run("move", "export", "all.tar", "--no-passphrase")
    assert "is not encrypted and holds every secret" in result.stderr
    assert (old / "all.tar").stat().st_mode & 0o777 == 0o600
    assert "SPARE_KEY" in result.stdout
    done("move", "import", "all.tar", "--to", str(tmp_path / "new"))
    assert "relay.toml" in contents(tmp_path / "new")


def test_an_export_without_terminal_needs_a_passphrase(old: Path, tmp_path: Path) -> None:
    assert "give --passphrase-file, or --no" in refused(2, "move", "export", "all.relay")
    (tmp_path / "short").write_text("1234567")
    short = str(tmp_path / "short")
    assert "at least 8" in refused(2, "move", "export", "a", "--passphrase-file", short)
    assert "cannot read" in refused(2, "move", "export", "a", "--passphrase-file", "none")
    assert "exclude" in refused(
        2, "move", "export", "a", "--passphrase-file", short, "--no-passphrase"
    )
    assert not (old / "a").exists()


def test_an_export_overwrites_nothing_and_names_what_is_missing(old: Path) -> None:
    (old / "all.tar").write_text("precious")
    assert "exists" in refused(1, "move", "export", "all.tar", "--no-passphrase")
    assert (old / "all.tar").read_text() == "precious"
    (old / "ca.pem").unlink()
    message = refused(1, "move", "export", "b.tar", "--no-passphrase")
    assert message == f"relay: upstream[0].ca: there is no file {old / 'ca.pem'}"
    assert contents(old) >= {"all.tar"}
    assert not [name for name in os.listdir(old) if "partial" in name]


def test_an_import_needs_an_empty_folder(old: Path, tmp_path: Path) -> None:
    run("move", "export", "all.tar", "--no-passphrase")
    assert "is not empty" in refused(1, "move", "import", "all.tar")
    assert "is not empty" in refused(1, "move", "import", "all.tar", "--to", "relay.toml")
    empty = tmp_path / "empty"
    empty.mkdir()
    done("move", "import", "all.tar", "--to", str(empty))
    assert not [name for name in os.listdir(empty) if name.startswith(".")]


def _rebuilt(source: Path, change: Any) -> bytes:
    """The archive with its members changed: `change(name, octets)` → the new pair."""
    result = io.BytesIO()
    with tarfile.open(source) as old, tarfile.open(fileobj=result, mode="w") as new:
        for entry in old:
            content = old.extractfile(entry)
            assert content is not None
            name, octets = change(entry.name, content.read())
            member = tarfile.TarInfo(name)
            member.size = len(octets)
            new.addfile(member, io.BytesIO(octets))
    return result.getvalue()


def _evil(name: str, octets: bytes) -> tuple[str, bytes]:
    if name == "manifest.json":
        return name, octets.replace(b'"secrets/ca.pem"', b'"../../ca.pem"')
    return ("../../ca.pem" if name == "secrets/ca.pem" else name), octets


def _newer(name: str, octets: bytes) -> tuple[str, bytes]:
    return name, octets.replace(b'"format":1', b'"format":2') if name == "manifest.json" else octets


def _swapped(name: str, octets: bytes) -> tuple[str, bytes]:
    return name, octets.replace(b"canary", b"yranac") if name == "secrets/main" else octets


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param(lambda file: _rebuilt(file, _evil), "is no export", id="leaves the folder"),
        pytest.param(lambda file: _rebuilt(file, _newer), "has format 2", id="newer"),
        pytest.param(lambda file: _rebuilt(file, _swapped), "damaged", id="other octets"),
        pytest.param(lambda file: file.read_bytes()[:100_000], "damaged", id="cut"),
        pytest.param(lambda _: b"not an archive " * 100, "is no export", id="text"),
        pytest.param(lambda _: b"", "is no export", id="empty"),
    ],
)
def test_a_file_that_is_no_export_leaves_nothing(
    old: Path, tmp_path: Path, change: Any, text: str
) -> None:
    run("move", "export", "all.tar", "--no-passphrase")
    (old / "bad.tar").write_bytes(change(old / "all.tar"))
    assert text in refused(1, "move", "import", "bad.tar", "--to", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "ca.pem").exists()
    assert not (tmp_path.parent / "ca.pem").exists()


def test_a_wrong_passphrase_and_a_missing_file_are_one_line(
    old: Path, tmp_path: Path, secret: str
) -> None:
    done("move", "export", "all.relay", "--passphrase-file", secret)
    wrong = tmp_path / "wrong"
    wrong.write_text("another passphrase")
    assert "the passphrase is wrong, or the file is damaged" in refused(
        1,
        "move",
        "import",
        "all.relay",
        "--to",
        "new",
        "--passphrase-file",
        str(tmp_path / "wrong"),
    )
    assert "give --passphrase-file" in refused(2, "move", "import", "all.relay", "--to", "new")
    assert "No such file" in refused(1, "move", "import", "none.relay", "--to", "new")


def test_a_variable_that_is_not_set_there_is_warned_of(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("move", "export", "all.tar", "--no-passphrase")
    monkeypatch.delenv("SPARE_KEY")
    result = run("move", "import", "all.tar", "--to", str(tmp_path / "new"), "--json")
    assert "relay.toml needs the environment variable SPARE_KEY" in result.stderr
    assert json.loads(result.stdout)["imported"]

"""`relay serve` and `relay demo` as processes: one server for a database, addresses, the demo."""

from pathlib import Path

import pytest

from relay.process import lock_database
from tests.durability.process import relay, serving, write_settings


def settle_in(folder: Path, database: Path) -> Path:
    """A folder with a relay.toml that names this database."""
    folder.mkdir(exist_ok=True)
    write_settings(folder, "http://127.0.0.1:9")
    with (folder / "relay.toml").open("a") as file:
        file.write(f'\n[database]\npath = "{database}"\n')
    return folder


# --- one server for a database ---


def test_a_database_has_one_server_through_any_link(tmp_path: Path) -> None:
    database, link = tmp_path / "relay.db", tmp_path / "link.db"
    link.symlink_to(database)
    first, second = settle_in(tmp_path / "a", database), settle_in(tmp_path / "b", link)
    with serving(first) as running:
        assert "listens on" in running.said
        done = relay(second, "serve")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"relay: another relay serves from the database {link}\n"


def test_a_database_is_free_again_once_its_server_ends(tmp_path: Path) -> None:
    folder = settle_in(tmp_path / "a", tmp_path / "relay.db")
    for _ in range(2):
        with serving(folder) as running:
            assert "listens on" in running.said


def test_a_locked_database_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    lock_database(str(path))
    with pytest.raises(OSError, match=f"another relay serves from the database {path}"):
        lock_database(str(path))


def test_a_database_in_no_folder_is_refused_in_plain_words(tmp_path: Path) -> None:
    folder = settle_in(tmp_path / "a", tmp_path / "no" / "relay.db")
    done = relay(folder, "serve")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"there is no folder {tmp_path / 'no'}\n" in done.stderr

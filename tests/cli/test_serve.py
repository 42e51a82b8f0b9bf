"""`relay serve` and `relay demo` as processes: one server for a database, addresses, the demo."""

import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from relay.cli.database import locked
from relay.process import lock_database
from tests.cli.two_upstreams import configure as configure_two
from tests.cli.two_upstreams import error_of
from tests.durability.process import data, relay, serving, write_settings


def configure(folder: Path, database: Path) -> Path:
    """Write a relay.toml with this database into a folder."""
    folder.mkdir(exist_ok=True)
    write_settings(folder, "http://127.0.0.1:9")
    with (folder / "relay.toml").open("a") as file:
        file.write(f'\n[database]\npath = "{database}"\n')
    return folder


def test_a_database_has_one_server_through_any_link(tmp_path: Path) -> None:
    database, link = tmp_path / "relay.db", tmp_path / "link.db"
    link.symlink_to(database)
    first, second = configure(tmp_path / "a", database), configure(tmp_path / "b", link)
    with serving(first) as running:
        assert "listens on" in running.said
        done = relay(second, "serve")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"relay: another relay serves from the database {link}\n"


def test_a_database_is_free_again_once_its_server_ends(tmp_path: Path) -> None:
    folder = configure(tmp_path / "a", tmp_path / "relay.db")
    for _ in range(2):
        with serving(folder) as running:
            assert "listens on" in running.said


def test_a_lock_is_refused_by_path_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    lock = lock_database(str(path))
    with pytest.raises(OSError, match=f"another relay serves from the database {path}"):
        lock_database(str(path))
    os.close(lock)
    os.close(lock_database(str(path)))


def test_a_lock_that_a_command_made_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    with locked(str(path)), pytest.raises(OSError, match="another relay"):
        lock_database(str(path))
    assert not list(tmp_path.iterdir())
    os.close(lock_database(str(path)))  # as a server does
    with locked(str(path)):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "relay.db.lock"]


def test_a_database_in_no_folder_is_refused_in_plain_words(tmp_path: Path) -> None:
    folder = configure(tmp_path / "a", tmp_path / "no" / "relay.db")
    done = relay(folder, "serve")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"there is no folder {tmp_path / 'no'}\n" in done.stderr


# --- the admin listener ---


def test_two_relays_have_an_admin_listener_each(tmp_path: Path) -> None:
    """By default: each beside its own database."""
    folders = [configure_two(tmp_path / name, "unix") for name in ("a", "b")]
    with serving(folders[0]), serving(folders[1]):
        for folder in folders:
            assert data(folder, "upstreams")["database"] == str(folder / "relay.db")


def test_a_default_that_cannot_be_used_is_a_warning(tmp_path: Path) -> None:
    folder = configure_two(tmp_path / ("long" * 30), "unix")
    with serving(folder) as running:
        assert "listens on" in running.said
        assert running.process.stderr is not None
        warning = running.process.stderr.readline().decode()
        assert "too long; `relay upstreams` cannot reach this relay" in warning
        assert "too long" in error_of(folder)


def test_a_configured_admin_address_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        configure_two(tmp_path, address)
        done = relay(tmp_path, "serve")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"relay: cannot listen on {address}: Address already in use\n"


def test_the_demo_has_no_admin_listener(tmp_path: Path) -> None:
    configure_two(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "relay", "demo", "--port", "0"], cwd=tmp_path, stdout=subprocess.PIPE
    ) as demo:
        assert demo.stdout is not None
        assert b"The relay runs at" in demo.stdout.readline()
        assert "start it with `relay serve`" in error_of(tmp_path)
        demo.terminate()


def test_each_command_of_the_demo_is_one_line(tmp_path: Path) -> None:
    configure_two(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "relay", "demo", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].startswith("codex "):
            lines.append(demo.stdout.readline())
            assert lines[-1], lines
        demo.terminate()
    commands = [shlex.split(line) for line in lines if "sk-" in line]
    programs = [next(word for word in words if "=" not in word) for words in commands]
    assert programs == ["curl", "curl", "curl", "claude", "codex"]
    codex = commands[-1]
    assert codex[1::2] == ["-c", "-c", "-m"]
    assert "base_url=" in codex[2]

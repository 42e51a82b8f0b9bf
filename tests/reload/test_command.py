"""`relay reload` and SIGHUP against a server process."""

import signal
from pathlib import Path

import pytest

from tests.durability.process import data, relay, serving, write_settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_settings(tmp_path, "http://127.0.0.1:9")
    path = tmp_path / "relay.toml"
    path.write_text(path.read_text().replace('admin_listen = ""\n', ""))
    return tmp_path


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "relay.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_command_prints_each_setting_that_changed(folder: Path) -> None:
    with serving(folder) as running:
        assert data(folder, "reload") == {"changed": [], "restart": []}
        edit(folder, "max_keys = 50", "max_keys = 9")
        edit(folder, "127.0.0.1:0", "127.0.0.1:8999")
        done = relay(folder, "reload")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (
            "plan[free].max_keys: 50 → 9\n"
            'server.listen: ["127.0.0.1:0"] → ["127.0.0.1:8999"] (after a restart)\n'
        )
        running.signal()
        assert running.process.stderr is not None
        said = running.process.stderr.read().decode()
    assert "reload: plan[free].max_keys: 50 → 9\n" in said
    assert '["127.0.0.1:8999"] needs a restart\n' in said


@pytest.mark.matrix(share=3)
@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        pytest.param("max_keys = 50", "max_keys = 0", "plan[0].max_keys must be", id="a-setting"),
        pytest.param("max_keys = 50", "max_keys =", "no valid TOML", id="no-toml"),
        pytest.param('"sim-key"', '"env:NOT_SET"', "NOT_SET is not set", id="a-variable"),
    ],
)
def test_a_wrong_file_is_status_1_and_one_line(
    folder: Path, old: str, new: str, error: str
) -> None:
    with serving(folder) as running:
        edit(folder, old, new)
        done = relay(folder, "reload")
        assert (done.returncode, done.stdout) == (1, "")
        assert error in done.stderr.replace(": must", " must")
        assert done.stderr.count("\n") == 1
        running.signal(signal.SIGHUP)
        assert running.process.stderr is not None
        line = running.process.stderr.readline().decode()
        if line.startswith("nobody has an account yet"):
            line = running.process.stderr.readline().decode()
        assert "reload refused: " in line
        assert error in line.replace(": must", " must")
        edit(folder, new, old)
        assert data(folder, "reload") == {"changed": [], "restart": []}


def test_without_a_server_the_command_says_so(folder: Path) -> None:
    done = relay(folder, "reload")
    assert done.returncode == 1
    assert "start it with `relay serve`" in done.stderr

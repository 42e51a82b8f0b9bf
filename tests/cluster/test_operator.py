"""`relay ledger` and `relay doctor` show the nodes, and those whose acts nobody may do."""

import re
from pathlib import Path

import psycopg
import pytest

from relay import config
from relay.cli.doctor.ledger import examine
from tests.cli.command import SETTINGS, data, done, refused
from tests.cluster.postgres import Postgres


@pytest.fixture
def ledger(
    postgres: Postgres, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The URL that relay.toml of the current folder shares."""
    url = postgres.url(database)
    (tmp_path / "relay.toml").write_text(f'{SETTINGS}\n[ledger]\nurl = "{url}"\n')
    monkeypatch.chdir(tmp_path)
    with psycopg.connect(url, autocommit=True) as connection:
        for name in ("a", "b"):
            connection.execute("SELECT relay.join_replica(%s)", [name])
            connection.execute("SELECT relay.poll(%s, 'boot', NULL)", [name])
        connection.execute("SELECT relay.join_import('relay-import-usr_1')")
        connection.execute("UPDATE relay.node SET seen = 0 WHERE name = 'a'")
        connection.execute(
            """INSERT INTO relay.claimed_act (kind, id, node, at)
               VALUES ('code', 'code_1/0', 'a', 0), ('refund', 'req_1', 'a', 0),
                   ('code', 'code_2/0', 'b', 0)"""
        )
    return url


@pytest.mark.usefixtures("ledger")
def test_a_silent_node_is_named_and_can_be_forgotten() -> None:
    assert states() == {"a": "silent", "b": "alive", "relay-import-usr_1": "import"}
    settings = config.load("relay.toml")
    [blocked] = [one for one in examine(settings) if "nobody may do" in one.found]
    assert "node a is silent" in blocked.found
    assert "code code_1/0" in blocked.found
    assert "refund" not in blocked.found
    assert blocked.remedy.endswith("relay ledger forget a")
    assert "is an import" in refused(1, "ledger", "forget", "relay-import-usr_1")
    assert "node b is alive: stop it first" in refused(1, "ledger", "forget", "b")
    assert "there is no node c" in refused(1, "ledger", "forget", "c")
    assert done("ledger", "forget", "a") == (
        "a is gone; 2 acts that it had begun can be done by others.\n"
    )
    assert states()["a"] == "gone"
    assert "node a is gone already" in refused(1, "ledger", "forget", "a")


def states() -> dict[str, str]:
    """The state of each node."""
    return {one["node"]: one["state"] for one in data("ledger", "nodes")}


def test_a_node_that_stopped_is_not_silent(ledger: str) -> None:
    with psycopg.connect(ledger, autocommit=True) as connection:
        connection.execute("SELECT relay.leave('b', 'boot')")
    assert states() == {"a": "silent", "b": "stopped", "relay-import-usr_1": "import"}
    assert done("ledger", "forget", "b") == (
        "b is gone; 1 act that it had begun can be done by others.\n"
    )


def test_this_relay_s_own_node_is_named(ledger: str) -> None:
    settings = Path("relay.toml")
    settings.write_text(f'{settings.read_text()}node = "b"\n')
    own = {one["node"]: one["this_relay"] for one in data("ledger", "nodes")}
    assert own == {"a": False, "b": True, "relay-import-usr_1": False}
    [state] = [one for one in examine(config.load("relay.toml")) if "open windows" in one.found]
    assert state.found.startswith("this relay is b; 1 relay, 0 open windows, 0 leases")


@pytest.mark.parametrize(
    ("owner", "remedy"),
    [
        ("a", "start a: its journal says"),
        ("c", "they count as used until their windows end: c was forgotten"),
    ],
)
def test_lost_leases_have_an_advice_that_can_be_done(ledger: str, owner: str, remedy: str) -> None:
    with psycopg.connect(ledger, autocommit=True) as connection:
        connection.execute("SELECT relay.join_replica('c'), relay.forget_replica('c')")
        connection.execute(
            "INSERT INTO relay.quota_window (name, size, per, epoch, ends)"
            " VALUES ('w', 9, 1, 1, relay.now_ms() + 60000)"
        )
        connection.execute(
            "INSERT INTO relay.lease VALUES ('w', %s, 1, 0, 5, 0, true)", [f"{owner}/boot/1"]
        )
    [state] = [one for one in examine(config.load("relay.toml")) if "open window" in one.found]
    assert "1 open window, 0 leases with 0 unused, 1 reclaimed" in state.found
    assert remedy in state.remedy


def test_a_ledger_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relay.toml").write_text(SETTINGS)
    assert "has no [ledger] url" in refused(2, "ledger", "nodes")
    (tmp_path / "relay.toml").write_text(
        f'{SETTINGS}\n[ledger]\nurl = "postgresql://relay@127.0.0.1:1/none"\n'
    )
    assert "PostgreSQL is away" in refused(1, "ledger", "forget", "a")


def test_an_empty_database_is_no_earlier_state(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = postgres.url(postgres.new_database())
    (tmp_path / "relay.toml").write_text(f'{SETTINGS}\n[ledger]\nurl = "{url}"\n')
    assert "the database is empty: no relay has shared it yet" in refused(1, "ledger", "nodes")
    [found] = examine(config.load("relay.toml"))
    assert found.level == "warning"
    assert found.remedy.startswith("start a relay")
    assert ", no relay has shared it yet\n" in done("check")


def test_a_variable_that_is_missing_is_to_be_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relay.toml").write_text(f'{SETTINGS}\n[ledger]\nurl = "env:SHARED"\n')
    monkeypatch.delenv("SHARED", raising=False)
    [found] = examine(config.load("relay.toml"))
    assert found.remedy == "set SHARED for the relay, and where this runs"
    monkeypatch.setenv("SHARED", "mysql://")
    [found] = examine(config.load("relay.toml"))
    assert found.remedy == "correct SHARED"


@pytest.mark.usefixtures("ledger")
def test_a_check_shows_a_ledger_that_works() -> None:
    assert re.search(r"^ok: ledger: PostgreSQL \d+\.\d+, 1 relay alive$", done("check"), re.M)
    assert data("check")["ledger"]["relays"] == 1
    assert "ok: ledger" not in done("check", "--offline")
    assert "ledger" not in data("check", "--offline")

"""`relay ledger` and `relay doctor` show the nodes, and those whose acts nobody may do."""

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
        connection.execute("SELECT relay.join_import('relay-import-usr_1')")
        connection.execute("SELECT relay.poll('b', 'boot', NULL)")
        connection.execute(
            """INSERT INTO relay.claimed_act (kind, id, node, at)
               VALUES ('code', 'code_1/0', 'a', 0), ('refund', 'req_1', 'a', 0),
                   ('code', 'code_2/0', 'b', 0)"""
        )
    return url


@pytest.mark.usefixtures("ledger")
def test_a_silent_node_is_named_and_can_be_forgotten() -> None:
    states = {one["node"]: one["state"] for one in data("ledger", "nodes")}
    assert states == {"a": "silent", "b": "alive", "relay-import-usr_1": "import"}
    settings = config.load("relay.toml")
    [blocked] = [one for one in examine(settings) if "nobody may do" in one.found]
    assert "node a is silent" in blocked.found
    assert "code code_1/0" in blocked.found
    assert "refund" not in blocked.found
    assert blocked.remedy.endswith("relay ledger forget a")
    assert "no node b that is silent" in refused(1, "ledger", "forget", "b")
    assert "no node relay-import" in refused(1, "ledger", "forget", "relay-import-usr_1")
    assert done("ledger", "forget", "a") == (
        "a is gone; 2 acts that it had begun can be done by others.\n"
    )
    assert {one["node"]: one["state"] for one in data("ledger", "nodes")}["a"] == "gone"
    assert "no node a that is silent" in refused(1, "ledger", "forget", "a")


def test_a_ledger_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relay.toml").write_text(SETTINGS)
    assert "has no [ledger] url" in refused(2, "ledger", "nodes")
    (tmp_path / "relay.toml").write_text(
        f'{SETTINGS}\n[ledger]\nurl = "postgresql://relay@127.0.0.1:1/none"\n'
    )
    assert "PostgreSQL is away" in refused(1, "ledger", "forget", "a")

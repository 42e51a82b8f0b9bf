"""The ledger that several relays share, in relay.toml."""

import pytest

from relay import config
from relay.cluster.joining import node_name


def settings(**ledger: str) -> config.Settings:
    return config.parse({"ledger": ledger})


@pytest.mark.parametrize(
    ("ledger", "said"),
    [
        ({"url": "mysql://db"}, "postgresql://"),
        ({"url": "$LEDGER"}, "env:LEDGER"),
        ({"node": "a b"}, "no name"),
        ({"on_outage": "open"}, "refuse"),
    ],
)
def test_a_wrong_ledger_is_named(ledger: dict[str, str], said: str) -> None:
    with pytest.raises(config.ConfigError, match="ledger") as error:
        settings(**ledger)
    assert said in str(error.value)


def test_the_password_is_shown_nowhere() -> None:
    one = settings(url="postgresql://relay:s3cret@db.example/relay")
    assert "s3cret" not in str(config.effective(one)) + repr(one)
    assert "db.example" in config.effective(one)["ledger"]["url"]


def test_a_url_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER", "postgresql://db/relay")
    assert settings(url="env:LEDGER").ledger.resolved_url() == "postgresql://db/relay"
    monkeypatch.setenv("LEDGER", "redis://db")
    with pytest.raises(ValueError, match="postgresql"):
        settings(url="env:LEDGER").ledger.resolved_url()


def test_a_node_is_named_by_its_database() -> None:
    first = config.parse({"database": {"path": "/a/relay.db"}})
    second = config.parse({"database": {"path": "/b/relay.db"}})
    assert node_name(first) != node_name(second)
    assert node_name(settings(node="east")) == "east"

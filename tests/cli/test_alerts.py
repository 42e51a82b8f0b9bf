"""`relay alerts test`, and the settings of alerts on the command line."""

import json
from pathlib import Path

import pytest

from tests.alerts.services import running_webhook
from tests.cli.command import SETTINGS, done, refused, run

pytestmark = pytest.mark.usefixtures("folder")


def configure(folder: Path, **urls: str) -> None:
    sections = [
        f'[[alert]]\nname = "{name}"\nkind = "webhook"\nurl = "{url}"\n'
        for name, url in urls.items()
    ]
    (folder / "relay.toml").write_text(SETTINGS + "\n".join(sections))


def test_a_test_message_reaches_everyone_or_one(folder: Path) -> None:
    with running_webhook() as first, running_webhook() as second:
        configure(folder, one=first.url, two=second.url)
        assert done("alerts", "test") == "one: sent\ntwo: sent\n"
        assert done("alerts", "test", "two") == "two: sent\n"
        assert (len(first.received), len(second.received)) == (1, 2)
        document = json.loads(first.received[0][2])
        assert document["state"] == "test"
        assert document["relay"] == "https://relay.example"


def test_a_receiver_that_fails_is_named_and_fails_the_command(folder: Path) -> None:
    with running_webhook() as good, running_webhook() as bad:
        configure(folder, one=bad.url, two=good.url)
        bad.answers = [(404, b""), (404, b"")]
        result = run("alerts", "test")
        assert result.exit_code == 1
        assert result.stdout == "one: refused with status 404\ntwo: sent\n"
        assert result.stderr == "relay: no message reached one\n"
        shown = json.loads(run("alerts", "test", "--json").stdout)
        assert shown[0] == {"name": "one", "sent": False, "why": "refused with status 404"}
        assert "canary" not in done("check")


def test_without_receivers_there_is_nothing_to_test(folder: Path) -> None:
    assert "has no [[alert]]" in refused(2, "alerts", "test")
    configure(folder, one="https://a.example/x")
    assert "no [[alert]] is named 'two'; there are: one" in refused(2, "alerts", "test", "two")


def test_a_secret_that_cannot_be_read_is_found_by_check(folder: Path) -> None:
    configure(folder, one="env:NO_SUCH_WEBHOOK")
    assert refused(2, "check") == (
        "relay.toml: alert[0].url: the environment variable NO_SUCH_WEBHOOK is not set"
    )

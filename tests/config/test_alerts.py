"""The settings of alerts: what is refused, with words that help."""

import tomllib
from pathlib import Path

import pytest

from relay import config
from relay.config import ConfigError

MAIL = '[[alert]]\nname = "m"\nkind = "mail"\nto = ["a@b.c"]\nsender = "r@b.c"\nsmtp = "s.c:25"\n'
SLACK = '[[alert]]\nname = "s"\nkind = "slack"\nurl = "https://hooks.example/canary?a=1"\n'


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ('[[alert]]\nname = "s"\nkind = "slack"', "alert[0].url", "is needed for a slack"),
        ('[[alert]]\nname = "s"\nkind = "irc"', "alert[0].kind", '"webhook" or "slack"'),
        (SLACK.replace("https://hooks", "ftp://hooks"), "alert[0].url", "begins with https://"),
        (SLACK.replace("https://", "https://u:p@"), "alert[0].url", "begins with https://"),
        (SLACK.replace("https://hooks", "$SLACK"), "alert[0].url", "write env:"),
        (SLACK + 'events = ["fire"]', "alert[0].events[0]", '"certificate"'),
        (SLACK + "per_hour = 0", "alert[0].per_hour", "at least 1"),
        (SLACK + SLACK, "alert", "given twice"),
        (SLACK.replace("slack", "telegram"), "alert[0].chat", "is needed for telegram"),
        (MAIL.replace('["a@b.c"]', "[]"), "alert[0].to", "a list of e-mail addresses"),
        (MAIL.replace("r@b.c", "relay"), "alert[0].sender", "must be an e-mail address"),
        (MAIL.replace("s.c:25", "s.c"), "alert[0].smtp", "must be host:port"),
        (MAIL.replace("s.c:25", "s.c:99999"), "alert[0].smtp", "must be host:port"),
        (MAIL + 'user = "u"', "alert[0].user", "belong together"),
        ("[alerting]\ndisk = 10.0", "alerting.disk", "between 0 and 1"),
        ("[alerting]\nplan = { nobody = 1 }", "alerting.plan", "no upstream is named 'nobody'"),
        ('[alerting]\ndown = "soon"', "alerting.down", "is no duration"),
    ],
)  # fmt: skip
def test_a_wrong_alert_is_refused(text: str, path: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(tomllib.loads(text))
    assert caught.value.path == path
    assert words in caught.value.reason
    assert "canary" not in str(caught.value)


def test_secrets_are_masked_and_files_relative_to_the_settings(tmp_path: Path) -> None:
    text = SLACK + 'secret = "canary"\n' + MAIL + 'user = "u"\npassword = "file:mail.key"\n'
    (tmp_path / "relay.toml").write_text(text)
    (tmp_path / "mail.key").write_text("mail-canary")
    settings = config.load(tmp_path / "relay.toml")
    assert settings.alert[1].resolved("password") == "mail-canary"
    assert "canary" not in str(config.effective(settings))
    assert "canary" not in repr(settings.alert)

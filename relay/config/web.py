"""The settings of the pages for people, and of the mail that they send.

Each section checks itself, as those of `schema` do. Must not know pages or how mail is sent.
"""

from typing import Final, Literal

import msgspec

from relay import secret
from relay.config.alerts import check_mail_server
from relay.config.forms import HostPort, Mailbox, PlainText
from relay.config.oidc import OidcSettings
from relay.config.values import Duration

_MIN_WORK, _MAX_WORK = 8, 24
_MAX_NAME: Final = 40
_MAX_TAGLINE: Final = 200


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class WebSettings(_Section, frozen=True):
    """Pages for people: accounts and the dashboard."""

    enabled: bool = True
    name: PlainText = "Relay"  # in titles and mails
    tagline: PlainText = ""  # on the front page; "": a sentence of the relay's own
    tagline_zh: PlainText = ""  # for readers of Chinese; "": `tagline`
    sign_up: Literal["closed", "invite", "open"] = "closed"
    sign_up_plan: str = ""  # "": the first plan
    sign_up_work: int = 17  # proof of work: bits, each of which doubles it
    session_idle: Duration = Duration("7d")
    session_limit: Duration = Duration("30d")
    log_ins_per_account: int = 5  # a minute
    log_ins_per_address: int = 20  # a minute
    oidc: list[OidcSettings] = []

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= _MAX_NAME or not self.name.isprintable():
            raise ValueError(f"name must have from 1 to {_MAX_NAME} printable characters")
        for name in ("tagline", "tagline_zh"):
            text = getattr(self, name)
            if len(text) > _MAX_TAGLINE or not text.isprintable():
                raise ValueError(f"{name} must have up to {_MAX_TAGLINE} printable characters")
        if not _MIN_WORK <= self.sign_up_work <= _MAX_WORK:
            raise ValueError(f"sign_up_work must be from {_MIN_WORK} to {_MAX_WORK} bits")
        if self.session_idle.seconds > self.session_limit.seconds:
            raise ValueError("session_idle must not be longer than session_limit")
        for name in ("log_ins_per_account", "log_ins_per_address"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


class MailSettings(_Section, frozen=True):
    """The mail server; `smtp` "": the relay sends no mail to people."""

    smtp: HostPort = ""  # "host:port"
    sender: Mailbox = ""
    encryption: Literal["auto", "tls", "starttls", "off"] = "auto"  # auto: by the port
    user: str = ""
    password: str = ""

    def __post_init__(self) -> None:
        if self.smtp or self.sender:
            check_mail_server(self.smtp, self.sender, self.user, self.password)

    def __repr__(self) -> str:
        return f"Mail({self.smtp!r})"  # the rest may hold a secret

    def resolved(self, name: str) -> str:
        """`password` itself; empty if it is not set.

        Raises:
            ValueError: the variable or file that it names cannot be read.
        """
        text: str = getattr(self, name)
        return secret.resolve(text).reveal() if text else ""

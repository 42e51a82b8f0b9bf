"""The settings of alerts: thresholds and receivers.

Each section checks itself, as those of `schema` do. Must not know how an alert is sent.
"""

import re
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from relay import secret
from relay.config.checks import check_name
from relay.config.forms import HostPort, Mailbox, Webhook
from relay.config.values import Duration
from relay.forbidden_addresses import is_forbidden

Event = Literal[
    "upstream", "cooling", "plan", "certificate", "disk", "journal", "backup",
    "user", "payment", "window",
]  # fmt: skip
# What happens and is over at once; a receiver gets these only if it names them.
OCCURRENCES: Final = frozenset({"user", "payment", "window"})
Kind = Literal["webhook", "slack", "discord", "telegram", "feishu", "wecom", "mail"]

_MAILBOX: Final = re.compile(r"[^\s@<>,;]+@[^\s@<>,;]+")
_SERVER: Final = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_VARIABLE: Final = re.compile(r"\$\{?(\w*)")
_REFERENCES: Final = ("env:", "file:")
_MAX_PORT: Final = 65_535


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class AlertingSettings(_Section, frozen=True):
    """From when on something is worth an alert."""

    down: Duration = Duration("1m")  # that an upstream fails
    cooling: Duration = Duration("30m")  # that an upstream cools down, by its own statement
    recovered: Duration = Duration("2m")  # that a fault is over, before that is reported
    certificate: Duration = Duration("14d")  # before the end of a certificate
    disk: float = 0.1  # free share of a disk, below which it is low
    plan: dict[str, int] = {}  # upstream → the number left of its plan, below which that is low

    def __post_init__(self) -> None:
        if not 0 < self.disk < 1:
            raise ValueError("disk must be a share between 0 and 1, such as 0.1")
        for name, left in self.plan.items():
            if left < 0:
                raise ValueError(f"plan: {name} must be 0 or more, not {left}")


class AlertSettings(_Section, frozen=True):
    """One receiver of alerts."""

    name: str
    kind: Kind
    events: list[Event] = []  # []: all faults
    url: Webhook = ""  # of the webhook; a secret, since it is all that is needed to send
    secret: str = ""  # signs: webhook, feishu
    chat: str = ""  # telegram: id of the chat
    to: list[Mailbox] = []  # mail: the receivers' addresses
    sender: Mailbox = ""  # mail: the address that it comes from
    smtp: HostPort = ""  # mail: "host:port"; "": all of the server is as in [mail]
    encryption: Literal["auto", "tls", "starttls", "off"] = "auto"  # auto: by the port
    user: str = ""  # mail
    password: str = ""  # mail
    per_hour: int = 30  # alerts; more are counted, not sent

    def __post_init__(self) -> None:
        check_name("name", self.name)
        if self.per_hour < 1:
            raise ValueError("per_hour must be at least 1")
        for name in ("url", "secret", "password"):
            variable = _VARIABLE.match(getattr(self, name))
            if variable is not None:
                raise ValueError(f"{name} is taken literally; write env:{variable[1]}")
        if self.kind == "mail":
            self._check_mail()
            return
        if not self.url:
            raise ValueError(f"url is needed for a {self.kind}")
        if not self.url.startswith(_REFERENCES):
            check_webhook("url", self.url)
        if self.kind == "telegram" and not self.chat:
            raise ValueError("chat is needed for telegram: the id of the chat")

    def _check_mail(self) -> None:
        if not self.to or not all(_MAILBOX.fullmatch(one) for one in self.to):
            raise ValueError('to must be a list of e-mail addresses, such as ["ops@example.com"]')
        if self.smtp or self.sender or self.user or self.password:  # else those of [mail]
            check_mail_server(self.smtp, self.sender, self.user, self.password)

    def __repr__(self) -> str:
        return f"Alert({self.name!r})"  # the rest may hold secrets

    def resolved(self, name: str) -> str:
        """`url`, `secret` or `password` itself; empty if it is not set.

        Raises:
            ValueError: the variable or file that it names cannot be read, or holds no such value.
        """
        text: str = getattr(self, name)
        if not text:
            return ""
        value = secret.resolve(text).reveal()
        if name == "url":
            check_webhook(f"the value of {text}", value)
        return value


def check_mail_server(smtp: str, sender: str, user: str, password: str) -> None:
    """How mail is sent: the server, who it comes from, and the log-in there."""
    variable = _VARIABLE.match(password)
    if variable is not None:
        raise ValueError(f"password is taken literally; write env:{variable[1]}")
    if not _MAILBOX.fullmatch(sender):
        raise ValueError('sender must be an e-mail address, such as "relay@example.com"')
    match = _SERVER.fullmatch(smtp)
    if match is None or not 0 < int(match[2]) <= _MAX_PORT:
        raise ValueError('smtp must be host:port, such as "smtp.example.com:587"')
    if bool(user) != bool(password):
        raise ValueError("user and password belong together: give both, or neither")


def check_webhook(setting: str, text: str) -> None:
    """A URL that takes a POST; the message does not quote it, since it is a secret."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if valid and is_forbidden((parts.hostname or "").rstrip(".")):
        raise ValueError(f"{setting} names a cloud's metadata service, which holds credentials")
    if not valid or parts.username is not None:
        raise ValueError(f"{setting} must be a URL that begins with https:// and names a host")

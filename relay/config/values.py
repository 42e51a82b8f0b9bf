"""Settings that are more than plain text: durations, addresses, proxy URLs.

Decides how each is written, and parses it once, while relay.toml is read. A duration or an address
stays the text that the operator wrote, with its parts as attributes. Must not know the sections
that use them.
"""

import os
import re
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, cast
from urllib.parse import unquote

import msgspec

from relay import clock

Scheme = Literal["http", "socks5", "socks5h"]

# What a plan may exclude; `translate.messages.features` finds it in requests.
Feature = Literal[
    "fast",
    "inference_geo",
    "service_tier",
    "threads",
    "containers",
    "mcp",
    "fallbacks",
    "compaction",
    "web_search",
    "web_fetch",
    "code_execution",
    "advisor",
    "files",
    "1h_cache",
    "long_context",
]

# Of settings and header fields whose values may be secrets.
SECRET_NAME: Final = re.compile(r"key|token|secret|auth|cookie|password|credential", re.IGNORECASE)
_USERINFO: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"  # RFC 3986 §3.2.1, without ":"
_PROXY_URL: Final = re.compile(
    rf"(?P<scheme>http|socks5h?)://(?:(?P<user>{_USERINFO}+)(?::(?P<password>{_USERINFO}*))?@)?"
    r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<name>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})"
)
_ADDRESS: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})")
_MAX_PORT: Final = 65_535
_MAX_SOCKS_FIELD_OCTETS: Final = 255  # RFC 1929 §2


class Duration(str):
    """A length of time such as `30s` or `5h`, and its `seconds`."""

    __slots__ = ("seconds",)

    seconds: int

    def __new__(cls, text: str) -> Self:
        """Raises ValueError: `text` is not a duration."""
        self = super().__new__(cls, text)
        self.seconds = clock.seconds(text)
        return self


class DurationOrOff(Duration):
    """A duration, or `off`, which has 0 seconds."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Raises ValueError: `text` is neither."""
        if text == "off":
            self = str.__new__(cls, text)
            self.seconds = 0
            return self
        try:
            return super().__new__(cls, text)
        except ValueError as error:
            raise ValueError(f'{error}, or "off"') from None


class Address(str):
    """Where to listen: `host:port`, `[IPv6]:port` or `unix:/path`."""

    __slots__ = ("host", "path", "port")

    host: str  # "" for a Unix socket
    port: int  # 0 for a Unix socket, or for any free port
    path: str | None  # of a Unix socket

    def __new__(cls, text: str) -> Self:
        """Raises ValueError: `text` is none of the three."""
        if text.startswith("unix:/"):
            return cls._make(text, "", 0, text[5:])
        match = _ADDRESS.fullmatch(text)
        if match is None or int(match[3]) > _MAX_PORT:
            raise ValueError(f"{text!r} is no address; write host:port, [::]:port or unix:/path")
        return cls._make(text, match[1] or match[2], int(match[3]), None)

    @classmethod
    def tcp(cls, host: str, port: int) -> Self:
        """The address of a TCP port."""
        text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return cls._make(text, host, port, None)

    @classmethod
    def _make(cls, text: str, host: str, port: int, path: str | None) -> Self:
        self = str.__new__(cls, text)
        self.host, self.port, self.path = host, port, path
        return self


class AdminAddress(Address):
    """An address, `unix` for a Unix socket beside the database, or the empty text for none."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Raises ValueError: `text` is none of them."""
        if text == "unix":
            return cls._make(text, "", 0, "")
        return super().__new__(cls, text) if text else cls._make(text, "", 0, None)

    def beside(self, database: str) -> Self:
        """The same address; for `unix` that of the socket beside `database`, links resolved."""
        return type(self)(f"unix:{os.path.realpath(database)}.admin") if self == "unix" else self


@dataclass(frozen=True, slots=True, repr=False)
class ProxyUrl:
    """A proxy and the credentials for it. Its texts show scheme, host and port only."""

    scheme: Scheme
    host: str
    port: int
    user: str = ""
    password: str = ""

    @classmethod
    def parse(cls, text: str, setting: str) -> "ProxyUrl":
        """Read a URL; user and password are percent-decoded as UTF-8.

        Raises:
            ValueError: not such a URL, or its protocol cannot carry the credentials. The message
                begins with the name of the `setting` and does not quote the URL.
        """
        match = _PROXY_URL.fullmatch(text)
        if match is None or not 0 < int(match["port"]) <= _MAX_PORT:
            raise ValueError(
                f"{setting} must be http://[user:password@]host:port, socks5://… (names are "
                "resolved here) or socks5h://… (at the proxy), without a path; in user and "
                "password anything but letters and digits may have to be percent-encoded"
            )
        user, password = unquote(match["user"] or ""), unquote(match["password"] or "")
        if match["scheme"] == "http":
            if ":" in user:
                raise ValueError(f"{setting}: a user of an HTTP proxy has no colon (RFC 7617 §2)")
        elif bool(user) != bool(password):
            raise ValueError(
                f"{setting}: SOCKS5 wants both user and password, or neither (RFC 1929 §2)"
            )
        elif not (user + password).isascii() or (
            max(len(user), len(password)) > _MAX_SOCKS_FIELD_OCTETS
        ):
            raise ValueError(
                f"{setting}: user and password for SOCKS5 are ASCII, up to 255 octets each"
            )
        scheme = cast(Scheme, match["scheme"])
        host = (match["ipv6"] or match["name"]).lower()
        return cls(scheme, host, int(match["port"]), user, password)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Proxy {self.scheme}://{self}>"


def password_span(proxy_url: str) -> tuple[int, int] | None:
    """Where the password is in the text of a proxy's URL; None if there is none."""
    match = _PROXY_URL.fullmatch(proxy_url)
    return None if match is None or match["password"] is None else match.span("password")


def decode(kind: type[Any], value: object) -> Any:
    """msgspec's `dec_hook` for the texts of this module.

    Raises:
        ValueError: the value is not a text, or not such a text. msgspec adds the path.
    """
    try:
        return kind(msgspec.convert(value, str))
    except msgspec.ValidationError as error:  # without a path, as msgspec has none here
        raise ValueError(str(error)) from None


def encode(value: object) -> str:
    """msgspec's `enc_hook`: the text as the operator wrote it."""
    return str(value)

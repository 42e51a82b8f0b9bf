"""Every setting as a value: its default, its unit, and what a value of it has to be.

A section checks itself when it is made and raises `ValueError`, whose text begins with the
setting's name and says what to write instead. What one section says of another is checked in
`load`; nothing here knows of files, TOML or dotted paths.
"""

import math
import re
from typing import Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec
from msgspec import field

from relay import clock, secret
from relay.config.capabilities import Overrides
from relay.secret import Secret

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY_PREFIX = re.compile(r"[A-Za-z0-9_-]{0,32}")
_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_FIELD_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_URL_TEXT = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&()*+,;=%-]+")
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_PATH = re.compile(r"/[\x21-\x7e]*")
_USERINFO = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"  # RFC 3986 §3.2.1, without ":"
PROXY = re.compile(
    rf"(?:http|socks5h?)://(?:{_USERINFO}+(?::(?P<password>{_USERINFO}*))?@)?"
    r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})"
)
_LEAST_KEY = 32
_MAKE_KEY = "make one with `openssl rand -hex 32`"
_OWN_FIELDS = {"host", "content-length", "transfer-encoding", "connection", "authorization",
               "x-api-key", "accept-encoding", "upgrade", "te", "trailer", "expect"}  # fmt: skip


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


def _named(setting: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{setting}: {name!r} is no name: up to 64 letters, digits, . _ and -")


def _model_id(setting: str, name: str) -> None:
    if not re.fullmatch(r"[\x21-\x7e]{1,128}", name) or '"' in name or "\\" in name:
        raise ValueError(
            f"{setting}: {name!r} is no model id: printable ASCII without spaces or quotes"
        )


def _positive(section: msgspec.Struct, *names: str) -> None:
    for name in names or section.__struct_fields__:
        value = getattr(section, name)
        if not value > 0 or not math.isfinite(value):
            raise ValueError(f"{name} must be more than 0 seconds, and finite")


def _url(setting: str, text: str) -> None:
    """An origin with an optional path, safe to be shown and to be joined with a path."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises where it is no number up to 65535
    except ValueError:
        raise ValueError(f"{setting} has a host or port that cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{setting} must begin with http:// or https:// and name a host")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{setting} takes a scheme, host, port and path, nothing else")
    if not _URL_TEXT.fullmatch(text):
        raise ValueError(f"{setting} must be plain ASCII without spaces or quotes")


def _proxy(setting: str, text: str) -> None:
    """The URL of a proxy. What is wrong is told without the text: it may hold a password."""
    match = PROXY.fullmatch(text)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ValueError(
            f"{setting} must be http://[user:password@]host:port, socks5://… (names are resolved "
            "here) or socks5h://… (at the proxy), without a path; in user and password anything "
            "but letters and digits may have to be percent-encoded"
        )


def _duration(setting: str, text: str) -> None:
    try:
        clock.seconds(text)
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from None


class Address(msgspec.Struct, frozen=True):
    """Where to listen: a TCP host and port, or the path of a Unix socket."""

    host: str
    port: int
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(text: str) -> Address:
    """Read `host:port`, `[::]:port` or `unix:/path`.

    Raises:
        ValueError: none of the three.
    """
    if text.startswith("unix:/"):
        return Address("", 0, text[5:])
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{text!r} is no address; write host:port, [::]:port or unix:/path")
    return Address(match[1] or match[2], int(match[3]))


class TlsSettings(_Section, frozen=True):
    cert: str
    key: str


class HeadLimitSettings(_Section, frozen=True):
    """How much of a request is read before it is refused. Octets, but for `fields`."""

    request_line: int = 8 * 1024  # nginx: 8 KiB
    head: int = 32 * 1024  # nginx: 4 x 8 KiB
    fields: int = 100  # HAProxy: 101
    body: int = 32 * 1024 * 1024  # the Messages API: 32 MB

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


class ServerTimeoutSettings(_Section, frozen=True):
    """Seconds. `body` is the grace after which a body must come at 1 KiB/s or faster."""

    head: float = 10.0
    body: float = 10.0
    idle: float = 75.0  # nginx keepalive_timeout
    write: float = 120.0
    drain: float = 600.0  # how long streams in flight may take to finish after SIGTERM

    def __post_init__(self) -> None:
        _positive(self)


class ServerSettings(_Section, frozen=True):
    listen: list[str] = field(default_factory=lambda: ["127.0.0.1:8080"])
    public_url: str = "http://127.0.0.1:8080"
    admin_listen: str = "127.0.0.1:8081"  # "": none
    key_prefix: str = "sk-llmapi-"
    tls: TlsSettings | None = None
    limits: HeadLimitSettings = HeadLimitSettings()
    timeouts: ServerTimeoutSettings = ServerTimeoutSettings()

    def __post_init__(self) -> None:
        if not self.listen:
            raise ValueError("listen needs at least one address")
        for setting, text in [
            *(("listen", text) for text in self.listen),
            *([("admin_listen", self.admin_listen)] if self.admin_listen else []),
        ]:
            try:
                address(text)
            except ValueError as error:
                raise ValueError(f"{setting}: {error}") from None
        _url("public_url", self.public_url)
        if not _KEY_PREFIX.fullmatch(self.key_prefix):
            raise ValueError("key_prefix takes up to 32 letters, digits, - and _")


class DatabaseSettings(_Section, frozen=True):
    path: str = "relay.db"
    synchronous: Literal["normal", "full"] = "normal"
    retention_days: int = 90

    def __post_init__(self) -> None:
        if not self.path or self.path == ":memory:":
            raise ValueError("path names a file, for keys have to outlast the process")
        if self.retention_days < 1:
            raise ValueError("retention_days must be at least 1")


class LogSettings(_Section, frozen=True):
    """`access` writes one JSON line a request to standard output."""

    access: bool = True


class UpstreamTimeoutSettings(_Section, frozen=True):
    """Seconds. `connect` includes TLS; `silence` is the longest pause within an answer."""

    connect: float = 5.0
    first_byte: float = 600.0
    silence: float = 120.0
    idle: float = 55.0  # below the 60 s after which most servers close

    def __post_init__(self) -> None:
        _positive(self)


class LimitSettings(_Section, frozen=True):
    """At most so many requests, or tokens, per stretch of time."""

    per: str
    requests: int | None = None
    tokens: int | None = None
    refill: Literal["smooth", "window"] | None = None

    def __post_init__(self) -> None:
        _duration("per", self.per)
        if (self.requests is None) == (self.tokens is None):
            raise ValueError("a limit has either requests or tokens")
        if (self.requests or self.tokens or 0) < 1:
            raise ValueError("a limit allows at least 1")


class PoolSettings(_Section, frozen=True):
    """How requests are shared among upstreams, and what they do while none is free."""

    tries: int = 3  # upstreams that one request may be sent to
    wait: float = 30.0  # seconds for an upstream that is busy or cooling down; 0: not at all
    queue: int = 1000  # requests that may wait at once; 0: none
    sticky: str = "5m"  # how long a session keeps its upstream after a request; "off": not
    grace: float = 8.0  # seconds with nothing to show after which a stream is begun all the same
    keep_alive: float = 10.0  # seconds of silence in a stream until the caller gets a ping
    longest_cooldown: str = "1h"  # nobody stays out for longer without being tried again

    def __post_init__(self) -> None:
        if not 1 <= self.tries <= 5:
            raise ValueError("tries must be from 1 to 5")
        if not self.wait >= 0 or not math.isfinite(self.wait):
            raise ValueError("wait must be 0 seconds (not at all) or more, and finite")
        if self.queue < 0:
            raise ValueError("queue must be 0 (nobody waits) or more")
        if self.sticky != "off":
            try:
                clock.seconds(self.sticky)
            except ValueError as error:
                raise ValueError(f'sticky: {error}, or "off"') from None
        _positive(self, "grace", "keep_alive")
        _duration("longest_cooldown", self.longest_cooldown)


class RuleSettings(_Section, frozen=True):
    """What one kind of a vendor's error answers means. Of several the first that fits applies.

    A rule fits if all of `status`, `code` and `says` that it gives do; `says` is searched in
    the error's message, ignoring case.
    """

    scope: Literal["caller", "request", "failure", "model", "account", "credential"]
    reason: str  # for the operator, such as "5-hour limit reached"
    status: int | None = None  # None: any of 400 and more, and errors within a stream
    code: list[str] = []  # error.code or error.type is one of these, numbers as text; []: any
    says: str | None = None
    seconds: float | None = None  # how long, where the answer itself tells no moment

    def __post_init__(self) -> None:
        if not self.reason or len(self.reason) > 100 or not self.reason.isprintable():
            raise ValueError("reason must be a short line of text, 1 to 100 characters")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError("status must be from 200 to 599, or be left out for any error")
        if not all(self.code):
            raise ValueError("code must not have an empty text in it; leave it out for any")
        if self.says is not None:
            _pattern("says", self.says)
        if self.seconds is not None:
            _positive(self, "seconds")


def _pattern(setting: str, text: str) -> None:
    if not text:
        raise ValueError(f"{setting} must not be empty; leave it out for any message")
    try:
        re.compile(text, re.IGNORECASE)  # as it will be used: `re` remembers it
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{setting} is no regular expression that can be used: {error}") from None


class PlanPollSettings(_Section, frozen=True):
    """Where a vendor tells what is left of a plan: `GET path` at the upstream's origin.

    `left` is a comma-separated list of dotted paths into the JSON answer, each to a number of
    what is left; a step `*` is every element of a list or every value of a table.
    """

    path: str
    left: str
    every: float = 300.0  # seconds between two readings

    def __post_init__(self) -> None:
        if not _PATH.fullmatch(self.path):
            raise ValueError('path must begin with "/" and be plain ASCII without spaces')
        if not self.left.strip():
            raise ValueError('left must name a number in the answer, such as "usage.remaining"')
        if not self.every >= 60 or not math.isfinite(self.every):
            raise ValueError("every must be at least 60 seconds, and finite")


class VendorSettings(_Section, frozen=True):
    """What is particular to the upstreams of one seller."""

    name: str
    hosts: list[str] = []  # base_urls at these hosts, or below them, are of this vendor
    thinking: str = "anthropic"  # family of its thinking blocks; no other family takes them
    usage: Literal["exclusive", "inclusive"] = (
        "exclusive"  # inclusive: input_tokens has cached ones
    )
    time_zone: str = "UTC"  # IANA name, of moments told without a zone
    models: list[str] = []  # what it serves, patterns such as "glm-*"; []: anything
    terms: str = ""  # a note on its terms of use, shown to the operator
    quota: PlanPollSettings | None = None
    rules: list[RuleSettings] = []

    def __post_init__(self) -> None:
        _named("name", self.name)
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(
                    f"hosts: {host!r} is no host; write it alone and in lower case: api.example.com"
                )
        _named("thinking", self.thinking)
        _time_zone("time_zone", self.time_zone)
        for pattern in self.models:
            if not re.fullmatch(r"[\x21-\x7e]{1,128}", pattern):
                raise ValueError(
                    f'models: {pattern!r} is no pattern of model names; write one such as "glm-*"'
                )


def _time_zone(setting: str, name: str) -> None:
    if name == "UTC":  # is known without a database of zones
        return
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"{setting}: {name!r} is no time zone known here; write an IANA name such as "
            "Asia/Shanghai, and see that the system's tzdata is installed"
        ) from None


class ResponsesSettings(_Section, frozen=True):
    """What is kept of the Responses API's conversations: for `store` and `previous_response_id`.

    `memory` is how many octets may be kept in memory in all.
    """

    store: Literal["off", "memory", "database"] = "off"
    key: str = ""  # what is kept in the database is encrypted with it
    keep: str = "30d"  # after its last use
    memory: int = 67_108_864

    def __post_init__(self) -> None:
        if self.key.startswith("$"):
            raise ValueError(f"key is taken literally; write env:{self.key.strip('${}')}")
        if self.store == "database" and not self.key:
            raise ValueError(f'key is needed for store = "database": {_MAKE_KEY}')
        _duration("keep", self.keep)
        if self.memory < 1_048_576:
            raise ValueError("memory must be at least 1048576 octets")

    def __repr__(self) -> str:
        return f"Responses({self.store!r})"  # the rest may hold a secret

    def secret(self) -> Secret | None:
        """The key itself; None: there is none.

        Raises:
            ValueError: the variable or file that `key` names is not there, or holds too little.
        """
        if not self.key:
            return None
        found = secret.resolve(self.key)
        if len(found.reveal()) < _LEAST_KEY:
            raise ValueError(f"it has fewer than {_LEAST_KEY} characters; {_MAKE_KEY}")
        return found


class UpstreamSettings(_Section, frozen=True):
    """One credential at one origin."""

    name: str
    base_url: str
    api_key: str
    auth: Literal["x-api-key", "bearer"] = "x-api-key"
    weight: int = 1
    priority: int = 0
    max_concurrency: int = 0
    headers: dict[str, str] = {}
    limits: list[LimitSettings] = []
    timeouts: UpstreamTimeoutSettings = UpstreamTimeoutSettings()
    ca: str | None = None  # a file of certificates to trust in place of the system's
    vendor: str = ""  # "": recognised by the host of base_url, else "generic"
    egress: str | None = None  # the URL of a proxy, also as env:NAME or file:/path

    def __post_init__(self) -> None:
        _named("name", self.name)
        _url("base_url", self.base_url)
        if re.search(r"/v1(/messages)?/?$", self.base_url):
            raise ValueError("base_url ends before /v1: the relay appends /v1/messages itself")
        if self.api_key.startswith("$"):
            raise ValueError(f"api_key is taken literally; write env:{self.api_key.strip('${}')}")
        if self.weight < 1:
            raise ValueError("weight must be at least 1")
        if self.max_concurrency < 0:
            raise ValueError("max_concurrency must be 0 (no cap) or more")
        for name, value in self.headers.items():
            if not _FIELD_NAME.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
                raise ValueError(
                    f"headers: {name!r} is no header, or its value is not printable ASCII"
                )
            if name.lower() in _OWN_FIELDS:
                raise ValueError(f"headers: {name} is set by the relay itself")
        if self.egress is not None and not self.egress.startswith(("env:", "file:")):
            _proxy("egress", self.egress)

    def __repr__(self) -> str:
        return f"Upstream({self.name!r})"  # the rest may hold secrets

    def credential(self) -> Secret:
        """The API key itself.

        Raises:
            ValueError: the variable or file that `api_key` names is not there.
        """
        return secret.resolve(self.api_key)

    def proxy(self) -> str | None:
        """The URL of the proxy that leads to it, perhaps with a password; None: straight.

        Raises:
            ValueError: the variable or file that `egress` names is not there or holds no such URL.
        """
        if self.egress is None or not self.egress.startswith(("env:", "file:")):
            return self.egress
        url = secret.resolve(self.egress).reveal()
        _proxy(f"what {self.egress} holds", url)
        return url


class RouteSettings(_Section, frozen=True):
    """An upstream that serves a model, under its own name for it if that differs."""

    upstream: str
    model: str | None = None
    accepts: Overrides | None = None  # what differs from the model's

    def __post_init__(self) -> None:
        if self.model is not None:
            _model_id("model", self.model)


class PriceSettings(_Section, frozen=True):
    """USD per million tokens."""

    input: float
    output: float
    cache_read: float = 0.0
    cache_write: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not value >= 0 or not math.isfinite(value):
                raise ValueError(f"{name} must be 0 or more, and finite")


class ModelSettings(_Section, frozen=True):
    id: str
    display_name: str = ""
    context_window: int = 200_000
    max_output_tokens: int = 64_000
    created: str = "2026-01-01"
    aliases: list[str] = []
    routes: list[RouteSettings] | None = None
    price: PriceSettings | None = None
    answer_model: Literal["served", "asked"] = "served"  # which name an answer gives
    accepts: Overrides | None = None  # what differs from the shipped table

    def __post_init__(self) -> None:
        for setting, name in [("id", self.id), *(("aliases", alias) for alias in self.aliases)]:
            _model_id(setting, name)
        if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", self.created):
            raise ValueError("created must be a date such as 2026-01-31")
        if self.routes is not None and not self.routes:
            raise ValueError("routes must name at least one upstream, or be left out for all")


class PlanSettings(_Section, frozen=True):
    id: str
    name: str = ""
    limits: list[LimitSettings] = []
    max_keys: int = 3
    max_concurrency: int = 0
    enforce: Literal["key", "account"] = "key"
    billing: Literal["subscription", "per-token"] = "subscription"
    cache_breakpoints: bool = True  # of dialects other than Messages, where a caller set none

    def __post_init__(self) -> None:
        _named("id", self.id)
        if self.max_keys < 1:
            raise ValueError("max_keys must be at least 1")
        if self.max_concurrency < 0:
            raise ValueError("max_concurrency must be 0 (no cap) or more")


class Settings(_Section, frozen=True):
    """The whole of relay.toml. As `parse` gives it, `vendor` has the shipped ones too."""

    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    log: LogSettings = LogSettings()
    pool: PoolSettings = PoolSettings()
    vendor: list[VendorSettings] = []
    upstream: list[UpstreamSettings] = []
    model: list[ModelSettings] = []
    plan: list[PlanSettings] = []
    responses: ResponsesSettings = ResponsesSettings()

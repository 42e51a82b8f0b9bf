"""relay.toml as values: every setting, its default, and what is accepted.

`load` refuses an unknown or mistyped setting with its dotted path and the values that
would be accepted. Nothing here opens a socket or a database.
"""

import math
import re
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import field

from relay import clock, secret
from relay.secret import Secret

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY_PREFIX = re.compile(r"[A-Za-z0-9_-]{0,32}")
_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_FIELD_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_URL_TEXT = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&()*+,;=%-]+")
_TELLING = re.compile(r"key|token|secret|auth|cookie|password|credential", re.IGNORECASE)
_OWN_FIELDS = {"host", "content-length", "transfer-encoding", "connection", "authorization",
               "x-api-key", "accept-encoding", "upgrade", "te", "trailer", "expect"}  # fmt: skip


# Read and checked, but not in force yet.
LATER = (
    "upstream[].weight",
    "upstream[].max_concurrency",
    "upstream[].limits",
    "server.admin_listen",
)


class ConfigError(Exception):
    """A setting that cannot be used: `path` is dotted, `reason` says what is accepted."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


def _named(setting: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{setting}: {name!r} is no name: up to 64 letters, digits, . _ and -")


def _positive(section: msgspec.Struct) -> None:
    for name in section.__struct_fields__:
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


class Tls(_Section, frozen=True):
    cert: str
    key: str


class Limits(_Section, frozen=True):
    """How much of a request is read before it is refused. Octets, but for `fields`."""

    request_line: int = 8 * 1024  # nginx: 8 KiB
    head: int = 32 * 1024  # nginx: 4 x 8 KiB
    fields: int = 100  # HAProxy: 101
    body: int = 32 * 1024 * 1024  # the Messages API: 32 MB

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


class ServerTimeouts(_Section, frozen=True):
    """Seconds. `body` is the grace after which a body must come at 1 KiB/s or faster."""

    head: float = 10.0
    body: float = 10.0
    idle: float = 75.0  # nginx keepalive_timeout
    write: float = 120.0
    drain: float = 600.0  # how long streams in flight may take to finish after SIGTERM

    def __post_init__(self) -> None:
        _positive(self)


class Server(_Section, frozen=True):
    listen: list[str] = field(default_factory=lambda: ["127.0.0.1:8080"])
    public_url: str = "http://127.0.0.1:8080"
    admin_listen: str = "127.0.0.1:8081"
    key_prefix: str = "sk-llmapi-"
    tls: Tls | None = None
    limits: Limits = Limits()
    timeouts: ServerTimeouts = ServerTimeouts()

    def __post_init__(self) -> None:
        if not self.listen:
            raise ValueError("listen needs at least one address")
        for setting, text in [
            *(("listen", text) for text in self.listen),
            ("admin_listen", self.admin_listen),
        ]:
            try:
                address(text)
            except ValueError as error:
                raise ValueError(f"{setting}: {error}") from None
        _url("public_url", self.public_url)
        if not _KEY_PREFIX.fullmatch(self.key_prefix):
            raise ValueError("key_prefix takes up to 32 letters, digits, - and _")


class Database(_Section, frozen=True):
    path: str = "relay.db"
    synchronous: Literal["normal", "full"] = "normal"
    retention_days: int = 90

    def __post_init__(self) -> None:
        if not self.path or self.path == ":memory:":
            raise ValueError("path names a file, for keys have to outlast the process")
        if self.retention_days < 1:
            raise ValueError("retention_days must be at least 1")


class Log(_Section, frozen=True):
    """`access` writes one JSON line a request to standard output."""

    access: bool = True


class UpstreamTimeouts(_Section, frozen=True):
    """Seconds. `connect` includes TLS; `silence` is the longest pause within an answer."""

    connect: float = 5.0
    first_byte: float = 600.0
    silence: float = 120.0
    idle: float = 55.0  # below the 60 s after which most servers close

    def __post_init__(self) -> None:
        _positive(self)


class Limit(_Section, frozen=True):
    """At most so many requests, or tokens, per stretch of time."""

    per: str
    requests: int | None = None
    tokens: int | None = None
    refill: Literal["smooth", "window"] | None = None

    def __post_init__(self) -> None:
        try:
            clock.seconds(self.per)
        except ValueError as error:
            raise ValueError(f"per: {error}") from None
        if (self.requests is None) == (self.tokens is None):
            raise ValueError("a limit has either requests or tokens")
        if (self.requests or self.tokens or 0) < 1:
            raise ValueError("a limit allows at least 1")


class Upstream(_Section, frozen=True):
    """One credential at one origin."""

    name: str
    base_url: str
    api_key: str
    auth: Literal["x-api-key", "bearer"] = "x-api-key"
    weight: int = 1
    priority: int = 0
    max_concurrency: int = 0
    headers: dict[str, str] = {}
    limits: list[Limit] = []
    timeouts: UpstreamTimeouts = UpstreamTimeouts()
    ca: str | None = None  # a file of certificates to trust in place of the system's

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

    def __repr__(self) -> str:
        return f"Upstream({self.name!r})"  # the rest may hold secrets

    def credential(self) -> Secret:
        """The API key itself.

        Raises:
            ValueError: the variable or file that `api_key` names is not there.
        """
        return secret.resolve(self.api_key)


class Route(_Section, frozen=True):
    """An upstream that serves a model, under its own name for it if that differs."""

    upstream: str
    model: str | None = None


class Price(_Section, frozen=True):
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


class Model(_Section, frozen=True):
    id: str
    display_name: str = ""
    context_window: int = 200_000
    max_output_tokens: int = 64_000
    created: str = "2026-01-01"
    aliases: list[str] = []
    routes: list[Route] | None = None
    price: Price | None = None

    def __post_init__(self) -> None:
        for setting, name in [("id", self.id), *(("aliases", alias) for alias in self.aliases)]:
            if not re.fullmatch(r"[\x21-\x7e]{1,128}", name) or '"' in name or "\\" in name:
                raise ValueError(
                    f"{setting}: {name!r} is no model id: printable ASCII without spaces or quotes"
                )
        if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", self.created):
            raise ValueError("created must be a date such as 2026-01-31")
        if self.routes is not None and not self.routes:
            raise ValueError("routes must name at least one upstream, or be left out for all")


class Plan(_Section, frozen=True):
    id: str
    name: str = ""
    limits: list[Limit] = []
    max_keys: int = 3
    max_concurrency: int = 0
    enforce: Literal["key", "account"] = "key"
    billing: Literal["subscription", "per-token"] = "subscription"

    def __post_init__(self) -> None:
        _named("id", self.id)
        if self.max_keys < 1:
            raise ValueError("max_keys must be at least 1")
        if self.max_concurrency < 0:
            raise ValueError("max_concurrency must be 0 (no cap) or more")


class Settings(_Section, frozen=True):
    """The whole of relay.toml."""

    server: Server = Server()
    database: Database = Database()
    log: Log = Log()
    upstream: list[Upstream] = []
    model: list[Model] = []
    plan: list[Plan] = []


def load(path: str | Path) -> Settings:
    """Read and check a relay.toml; relative paths in it are relative to its folder.

    Raises:
        ConfigError: the file is missing or no TOML, or a setting cannot be used.
    """
    try:
        text = Path(path).read_bytes().decode()
    except OSError as error:
        raise ConfigError("", f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError("", f"{path} is not UTF-8") from None
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("", f"{path} is no valid TOML: {error}") from None
    return _anchored(parse(tree), Path(path).resolve().parent)


def _anchored(settings: Settings, folder: Path) -> Settings:
    """The same with every file named from the root on."""

    def anchor(name: str) -> str:
        return str(folder / name)  # an absolute name stays as it is

    def upstream(one: Upstream) -> Upstream:
        key = one.api_key
        if key.startswith("file:"):
            key = "file:" + anchor(key[5:])
        return replace(one, api_key=key, ca=None if one.ca is None else anchor(one.ca))

    replace = msgspec.structs.replace
    server = settings.server
    if server.tls is not None:
        tls = Tls(cert=anchor(server.tls.cert), key=anchor(server.tls.key))
        server = replace(server, tls=tls)
    return replace(
        settings,
        server=server,
        database=replace(settings.database, path=anchor(settings.database.path)),
        upstream=[upstream(one) for one in settings.upstream],
    )


def parse(tree: dict[str, Any]) -> Settings:
    """Check a parsed TOML document.

    Raises:
        ConfigError: see `load`.
    """
    try:
        settings = msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from None
    _cross_check(settings)
    return settings


def _cross_check(settings: Settings) -> None:
    """What one setting says of another."""
    upstreams = _unique("upstream", "name", [u.name for u in settings.upstream])
    _unique("plan", "id", [plan.id for plan in settings.plan])
    _unique("model", "id", [name for m in settings.model for name in (m.id, *m.aliases)])
    for number, model in enumerate(settings.model):
        for index, route in enumerate(model.routes or ()):
            if route.upstream not in upstreams:
                raise ConfigError(
                    f"model[{number}].routes[{index}].upstream",
                    f"no upstream is named {route.upstream!r}; there are: "
                    + (", ".join(sorted(upstreams)) or "none"),
                )
        if model.price is None:
            priced = [plan.id for plan in settings.plan if plan.billing == "per-token"]
            if priced:
                raise ConfigError(
                    f"model[{number}].price",
                    f"plan {priced[0]!r} bills per token, so {model.id} needs a price",
                )


def _unique(section: str, key: str, names: list[str]) -> set[str]:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ConfigError(section, f"{key} {name!r} is given twice")
    return set(names)


_AT = re.compile(r"(.*) - at `\$?\.?(.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")


def _explain(text: str) -> ConfigError:
    """msgspec's message → the dotted path and what is accepted there."""
    match = _AT.fullmatch(text)
    reason, path = (match[1], match[2]) if match else (text, "")
    if (missing := _MISSING.fullmatch(reason)) is not None:
        path = f"{path}.{missing[1]}".lstrip(".")
        return ConfigError(path, f"is missing; write {_accepted(path)}")
    if (unknown := _UNKNOWN.fullmatch(reason)) is not None:
        fields = ", ".join(_accepted_fields(path))
        return ConfigError(
            f"{path}.{unknown[1]}".lstrip("."), f"unknown setting; accepted here: {fields}"
        )
    if reason.startswith(("Expected", "Invalid enum value")):
        return ConfigError(path, f"{reason}; accepted: {_accepted(path)}")
    first, _, rest = reason.partition(" ")
    if rest and first.rstrip(":") in _accepted_fields(path):  # raised by a section's own check
        return ConfigError(f"{path}.{first.rstrip(':')}".lstrip("."), rest)
    return ConfigError(path, reason)


def _type_at(path: str) -> Any:
    """The annotation of the setting at a dotted path."""
    here: Any = Settings
    for step in re.findall(r"[^.\[\]]+|\[\.*\d*\]", path):
        here = _unwrap(here)
        if step.startswith("["):
            here = get_args(here)[-1]
        elif get_origin(here) is dict:
            here = get_args(here)[1]
        else:
            here = get_type_hints(here)[step]
    return _unwrap(here)


def _unwrap(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        return next(part for part in get_args(kind) if part is not type(None))
    return kind


def _accepted_fields(path: str) -> list[str]:
    return sorted(getattr(_type_at(path), "__struct_fields__", ()))


_WORDS: dict[Any, str] = {
    str: "text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def _accepted(path: str) -> str:
    try:
        kind = _type_at(path)
    except (KeyError, IndexError, TypeError):
        return "see relay.toml"
    if get_origin(kind) is Literal:
        return " or ".join(f'"{value}"' for value in get_args(kind))
    if get_origin(kind) is list:
        return "a list [ … ]"
    if get_origin(kind) is dict or hasattr(kind, "__struct_fields__"):
        return "a table { … }"
    return _WORDS.get(kind, "see relay.toml")


def effective(settings: Settings, show: Callable[[str], str] = lambda _: "•••") -> dict[str, Any]:
    """All settings as plain values, literal secrets masked by `show`."""
    tree: dict[str, Any] = msgspec.to_builtins(settings)
    for upstream in tree["upstream"]:
        if not upstream["api_key"].startswith(("env:", "file:")):
            upstream["api_key"] = show(upstream["api_key"])
        for name, value in upstream["headers"].items():
            if _TELLING.search(name):
                upstream["headers"][name] = show(value)
    return tree

"""Every setting of relay.toml: its default, its unit, and what its values may be.

A section checks itself when it is made and raises `ValueError`, whose message begins with the
setting's name and says what to write instead. `load` checks one section against another. Must not
know files, TOML or dotted paths.
"""

import math
import os
import re
from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import field

from relay import secret
from relay.config.alerts import AlertingSettings, AlertSettings
from relay.config.backup import BackupSettings
from relay.config.capabilities import Overrides
from relay.config.checks import (
    check_alias,
    check_model_id,
    check_name,
    check_positive,
    check_url,
)
from relay.config.forms import Date, Days, Dollars, Octets, PlainText, Proxy, Seconds, Url
from relay.config.ledger import LedgerSettings
from relay.config.limits import HeadLimitSettings as HeadLimitSettings
from relay.config.payments import PaymentsSettings
from relay.config.tls_schema import AcmeSettings, Network, Tls, check_front
from relay.config.traces import TracesSettings
from relay.config.values import (
    Address,
    AdminAddress,
    Duration,
    DurationOrOff,
    Feature,
    ProxyUrl,
)
from relay.config.vendor_schema import VendorSettings
from relay.config.web import MailSettings, WebSettings
from relay.secret import Secret

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.\[\]:-]+")
_KEY_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]{0,32}")
_FIELD_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_FIELD_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_LONG_CONTEXT: Final = 1_000_000  # tokens: what clients take the suffix [1m] for
_DATE: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")
_MIN_KEY_LENGTH: Final = 32
_WITH_AUTHORITY: Final = (Address("0.0.0.0:80"), Address("[::]:80"))
_MAKE_KEY: Final = "make one with `openssl rand -hex 32`"
# Header fields that the relay sets itself.
_OWN_FIELDS: Final = {
    "host", "content-length", "transfer-encoding", "connection", "authorization", "x-api-key",
    "accept-encoding", "upgrade", "te", "trailer", "expect",
}  # fmt: skip


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class ServerTimeoutSettings(_Section, frozen=True):
    """Seconds."""

    head: Seconds = 10.0  # from a head's first octet to its end
    body: Seconds = 10.0  # after which a body must come at 1 KiB/s or faster
    upload: Seconds = 300.0  # for a complete body: 32 MiB at 1 Mbit/s
    idle: Seconds = 75.0  # between two requests; as nginx keepalive_timeout
    write: Seconds = 120.0  # for a caller that reads nothing
    drain: Seconds = 600.0  # for streams in flight to finish after SIGTERM

    def __post_init__(self) -> None:
        check_positive(self)


class ServerSettings(_Section, frozen=True):
    listen: list[Address] = field(default_factory=lambda: [Address("127.0.0.1:8080")])
    public_url: Url = "http://127.0.0.1:8080"
    admin_listen: AdminAddress = AdminAddress("unix")
    key_prefix: str = "sk-llmapi-"
    tls: Tls | None = None
    domains: list[str] = []
    redirect_listen: list[Address] | None = None  # None: port 80 with tls = "auto", else nowhere
    trusted_proxies: list[Network] = []
    proxy_protocol: bool = False
    cors_origins: list[str] = field(default_factory=lambda: ["*"])
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] | Literal["auto"] = 1
    limits: HeadLimitSettings = HeadLimitSettings()
    timeouts: ServerTimeoutSettings = ServerTimeoutSettings()

    def __post_init__(self) -> None:
        if not self.listen:
            raise ValueError("listen needs at least one address")
        check_url("public_url", self.public_url)
        if not _KEY_PREFIX.fullmatch(self.key_prefix):
            raise ValueError("key_prefix must be at most 32 letters, digits, - and _")
        for origin in self.cors_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    'cors_origins must be "*", or origins such as "https://app.example" without a '
                    "path, in small letters"
                )
        check_front(self)

    @property
    def processes(self) -> int:
        """The number of processes that serve."""
        return len(os.sched_getaffinity(0)) if self.workers == "auto" else self.workers

    @property
    def redirect_addresses(self) -> Sequence[Address]:
        """Where plain HTTP is answered beside https."""
        if self.redirect_listen is not None:
            return self.redirect_listen
        return _WITH_AUTHORITY if self.tls == "auto" else ()


class DatabaseSettings(_Section, frozen=True):
    path: PlainText = "relay.db"
    synchronous: Literal["normal", "full"] = "normal"
    retention_days: Days = 90

    def __post_init__(self) -> None:
        if not self.path or self.path == ":memory:":
            raise ValueError("path must be a file: keys have to survive a restart")
        if self.retention_days < 1:
            raise ValueError("retention_days must be at least 1")


class LogSettings(_Section, frozen=True):
    """`access` writes one line a request, to standard output or to a file."""

    access: bool = True
    format: Literal["json", "text"] = "json"
    file: str = ""  # "": standard output; opened again on SIGUSR1


class UpstreamTimeoutSettings(_Section, frozen=True):
    """Seconds."""

    connect: Seconds = 5.0  # TLS included
    first_byte: Seconds = 600.0
    silence: Seconds = 120.0  # the longest pause within an answer
    idle: Seconds = 55.0  # below the 60 s after which most servers close

    def __post_init__(self) -> None:
        check_positive(self)


class LimitSettings(_Section, frozen=True):
    """The most requests, or tokens, per length of time."""

    per: Duration
    requests: int | None = None
    tokens: int | None = None
    refill: Literal["smooth", "window"] | None = None

    def __post_init__(self) -> None:
        if (self.requests is None) == (self.tokens is None):
            raise ValueError("a limit must have either requests or tokens")
        if (self.requests or self.tokens or 0) < 1:
            raise ValueError("a limit must allow at least 1")


class PoolSettings(_Section, frozen=True):
    """How requests are shared among upstreams, and how long they wait for a free one."""

    tries: int = 3  # upstreams that one request may be sent to
    wait: Seconds = 30.0  # seconds for an upstream that is busy or cooling down; 0: not at all
    queue: int = 1000  # requests that may wait at once; 0: none
    sticky: DurationOrOff = DurationOrOff("5m")  # session affinity, from the last request on
    grace: Seconds = 8.0  # seconds without an answer until a stream starts all the same
    keep_alive: Seconds = 10.0  # seconds of silence in a stream until the caller gets a ping
    longest_cooldown: Duration = Duration("1h")  # after it, an upstream is tried again

    def __post_init__(self) -> None:
        if not 1 <= self.tries <= 5:
            raise ValueError("tries must be from 1 to 5")
        if not self.wait >= 0 or not math.isfinite(self.wait):
            raise ValueError("wait must be 0 seconds (no waiting) or more, and finite")
        if self.queue < 0:
            raise ValueError("queue must be 0 (no queue) or more")
        check_positive(self, "grace", "keep_alive")


class ResponsesSettings(_Section, frozen=True):
    """How responses are kept for the Responses API: for `store` and `previous_response_id`."""

    store: Literal["off", "memory", "database"] = "off"
    key: str = ""  # encrypts responses in the database
    keep: Duration = Duration("30d")  # after the last use
    memory: Octets = 67_108_864  # octets of all responses in memory
    per_account: Octets = 67_108_864  # octets of all responses of one account
    responses_per_account: int = 10_000
    conversation: Octets = 33_554_432  # octets of all turns of one conversation

    def __post_init__(self) -> None:
        if self.key.startswith("$"):
            raise ValueError(f"key is taken literally; write env:{self.key.strip('${}')}")
        if self.store == "database" and not self.key:
            raise ValueError(f'key is needed for store = "database": {_MAKE_KEY}')
        if self.memory < 1_048_576:
            raise ValueError("memory must be at least 1048576 octets")
        for name in ("per_account", "responses_per_account", "conversation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")

    def __repr__(self) -> str:
        return f"Responses({self.store!r})"  # the rest may hold a secret

    def secret(self) -> Secret | None:
        """The key itself; None if there is none.

        Raises:
            ValueError: the variable or file that `key` names cannot be read, or the key is short.
        """
        if not self.key:
            return None
        key = secret.resolve(self.key)
        if len(key.reveal()) < _MIN_KEY_LENGTH:
            raise ValueError(f"it has fewer than {_MIN_KEY_LENGTH} characters; {_MAKE_KEY}")
        return key


class CostCapSettings(_Section, frozen=True):
    """The most that an upstream may cost, in US dollars by the prices of its models, in UTC."""

    day: Dollars | None = None
    month: Dollars | None = None

    def __post_init__(self) -> None:
        if self.day is None and self.month is None:
            raise ValueError("day or month must be given")
        for name in ("day", "month"):
            value = getattr(self, name)
            if value is not None and (not value > 0 or not math.isfinite(value)):
                raise ValueError(f"{name} must be more than 0 dollars, and finite")


class UpstreamSettings(_Section, frozen=True):
    """One credential at one origin."""

    name: str
    base_url: Url
    api_key: str
    auth: Literal["x-api-key", "bearer"] = "x-api-key"
    weight: int = 1
    priority: int = 0
    max_concurrency: int = 0
    headers: dict[str, str] = {}
    limits: list[LimitSettings] = []
    cost_cap: CostCapSettings | None = None
    timeouts: UpstreamTimeoutSettings = UpstreamTimeoutSettings()
    ca: str | None = None  # a file of certificates to trust instead of the system's
    vendor: str = ""  # "": recognised by the host of base_url, else "generic"
    egress: Proxy | None = None  # a proxy's URL, or env:NAME or file:/path that holds one

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_url("base_url", self.base_url)
        if re.search(r"/v1(/messages)?/?$", self.base_url):
            raise ValueError("base_url must not include /v1: the relay appends /v1/messages")
        if self.api_key.startswith("$"):
            raise ValueError(f"api_key is taken literally; write env:{self.api_key.strip('${}')}")
        if self.weight < 1:
            raise ValueError("weight must be at least 1")
        if self.max_concurrency < 0:
            raise ValueError("max_concurrency must be 0 (no cap) or more")
        for name, value in self.headers.items():
            if not _FIELD_NAME.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
                raise ValueError(
                    f"headers: {name!r} is not a header name, or its value is not printable ASCII"
                )
            if name.lower() in _OWN_FIELDS:
                raise ValueError(f"headers: {name} is set by the relay itself")
        if self.egress is not None and not self.egress.startswith(("env:", "file:")):
            ProxyUrl.parse(self.egress, "egress")

    def __repr__(self) -> str:
        return f"Upstream({self.name!r})"  # the rest may hold secrets

    def credential(self) -> Secret:
        """The API key itself.

        Raises:
            ValueError: the variable or file that `api_key` names cannot be read.
        """
        return secret.resolve(self.api_key)

    def proxy(self) -> ProxyUrl | None:
        """The proxy that leads to it; None: a direct connection.

        Raises:
            ValueError: the variable or file that `egress` names cannot be read, or holds no URL
                of a proxy.
        """
        if self.egress is None:
            return None
        if self.egress.startswith(("env:", "file:")):
            url = secret.resolve(self.egress).reveal()
            return ProxyUrl.parse(url, f"what {self.egress} holds")
        return ProxyUrl.parse(self.egress, "egress")


class RouteSettings(_Section, frozen=True):
    """An upstream that serves a model."""

    upstream: str
    model: str | None = None  # its name for the model, if that differs
    accepts: Overrides | None = None  # changes to the model's capabilities

    def __post_init__(self) -> None:
        if self.model is not None:
            check_model_id("model", self.model)


class PriceSettings(_Section, frozen=True):
    """USD per million tokens, or per 1,000 calls of a server tool; and factors."""

    input: Dollars
    output: Dollars
    cache_read: Dollars | None = None  # None: a tenth of input
    cache_write: Dollars | None = None  # for five minutes; None: 1.25 times input
    cache_write_1h: Dollars | None = None  # None: twice input
    web_search: Dollars = 10.0
    web_fetch: Dollars = 0.0
    code_execution: Dollars = 5.0  # Anthropic: 0.05 an hour, at least five minutes
    fast: float = 6.0  # times all tokens, with speed "fast"
    inference_geo: dict[str, float] = field(default_factory=lambda: {"us": 1.1})
    service_tier: dict[str, float] = {}  # by the tier that served, such as "priority"

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            for number in value.values() if isinstance(value, dict) else (value,):
                if number is not None and (not number >= 0 or not math.isfinite(number)):
                    raise ValueError(f"{name} must be 0 or more, and finite")


class ModelSettings(_Section, frozen=True):
    id: str
    display_name: str = ""
    context_window: int = 200_000
    max_output_tokens: int = 64_000
    created: Date = "2026-01-01"
    aliases: list[str] = []  # `*` at the end matches the rest of a name
    list_1m: bool = False  # /v1/models lists it with the suffix [1m], too
    routes: list[RouteSettings] | None = None
    price: PriceSettings | None = None
    answer_model: Literal["served", "asked"] = "served"  # the name that answers give
    accepts: Overrides | None = None  # changes to the shipped table

    def __post_init__(self) -> None:
        check_model_id("id", self.id)
        for alias in self.aliases:
            check_alias(alias)
        if not _DATE.fullmatch(self.created):
            raise ValueError("created must be a date such as 2026-01-31")
        if self.routes is not None and not self.routes:
            raise ValueError("routes must name at least one upstream, or be left out for all")
        if self.list_1m and self.context_window < _LONG_CONTEXT:
            raise ValueError(f"list_1m needs a context_window of {_LONG_CONTEXT} or more")


class PlanSettings(_Section, frozen=True):
    id: str
    name: str = ""
    limits: list[LimitSettings] = []
    max_keys: int = 3
    max_concurrency: int = 0
    enforce: Literal["key", "account"] = "key"
    billing: Literal["subscription", "per-token"] = "subscription"
    cache_breakpoints: bool = True  # added to translated requests that have none
    exclude: list[Feature] = []  # what its requests may not use

    def __post_init__(self) -> None:
        check_name("id", self.id)
        if self.max_keys < 1:
            raise ValueError("max_keys must be at least 1")
        if self.max_concurrency < 0:
            raise ValueError("max_concurrency must be 0 (no cap) or more")


class Settings(_Section, frozen=True):
    """All of relay.toml. As returned by `parse`, `vendor` includes the shipped vendors."""

    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    ledger: LedgerSettings = LedgerSettings()
    log: LogSettings = LogSettings()
    pool: PoolSettings = PoolSettings()
    vendor: list[VendorSettings] = []
    upstream: list[UpstreamSettings] = []
    model: list[ModelSettings] = []
    plan: list[PlanSettings] = []
    responses: ResponsesSettings = ResponsesSettings()
    acme: AcmeSettings = AcmeSettings()
    backup: BackupSettings = BackupSettings()
    alerting: AlertingSettings = AlertingSettings()
    alert: list[AlertSettings] = []
    mail: MailSettings = MailSettings()
    web: WebSettings = WebSettings()
    traces: TracesSettings = TracesSettings()
    payments: PaymentsSettings = PaymentsSettings()

    @property
    def admin_address(self) -> AdminAddress:
        """Where the admin listener is; empty: nowhere."""
        return self.server.admin_listen.beside(self.database.path)

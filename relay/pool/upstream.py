"""One upstream: its connections, the head of a request to it, its state.

Decides how a credential and an address become request heads. Must not know which requests it
serves: `selection` decides that.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

from relay import config
from relay.net.deadlines import Deadlines
from relay.net.upstream.connection_pool import ConnectionPool
from relay.net.upstream.resolver import Resolver
from relay.pool import clock
from relay.pool.health import Health
from relay.pool.places import UNBOUNDED
from relay.pool.rendezvous import mark_of
from relay.pool.setup import UpstreamSetup
from relay.pool.spending import Spending
from relay.pool.vendor_errors import ErrorClassifier
from relay.quota.plans import Plan
from relay.quota.state import UPSTREAM
from relay.wire.events import Request

_MIN_SECRET_OCTETS: Final = 16
_BACKSLASH: Final = 0x5C
_MAX_SECRETS: Final = 32  # with those of earlier settings, which late answers may repeat


class Tier:
    """The upstreams of one priority. `virtual_time` is the latest that one of them was served at,
    see `Upstream`."""

    __slots__ = ("virtual_time",)

    def __init__(self) -> None:
        self.virtual_time = 0.0


class Upstream:
    """One credential at one origin. Its repr shows no credential.

    Turns are shared out by stride scheduling: each request moves `virtual_time` on by `stride`,
    which is 1/`weight`, and the upstream with the lowest `virtual_time` is due.

    `places` is the number of requests that may be in flight: `max_concurrency`, or what this
    process has borrowed of it (`held_places`). Until `full_until` there is no place but these.
    `on_release`, if there is one, is called when a request has ended, `on_cleared` when an
    operator has cleared it.
    """

    vendor: config.VendorSettings
    error_classifier: ErrorClassifier
    input_includes_cache: bool
    limits: Plan | None
    priority: int
    weight: int
    max_concurrency: int
    stride: float
    _spelled: re.Pattern[bytes]
    _secrets: tuple[bytes, ...]
    _escapes: re.Pattern[bytes]
    _long_spelled: re.Pattern[bytes]
    _prefix: bytes
    _fixed: bytes
    _overridden: tuple[bytes, ...]

    def __init__(
        self,
        settings: config.UpstreamSettings,
        all_settings: config.Settings,
        deadlines: Deadlines,
        resolver: Resolver | None = None,
        setup: UpstreamSetup | None = None,
    ) -> None:
        """`all_settings` have the vendors and the pool. Upstreams may share a `resolver`. `setup`
        has been read already.

        Raises:
            ValueError: the credential, the proxy or the `ca` file cannot be read.
        """
        self.name = settings.name
        self.ledger_name = UPSTREAM + settings.name
        self.mark = mark_of(settings.name)  # see `rendezvous`
        self.health = Health()
        self.virtual_time = 0.0
        self.tier = Tier()
        self.in_flight = 0
        self.places = UNBOUNDED
        self.borrows = False
        self.full_until = float("inf")
        self.on_release: Callable[[], None] | None = None
        self.on_cleared: Callable[[], None] | None = None
        self.requests = 0
        self.answered = 0
        self.other_model = 0  # answers that name another model than the request
        self.spending = Spending()
        self.quota_left: int | None = None  # of its plan, as last polled
        self._deadlines = deadlines
        self._resolver = resolver
        self._known: tuple[bytes, ...] = ()  # secrets, with those of earlier settings
        setup = self.setup = setup or UpstreamSetup.read(settings, all_settings)
        self.pool = ConnectionPool(setup.origin, deadlines, resolver)
        self.configure(setup)

    def configure(self, setup: UpstreamSetup) -> None:
        """Use these settings for the requests to come. Health, counters and requests in flight
        stay; so do idle connections, unless they lead elsewhere or are made in another way."""
        settings = setup.settings
        if setup.credential != self.setup.credential:
            self.health.clear()  # what another account was refused says nothing about this one
        self.setup = setup
        self.vendor = setup.vendor
        self.error_classifier = ErrorClassifier(setup.vendor, setup.longest_cooldown)
        self.input_includes_cache = setup.vendor.usage == "inclusive"
        self.limits = setup.limits
        cap = settings.cost_cap
        self.is_bounded = setup.limits is not None or cap is not None  # by limits of its own
        self.set_caps(cap)
        self.priority = settings.priority
        self.weight = settings.weight
        self.max_concurrency = settings.max_concurrency
        if not self.borrows:
            self.places = settings.max_concurrency or UNBOUNDED
        self.stride = 1 / settings.weight
        if setup.origin != self.pool.origin:
            self.pool.retire()
            self.pool = ConnectionPool(setup.origin, self._deadlines, self._resolver)
        credential = setup.credential.reveal()
        field = f"authorization: Bearer {credential}"
        if settings.auth == "x-api-key":
            field = f"x-api-key: {credential}"
        added = "".join(f"{name}: {value}\r\n" for name, value in settings.headers.items())
        self._know_secrets(
            credential,
            *(value for value in settings.headers.values() if len(value) >= _MIN_SECRET_OCTETS),
        )
        parts = urlsplit(settings.base_url)
        self._prefix = parts.path.rstrip("/").encode()
        self._fixed = (
            f"host: {parts.netloc}\r\n{field}\r\naccept-encoding: identity\r\n{added}".encode()
        )
        self._overridden = tuple(name.lower().encode() + b":" for name in settings.headers)

    def clear(self) -> None:
        """Forget every outage, as an operator wants it, here and on other nodes; a pause stays."""
        self.health.clear()
        if self.on_cleared is not None:
            self.on_cleared()

    def set_caps(self, cap: config.CostCapSettings | None) -> None:
        """Bound the cost of a day and of a month; None: not at all."""
        self.spending.day_cap = 0 if cap is None else round((cap.day or 0) * 1e6)
        self.spending.month_cap = 0 if cap is None else round((cap.month or 0) * 1e6)

    def _know_secrets(self, *secrets: str) -> None:
        """Hide these from now on, and those of earlier settings as before."""
        octets = [secret.encode() for secret in secrets]
        self._known = tuple(dict.fromkeys([*octets, *self._known]))[:_MAX_SECRETS]
        self._spelled = re.compile(b"|".join(map(_spellings_of, self._known)))
        # A short one is a placeholder, such as "ollama", which any answer may have.
        self._secrets = tuple(one for one in self._known if len(one) >= _MIN_SECRET_OCTETS)
        self._escapes = _escapes_of(self._secrets)
        self._long_spelled = re.compile(b"|".join(map(_spellings_of, self._secrets)) or b"(?!)")

    def __repr__(self) -> str:
        outage = self.health.describe("", clock.now())
        trouble = f" ({outage})" if outage else ""
        return f"<Upstream {self.name} in_flight={self.in_flight}{trouble} {self.pool!r}>"

    def repeats_credential(self, octets: bytes) -> bool:
        """Whether octets of this upstream repeat the operator's credential, in any spelling that a
        text in JSON has for it."""
        for secret in self._secrets:
            if octets.find(secret) >= 0:
                return True
        return (
            _BACKSLASH in octets  # found 20 times as fast as a pattern that is not there
            and self._escapes.search(octets) is not None
            and self._long_spelled.search(octets) is not None
        )

    def without_credential(self, octets: bytes) -> bytes:
        """Octets of this upstream, with "…" wherever they repeat the operator's credential."""
        return self._spelled.sub("…".encode(), octets)

    def head(self, request: Request, length: int) -> bytes:
        """The head of `request` for this upstream, with a body of `length` octets."""
        return self._head(request.method, request.target, request.onward, length)

    def messages_head(self, fields: bytes, length: int, *, counting: bool) -> bytes:
        """The head of a Messages request translated from another dialect; `counting`: for
        count_tokens."""
        target = b"/v1/messages/count_tokens" if counting else b"/v1/messages"
        return self._head(b"POST", target, fields, length)

    def _head(self, method: bytes, target: bytes, onward: bytes, length: int) -> bytes:
        if self._overridden:
            onward = b"".join(
                line + b"\r\n"
                for line in onward.split(b"\r\n")
                if line and not line.lower().startswith(self._overridden)
            )
        return b"%b %b%b HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n" % (
            method,
            self._prefix,
            target,
            self._fixed,
            onward,
            length,
        )

    def own_head(self, path: str) -> bytes:
        """The head of the relay's own GET, at the origin and not below its prefix."""
        return b"GET %b HTTP/1.1\r\n%baccept: application/json\r\n\r\n" % (
            path.encode(),
            self._fixed,
        )


def _spellings_of(secret: bytes) -> bytes:
    """A pattern of all spellings of a secret in texts of JSON (RFC 8259 §7), and in texts of JSON
    within such texts, where each escape has more backslashes."""
    spellings: list[bytes] = []
    for number in secret:
        octet = bytes([number])
        if octet == b"\\":
            spellings.append(rb"\\+(?i:u005c)?")
        else:
            short = re.escape(octet) + b"|" if octet in b'/"' else b""
            spellings.append(rb"(?:%b|\\+(?:%bu00(?i:%02x)))" % (re.escape(octet), short, number))
    return b"".join(spellings)


def _escapes_of(secrets: Iterable[bytes]) -> re.Pattern[bytes]:
    """A pattern that every other spelling of these secrets has, and few texts."""
    octets = b"".join(secrets)
    short = b"".join(re.escape(bytes([number])) for number in b'/"\\' if number in octets)
    return re.compile(rb"\\(?:[%b]|u00[2-7])" % short if short else rb"\\u00[2-7]")

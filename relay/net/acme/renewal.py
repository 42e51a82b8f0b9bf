"""Automatic certificates: ordered in the background, renewed before their end.

Decides which certificate is ordered next and what serves meanwhile. Never delays the start. Must
not know the steps of an order.
"""

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from relay.clock import rfc3339
from relay.config import Settings
from relay.net.acme import keys
from relay.net.acme.challenges import Challenges
from relay.net.acme.folder import AcmeFolder
from relay.net.acme.renewal_info import ASK_SECONDS, RenewalInfo, Suggestion
from relay.net.acme.schedule import renewal_time, retry_delay, suggested_time
from relay.net.acme.turns import Follower, turn
from relay.net.off_loop import off_loop
from relay.net.tls import Certificate, Certificates, read_certificate

_ORDER_TIMEOUT_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.05
_ASK_TIMEOUT_SECONDS: Final = 60.0
_MAX_SLEEP_SECONDS: Final = 3600.0  # the clock may be set meanwhile

_log = logging.getLogger("relay.net")
_log.setLevel(logging.INFO)  # certificates are rare, and an operator waits for them


@dataclass(slots=True)
class _Domain:
    name: str
    certificate: Certificate
    due: float  # Unix time of the next order
    jitter: float = 0.0  # from 0 to 1: where in the authority's window it is renewed
    ask_at: float = math.inf  # Unix time at which the authority is asked for its window
    failures: int = 0  # in a row
    error: str = ""  # of the last order

    def use(self, certificate: Certificate, jitter: float, ask_at: float) -> None:
        """Have a certificate of the authority's."""
        self.certificate, self.jitter, self.ask_at = certificate, jitter, ask_at
        self.due = renewal_time(certificate.not_before, certificate.not_after, jitter)

    @property
    def next_step(self) -> float:
        """When it is ordered or asked about, Unix time."""
        return self.due if self.failures else min(self.due, self.ask_at)


class AutoCertificates:
    """Keeps `certificates` with one certificate per domain of `server.domains`."""

    def __init__(self, certificates: Certificates, settings: Settings) -> None:
        """Read the certificates that are there. Blocks, but for files alone.

        Raises:
            OSError: the folder beside the database cannot be used.
        """
        self.challenges = Challenges()
        self.has_http = True  # whether HTTP-01 is answered: somebody listens
        self._certificates = certificates
        self._settings = settings.acme
        self._folder = AcmeFolder(settings.database.path, settings.acme.directory_url)
        self._renewal_info = RenewalInfo(settings.acme.directory_url, settings.acme.ca)
        self._is_ordering = False  # on a thread, which a cancelled `run` leaves behind
        self._follower: Follower | None = None  # of the process that served before
        self._random: Callable[[], float] = random.random
        self._changed = asyncio.Event()
        self._domains: list[_Domain] = []
        self._put([self._load(name) for name in settings.server.domains])

    def faults(self) -> dict[str, str]:
        """Domains whose last order failed, each with what to do."""
        return {one.name: one.error for one in self._domains if one.error}

    async def reload(self, settings: Settings) -> None:
        """Use other settings: known domains keep their certificates, new ones are ordered.

        Raises:
            OSError: the folder beside the database cannot be used; all stays as it is.
        """
        folder = AcmeFolder(settings.database.path, settings.acme.directory_url)
        known = {one.name: one for one in self._domains if folder.path == self._folder.path}
        self._settings, self._folder = settings.acme, folder
        self._renewal_info = RenewalInfo(settings.acme.directory_url, settings.acme.ca)
        names = [name for name in settings.server.domains if name not in known]
        loaded = await off_loop("acme", lambda: [self._load(name) for name in names])
        known.update({one.name: one for one in loaded})
        for domain in known.values():
            if domain.failures:  # the settings may be the cure
                domain.due, domain.failures = 0.0, 0
        self._put([known[name] for name in settings.server.domains])
        self._changed.set()

    def next_order(self) -> float:
        """When the next order is due, Unix time."""
        return min(one.due for one in self._domains)

    async def take_over(self) -> None:
        """Another process served until now: answer for the order that it finishes, if any."""
        follower = Follower(self._folder, self.challenges)
        with self._logged():
            if await off_loop("acme", follower.follow):
                self._follower = follower
            await self.look()

    async def finish(self, seconds: float) -> None:
        """Wait up to `seconds` for an order that still runs on its thread. The process that
        serves from now on answers for it, and uses its certificate."""
        until = time.monotonic() + seconds
        while self._is_ordering and time.monotonic() < until:  # noqa: ASYNC110 - set on a thread
            await asyncio.sleep(_POLL_SECONDS)

    async def look(self) -> None:
        """Use certificates that another process has got. Raises OSError."""
        domains = self._domains
        found = await off_loop("acme", lambda: [self._other(one) for one in domains])
        for domain, other in zip(domains, found, strict=True):
            if other is not None:
                domain.use(other, self._random(), 0.0)
                _log_new(domain)
        if any(found) and domains is self._domains:
            self._put(domains)

    @contextlib.contextmanager
    def _logged(self) -> Iterator[None]:
        """A certificate is ordered all the same if the folder cannot be read now."""
        try:
            yield
        except OSError as error:
            _log.warning("%s: %s", error.filename or self._folder.path, error.strerror)

    async def run(self) -> None:
        """Order and renew until cancelled."""
        if self._follower is not None:
            with self._logged():
                await off_loop("acme", self._follower.follow_to_end)
                await self.look()
        while True:
            now = time.time()
            # An order that is due waits for no question: an authority may answer none for long.
            domain = min(self._domains, key=lambda one: (one.due > now, one.next_step))
            wait = domain.next_step - now
            if wait <= 0:
                await (self._renew if domain.due <= now else self._ask)(domain)
                continue
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait, _MAX_SLEEP_SECONDS)):
                    await self._changed.wait()

    def _load(self, name: str) -> _Domain:
        try:
            certificate = self._stored(name)
            if certificate is not None:
                domain = _Domain(name, certificate, 0.0)
                domain.use(certificate, self._random(), 0.0)
                return domain
        except ValueError as error:
            _log.warning("%s is ordered again: %s", name, error)
        return _Domain(name, keys.temporary_certificate(self._folder, name), 0.0)

    def _stored(self, name: str) -> Certificate | None:
        """The certificate in the folder. Blocks. Raises OSError, ValueError."""
        path = self._folder.certificate(name)
        if self._folder.read(path) is None:
            return None
        certificate = read_certificate(path)
        return certificate if certificate.covers(name) else None

    def _other(self, domain: _Domain) -> Certificate | None:
        """The certificate in the folder, if it is not the one in force and not due. Blocks.

        Raises:
            OSError: it cannot be read.
        """
        try:
            found, present = self._stored(domain.name), domain.certificate
        except ValueError:
            return None
        if found is None:
            return None
        if renewal_time(found.not_before, found.not_after, 1.0) <= time.time():
            return None
        is_same = (found.not_before, found.not_after) == (present.not_before, present.not_after)
        return None if is_same else found

    def _put(self, domains: list[_Domain]) -> None:
        self._domains = domains
        self._certificates.replace([one.certificate for one in self._domains])

    async def _ask(self, domain: _Domain) -> None:
        """Ask the authority when a certificate is renewed; a failed question changes nothing."""
        domain.ask_at = time.time() + ASK_SECONDS
        info, path = self._renewal_info, self._folder.certificate(domain.name)

        def ask() -> Suggestion | None:
            chain = self._folder.read(path)
            if chain is None:
                return None
            return info.suggestion(chain)

        try:
            async with asyncio.timeout(_ASK_TIMEOUT_SECONDS):
                found = await off_loop("acme", ask)
        except Exception as error:
            _log.debug("no renewal information for %s: %r", domain.name, error)
            return
        if found is None:
            return
        one, window = domain.certificate, (found.start, found.end)
        domain.ask_at = time.time() + found.ask_after
        domain.due = suggested_time(window, one.not_before, one.not_after, domain.jitter)
        if domain.due <= time.time():
            page = f" (see {found.explanation})" if found.explanation else ""
            _log.info("%s is renewed now, as its authority asks%s", domain.name, page)

    async def _renew(self, domain: _Domain) -> None:
        """Order one certificate; on failure say what to do, and when the next try is."""
        try:
            async with asyncio.timeout(_ORDER_TIMEOUT_SECONDS):
                certificate = await off_loop("acme", lambda: self._fetch(domain))
        except TimeoutError:
            self._fail(domain, "the authority did not finish in time", None)
        except OSError as error:
            place = error.filename or self._folder.path  # a lock that fails names no file
            self._fail(domain, f"{place}: {error.strerror}", None)
        except Exception as error:
            self._fail(domain, str(error), getattr(error, "retry_after", None))
        else:
            domain.failures, domain.error = 0, ""
            domain.use(certificate, self._random(), time.time() + ASK_SECONDS)
            domain.due = max(domain.due, time.time() + 60)
            self._put(self._domains)
            _log_new(domain)

    def _fail(self, domain: _Domain, words: str, retry_after: float | None) -> None:
        domain.failures += 1
        domain.error = words
        delay = retry_delay(domain.failures, self._random(), retry_after)
        domain.due = time.time() + delay
        _log.warning(
            "no certificate for %s from %s: %s. Next try at %s",
            domain.name,
            self._settings.directory_url,
            words,
            rfc3339(domain.due),
        )

    def _kind(self, failures: int) -> str:
        """The challenge of the next order; with "auto" each failure changes it."""
        from relay.net.acme.order import HTTP_01, TLS_ALPN_01

        if self._settings.challenge != "auto":
            return self._settings.challenge
        if not self.has_http:
            return TLS_ALPN_01
        return (HTTP_01, TLS_ALPN_01)[failures % 2]

    def _fetch(self, domain: _Domain) -> Certificate:
        """Order a certificate and keep it, or use what another order got meanwhile. Blocks.

        Raises:
            OrderError: there is none.
            ValueError: the settings name a key that cannot be read, or another order hangs.
            OSError: it cannot be kept.
        """
        with turn(self._folder):
            self._is_ordering = True
            try:
                return self._other(domain) or self._order(domain)
            finally:
                self._is_ordering = False

    def _order(self, domain: _Domain) -> Certificate:
        """See `_fetch`."""
        from relay.net.acme.order import Binding, Order, fetch

        settings = self._settings
        kind = self._kind(domain.failures)
        try:
            key = settings.binding_key()
        except ValueError as error:
            raise ValueError(f"acme.eab_key: {error}") from None
        binding = None if key is None else Binding(settings.eab_key_id, key)
        url, email, ca = settings.directory_url, settings.email, settings.ca
        order = Order(domain.name, url, email, ca, kind, binding)
        content = fetch(order, self._folder, self.challenges)
        path = self._folder.certificate(domain.name)
        self._folder.write(path, content)
        return read_certificate(path)


def _log_new(domain: _Domain) -> None:
    end = rfc3339(domain.certificate.not_after)
    _log.info("%s has a new certificate, valid until %s", domain.name, end)

"""Automatic certificates: ordered in the background, renewed before their end.

Decides which certificate is ordered next and what serves meanwhile. Never delays the start. Must
not know the steps of an order.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relay.clock import rfc3339
from relay.config import Settings
from relay.net.acme import keys
from relay.net.acme.challenges import Challenges
from relay.net.acme.folder import AcmeFolder
from relay.net.acme.schedule import renewal_time, retry_delay
from relay.net.off_loop import off_loop
from relay.net.tls import Certificate, Certificates, read_certificate

_ORDER_TIMEOUT_SECONDS: Final = 300.0
_MAX_SLEEP_SECONDS: Final = 3600.0  # the clock may be set meanwhile

_log = logging.getLogger("relay.net")
_log.setLevel(logging.INFO)  # certificates are rare, and an operator waits for them


@dataclass(slots=True)
class _Domain:
    name: str
    certificate: Certificate
    due: float  # Unix time of the next order
    failures: int = 0  # in a row
    error: str = ""  # of the last order


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

    async def run(self) -> None:
        """Order and renew until cancelled."""
        while True:
            domain = min(self._domains, key=lambda one: one.due)
            wait = domain.due - time.time()
            if wait <= 0:
                await self._renew(domain)
                continue
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait, _MAX_SLEEP_SECONDS)):
                    await self._changed.wait()

    def _load(self, name: str) -> _Domain:
        path = self._folder.certificate(name)
        try:
            if self._folder.read(path) is not None:
                certificate = read_certificate(path)
                if certificate.covers(name):
                    return _Domain(name, certificate, self._due(certificate))
        except ValueError as error:
            _log.warning("%s is ordered again: %s", name, error)
        return _Domain(name, keys.temporary_certificate(self._folder, name), 0.0)

    def _due(self, certificate: Certificate) -> float:
        return renewal_time(certificate.not_before, certificate.not_after, self._random())

    def _put(self, domains: list[_Domain]) -> None:
        self._domains = domains
        self._certificates.replace([one.certificate for one in self._domains])

    async def _renew(self, domain: _Domain) -> None:
        """Order one certificate; on failure say what to do, and when the next try is."""
        try:
            async with asyncio.timeout(_ORDER_TIMEOUT_SECONDS):
                domain.certificate = await off_loop("acme", lambda: self._fetch(domain))
        except TimeoutError:
            self._fail(domain, "the authority did not finish in time", None)
        except OSError as error:
            self._fail(domain, f"{error.filename}: {error.strerror}", None)
        except Exception as error:
            self._fail(domain, str(error), getattr(error, "retry_after", None))
        else:
            domain.failures, domain.error = 0, ""
            domain.due = max(self._due(domain.certificate), time.time() + 60)
            self._put(self._domains)
            _log.info(
                "%s has a new certificate, valid until %s",
                domain.name,
                rfc3339(domain.certificate.not_after),
            )

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
        """Order a certificate and keep it. Blocks.

        Raises:
            OrderError: there is none.
            ValueError: the settings name a key that cannot be read.
            OSError: it cannot be kept.
        """
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

"""Where the listener's certificates come from: files, or an authority.

Decides which of the two, by `server.tls`. Must not know how either works.
"""

import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.config import ConfigError, Settings
from relay.net.certificate_files import CertificateFiles
from relay.net.tls import CertificateDates, Certificates

if TYPE_CHECKING:
    from relay.net.acme.challenges import Challenges
    from relay.net.acme.renewal import AutoCertificates


class CertificateSource:
    """The certificates in force, and the task that keeps them so."""

    def __init__(self, settings: Settings) -> None:
        """Read the certificates that are there. Blocks, but for files alone.

        Raises:
            ConfigError: a file of `server.tls` cannot be used.
            OSError: certificates of an authority cannot be kept beside the database.
        """
        self._certificates = Certificates()
        self._files: CertificateFiles | None = None
        self._auto: AutoCertificates | None = None
        if settings.server.tls == "auto":
            from relay.net.acme import renewal  # 18 MB, for those who use it

            self._auto = renewal.AutoCertificates(self._certificates, settings)
        else:
            self._files = CertificateFiles(self._certificates, settings)

    @property
    def context(self) -> ssl.SSLContext:
        """For the listener; stays the same when certificates change."""
        return self._certificates.context

    @property
    def challenges(self) -> "Challenges | None":
        """Answers to an authority; None: there is none."""
        return None if self._auto is None else self._auto.challenges

    def dates(self) -> list[CertificateDates]:
        """Until when each certificate in force is valid, under its first name."""
        return self._certificates.dates()

    def ends(self) -> dict[str, float]:
        """Until when each certificate in force is valid, epoch seconds, by its first name."""
        return {one.name: one.not_after for one in self.dates()}

    def faults(self) -> dict[str, str]:
        """Domains without a new certificate from the authority, each with what to do."""
        return {} if self._auto is None else self._auto.faults()

    def answers_http(self, is_answered: bool) -> None:
        """Say whether port 80 is listened on, which HTTP-01 needs."""
        if self._auto is not None:
            self._auto.has_http = is_answered

    async def take_over(self) -> None:
        """Go on where the process that served until now has stopped. Before this one listens."""
        if self._auto is not None:
            await self._auto.take_over()

    async def finish(self, seconds: float) -> None:
        """Another process serves: wait up to `seconds` for an order that still runs here."""
        if self._auto is not None:
            await self._auto.finish(seconds)

    def on_replace(self, callback: Callable[[], None]) -> None:
        """Call back each time that other certificates are in force."""
        self._certificates.on_replace = callback

    async def look(self) -> None:
        """Use what another process has ordered, or the files as they are now. Raises OSError,
        ValueError."""
        if self._auto is not None:
            await self._auto.look()
        elif self._files is not None:
            await self._files.look()

    async def reload(self, settings: Settings) -> None:
        """Use the files, or the domains and the authority, of other settings.

        Raises:
            ConfigError: they cannot be used, or `server.tls` changes between files and "auto",
                which needs a restart; the certificates in force stay.
        """
        if (settings.server.tls == "auto") != (self._auto is not None):
            raise ConfigError("server.tls", 'a change between files and "auto" needs a restart')
        if self._files is not None:
            await self._files.reload(settings)
        elif self._auto is not None:
            try:
                await self._auto.reload(settings)
            except OSError as error:
                reason = f"{error.filename}: {error.strerror}"
                raise ConfigError("server.tls", reason) from None

    async def run(self) -> None:
        """Keep the certificates up to date until cancelled."""
        if self._auto is not None:
            await self._auto.run()
        elif self._files is not None:
            await self._files.watch()

"""Certificates from files, exchanged when the files change.

Decides when files are read again, and when a new pair takes the place of the old one. Must not
know the listener.
"""

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from typing import Final

from relay.clock import rfc3339
from relay.config import Settings, TlsSettings, certificate_files
from relay.net import tls
from relay.net.off_loop import off_loop
from relay.net.tls import Certificate, Certificates

_INTERVAL_SECONDS: Final = 3.0

_log = logging.getLogger("relay.net")
_log.setLevel(logging.INFO)  # exchanges are rare, and an operator waits for them

_Signature = tuple[tuple[int, int, int], ...]  # of each file: time of change, octets, inode


@dataclass(slots=True)
class _Pair:
    files: TlsSettings
    certificate: Certificate
    signature: _Signature
    refused: _Signature | None = None  # of a new pair that cannot be used
    is_reported: bool = False


class CertificateFiles:
    """Keeps `certificates` as the files have them."""

    def __init__(self, certificates: Certificates, settings: Settings) -> None:
        """Read the files of `server.tls`.

        Raises:
            ConfigError: one of them cannot be used.
        """
        self._certificates = certificates
        self._pairs: list[_Pair] = []
        self._put(_load(settings))
        for fault in tls.faults(settings, time.time()):
            _log.warning("%s", fault)

    def _put(self, pairs: list[_Pair]) -> None:
        self._pairs = pairs
        self._certificates.replace([pair.certificate for pair in pairs])

    async def reload(self, settings: Settings) -> None:
        """Use the files of other settings, read now.

        Raises:
            ConfigError: one of them cannot be used; the certificates in force stay.
        """
        self._put(await off_loop("certificates", lambda: _load(settings)))

    async def watch(self) -> None:
        """Look every few seconds until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_INTERVAL_SECONDS)

    async def look(self) -> None:
        """Compare all files with those in force, and exchange the pairs that differ."""
        pairs = self._pairs
        changed = await off_loop("certificates", lambda: [_renewed(pair) for pair in pairs])
        if not any(changed) or pairs is not self._pairs:  # a reload came between
            return
        self._certificates.replace([pair.certificate for pair in pairs])


def _load(settings: Settings) -> list[_Pair]:
    """Raises ConfigError. Blocks."""
    files = certificate_files(settings.server.tls)
    signatures = [_signature(pair) for pair in files]  # first: a later change is found by them
    return [
        _Pair(*parts) for parts in zip(files, tls.load_files(settings), signatures, strict=True)
    ]


def _renewed(pair: _Pair) -> bool:
    """Read a pair again if its files differ; whether there is a new certificate. Blocks.

    A pair that is broken is reported at the second look: the first may have come between the
    writing of its two files.
    """
    signature = _signature(pair.files)
    if signature == pair.signature or (signature == pair.refused and pair.is_reported):
        return False
    try:
        certificate = tls.read_certificate(pair.files.cert, pair.files.key)
        expired = certificate.not_after
        if expired <= time.time() < pair.certificate.not_after:
            raise ValueError(f"that in {pair.files.cert} expired on {rfc3339(expired)}")
    except (OSError, ValueError) as error:
        pair.is_reported = signature == pair.refused
        pair.refused = signature
        if pair.is_reported:
            reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
            _log.warning("the new certificate is not used, the old one stays: %s", reason)
        return False
    if signature != _signature(pair.files):
        return False  # they are being written: the next look sees them complete
    pair.signature, pair.certificate, pair.refused = signature, certificate, None
    _log.info(
        "%s is read again: the certificate for %s, valid until %s, serves new connections",
        pair.files.cert,
        ", ".join(certificate.names) or "no name",
        rfc3339(certificate.not_after),
    )
    return True


def _signature(files: TlsSettings) -> _Signature:
    """A file that is not there has a signature as well."""
    found = []
    for name in (files.cert, files.key):
        try:
            state = os.stat(name)
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((state.st_mtime_ns, state.st_size, state.st_ino))
    return tuple(found)

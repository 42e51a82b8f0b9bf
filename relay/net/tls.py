"""TLS contexts and certificates: for the listener, and to verify upstreams.

Decides protocol versions, ciphers, the protocols offered (ALPN, RFC 7301), and which certificate a
name gets (SNI, RFC 6066 §3). Must not know connections, nor where certificates come from.
"""

import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from relay.clock import rfc3339
from relay.config import ConfigError, Settings, certificate_files

ALPN: Final = ("h2", "http/1.1")  # offered to callers, best first
# Forward secrecy and authenticated encryption, for TLS 1.2; 1.3 has no others.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(alpn: Sequence[str] = ALPN) -> ssl.SSLContext:
    """A context for callers, without a certificate: TLS 1.2 or later.

    Every context that the listener uses is made here.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(alpn))
    return context


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key, ready to serve; times are Unix time."""

    context: ssl.SSLContext
    names: tuple[str, ...]  # DNS names in lower case, `*.` for a wildcard; maybe none
    not_before: float
    not_after: float

    def covers(self, name: str) -> bool:
        """Whether a client that asks for `name` accepts it, by its names (RFC 9525 §6.3)."""
        return name in self.names or f"*.{name.partition('.')[2]}" in self.names


@dataclass(frozen=True, slots=True)
class CertificateDates:
    """Until when the certificate for a name is valid, Unix time."""

    name: str
    not_after: float


def read_certificate(cert: str, key: str | None = None) -> Certificate:
    """Read a chain, its own certificate first, and its key. Blocks.

    Args:
        cert: the chain's file, PEM.
        key: the key's file, PEM; None: in the same file.

    Raises:
        OSError: a file cannot be read.
        ValueError: the files are not a certificate and its key.
    """
    from cryptography import x509  # takes 18 MB and 0.2 s: only where TLS is served

    with open(cert, "rb") as file:
        chain = file.read()
    with open(key or cert, "rb") as file:
        key_text = file.read()
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
        names = _names(leaf)
    except ValueError:
        raise ValueError(f"there is no certificate in {cert}; it must be PEM") from None
    if b"ENCRYPTED" in key_text:
        raise ValueError(f"the key in {key or cert} is encrypted; write it without a password")
    context = server_context()
    try:
        context.load_cert_chain(cert, key, password="")  # else OpenSSL asks the terminal
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            reason = f"{key or cert} is not the key of {cert}"
        elif b"PRIVATE KEY-----" not in key_text:
            reason = f"there is no private key in {key or cert}; it must be PEM"
        else:
            reason = f"{cert} and {key or cert} cannot be used: {error.reason or error}"
        raise ValueError(reason) from None
    not_before, not_after = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    return Certificate(context, names, not_before.timestamp(), not_after.timestamp())


def _names(leaf: object) -> tuple[str, ...]:
    from cryptography import x509

    assert isinstance(leaf, x509.Certificate)
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()  # clients no longer read the common name
    return tuple(name.lower() for name in extension.value.get_values_for_type(x509.DNSName))


class Certificates:
    """The certificates in force, which a new handshake chooses from.

    `context` is for the listener. Connections keep the certificate that they began with. Tickets
    for resumption are `context`'s, so they outlive an exchange of certificates.
    """

    def __init__(self, certificates: Sequence[Certificate] = ()) -> None:
        self.context = server_context()
        self.context.sni_callback = self._select
        self.on_replace: Callable[[], None] = lambda: None  # called when others are in force
        self.replace(certificates)

    def replace(self, certificates: Sequence[Certificate]) -> None:
        """Use these from now on. The first is the default; of several for a name, the first."""
        self._certificates = tuple(certificates)
        self._by_name = {
            name: certificate.context
            for certificate in reversed(certificates)
            for name in certificate.names
        }
        self.on_replace()

    def dates(self) -> list[CertificateDates]:
        """Until when each certificate is valid, under its first name."""
        return [
            CertificateDates(one.names[0] if one.names else "", one.not_after)
            for one in self._certificates
        ]

    def _select(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        """The callback of OpenSSL, in each handshake; returns an alert to refuse it."""
        if not self._certificates:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        context = None
        if name is not None:
            name = name.lower()
            context = self._by_name.get(name) or self._by_name.get(f"*.{name.partition('.')[2]}")
        connection.context = context or self._certificates[0].context
        return None


def upstream(ca: str | None) -> ssl.SSLContext:
    """A context that verifies upstreams by the file `ca`; None: by the system's certificates.

    Raises:
        ValueError: the file has no certificates.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError:
        raise ValueError(f"ca: there are no certificates in {ca}") from None


def load_files(settings: Settings) -> list[Certificate]:
    """The certificates of `server.tls`, if they are in files. Blocks.

    Raises:
        ConfigError: one of them cannot be used.
    """
    tls = settings.server.tls
    certificates = []
    for index, pair in enumerate(certificate_files(tls)):
        path = f"server.tls[{index}]" if isinstance(tls, list) else "server.tls"
        try:
            certificates.append(read_certificate(pair.cert, pair.key))
        except OSError as error:
            raise ConfigError(path, f"cannot read {error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise ConfigError(path, str(error)) from None
    return certificates


def faults(settings: Settings, now: float) -> Iterator[ConfigError]:
    """Every fault of the certificates that the settings name, at the Unix time `now`."""
    try:
        certificates = load_files(settings)
    except ConfigError as error:
        yield error
        return
    for pair, one in zip(certificate_files(settings.server.tls), certificates, strict=True):
        if one.not_after <= now:
            reason = f"{pair.cert} expired on {rfc3339(one.not_after)}; renew it"
            yield ConfigError("server.tls", reason)
        elif one.not_before > now:
            reason = f"{pair.cert} is valid from {rfc3339(one.not_before)} on; see the clock"
            yield ConfigError("server.tls", reason)
    for domain in settings.server.domains if certificates else ():
        if not any(one.covers(domain) for one in certificates):
            reason = f"no certificate in server.tls is for {domain}"
            yield ConfigError("server.domains", reason)


def check(settings: Settings, now: float) -> None:
    """Check every certificate and key of the settings, at the Unix time `now`.

    Raises:
        ConfigError: one of them cannot be used, or no client would accept it.
    """
    for fault in faults(settings, now):
        raise fault
    authorities = [(f"upstream[{index}].ca", one.ca) for index, one in enumerate(settings.upstream)]
    for path, file in (*authorities, ("acme.ca", settings.acme.ca)):
        if file is not None:
            try:
                upstream(file)
            except ValueError as error:
                raise ConfigError(path, str(error).removeprefix("ca: ")) from None

"""Keys, requests and certificates of our own, in PEM.

Decides their kind: ECDSA on P-256. Must not know the authority.
"""

import datetime
import hashlib
import itertools
import ssl
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from relay.net.acme.folder import AcmeFolder
from relay.net.prelude import ACME_PROTOCOL
from relay.net.tls import ALPN, Certificate, read_certificate, server_context

_ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")  # RFC 8737 §3
_SELF_SIGNED_DAYS: Final = 7
_NO_CERTIFICATE_YET: Final = "relay has no certificate yet: see its log"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def temporary_certificate(folder: AcmeFolder, domain: str) -> Certificate:
    """What serves until the authority has answered; no client trusts it. Raises OSError."""
    path = _write_self_signed(folder, domain, [])
    try:
        return read_certificate(path)
    finally:
        folder.remove(path)


def challenge_context(folder: AcmeFolder, domain: str, authorization: str) -> ssl.SSLContext:
    """The answer to a TLS-ALPN-01 challenge (RFC 8737 §3). Raises OSError."""
    digest = hashlib.sha256(authorization.encode()).digest()
    extension = x509.UnrecognizedExtension(_ACME_IDENTIFIER, b"\x04\x20" + digest)
    path = _write_self_signed(folder, domain, [x509.Extension(_ACME_IDENTIFIER, True, extension)])
    try:
        context = server_context((ACME_PROTOCOL, *ALPN))
        context.load_cert_chain(path)
        return context
    finally:
        folder.remove(path)


def _write_self_signed(
    folder: AcmeFolder,
    domain: str,
    extensions: Sequence[x509.Extension[x509.UnrecognizedExtension]],
) -> str:
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NO_CERTIFICATE_YET)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    certificate = builder.sign(key, hashes.SHA256())
    path = folder.scratch()
    folder.write(path, pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
    return path


def check_chain(chain: bytes, key: ec.EllipticCurvePrivateKey, domain: str) -> None:
    """Check what an authority sent.

    Raises:
        ValueError: it is no chain of certificates for `domain` and `key`.
    """
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError:
        raise ValueError("it sent no certificate") from None
    leaf = certificates[0]
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        covered = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    except x509.ExtensionNotFound:
        covered = []
    if domain not in covered:
        raise ValueError(f"its certificate is for {', '.join(covered) or 'no name'}")
    if leaf.public_key() != key.public_key():
        raise ValueError("its certificate is for another key")
    if leaf.not_valid_after_utc <= datetime.datetime.now(datetime.UTC):
        raise ValueError("its certificate has expired already; see this machine's clock")
    for lower, upper in itertools.pairwise(certificates):
        try:
            lower.verify_directly_issued_by(upper)
        except (ValueError, TypeError, Exception):
            raise ValueError("the certificates of its chain did not sign each other") from None

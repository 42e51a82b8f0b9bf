"""Certificates for tests: with any names and dates, written as an operator would."""

import datetime
import ssl
from pathlib import Path

import trustme

from relay import config


def day(offset: float) -> datetime.datetime:
    """`offset` days from now."""
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=offset)


def write_pair(
    folder: Path, authority: trustme.CA, *names: str, stem: str = "relay", days: float = 90
) -> config.TlsSettings:
    """Write `stem.pem` and `stem.key` for `names`, valid for `days` from yesterday on."""
    issued = authority.issue_cert(*names, not_before=day(min(days - 1, -1)), not_after=day(days))
    cert, key = folder / f"{stem}.pem", folder / f"{stem}.key"
    cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return config.TlsSettings(cert=str(cert), key=str(key))


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that trusts `authority` alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def settings_with(*pairs: config.TlsSettings, **server: object) -> config.Settings:
    """Settings whose `server.tls` is a list of these pairs."""
    tls = [{"cert": pair.cert, "key": pair.key} for pair in pairs]
    return config.parse({"server": {"tls": tls, **server}})

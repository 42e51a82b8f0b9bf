"""The settings of TLS and of proxies in front: certificates, ACME, and who may name a caller.

Each section checks itself, as those of `schema` do. Must not know files, TOML or dotted paths.
"""

import ipaddress
import re
from typing import Any, Final, Literal, Self

import msgspec

from relay import secret
from relay.config.checks import check_url
from relay.config.forms import Mailbox, Url
from relay.secret import Secret

LETS_ENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"
LETS_ENCRYPT_STAGING: Final = "https://acme-staging-v02.api.letsencrypt.org/directory"

_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_MAX_DOMAIN_OCTETS: Final = 253
_MAX_DOMAINS: Final = 100
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}")
_EMAIL: Final = re.compile(r"[^\s@,\"<>]+@[^\s@,\"<>]+")

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    cert: str
    key: str


Tls = TlsSettings | list[TlsSettings] | Literal["auto"]


def certificate_files(tls: Tls | None) -> list[TlsSettings]:
    """The pairs of files of `server.tls`, the default first; none for "auto" and without TLS."""
    if isinstance(tls, TlsSettings):
        return [tls]
    return tls if isinstance(tls, list) else []


class AcmeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where certificates come from with `server.tls = "auto"` (RFC 8555)."""

    directory: Url = LETS_ENCRYPT
    staging: bool = False  # Let's Encrypt's directory for trials
    email: Mailbox = ""  # for the authority's warnings
    ca: str | None = None  # a file of certificates that the authority's own server is trusted by
    challenge: Literal["auto", "http-01", "tls-alpn-01"] = "auto"
    # The account at the authority that certificates belong to (external account binding).
    eab_key_id: str = ""
    eab_key: str = ""  # in base64url

    def __post_init__(self) -> None:
        check_url("directory", self.directory)
        if not self.directory.startswith("https://"):
            raise ValueError("directory must begin with https:// (RFC 8555 §6.1)")
        if self.staging and self.directory != LETS_ENCRYPT:
            raise ValueError("staging is Let's Encrypt's; leave it out with another directory")
        if self.email and not _EMAIL.fullmatch(self.email):
            raise ValueError(f"email: {self.email!r} is not an address such as ops@example.com")
        if bool(self.eab_key_id) != bool(self.eab_key):
            missing = "eab_key" if self.eab_key_id else "eab_key_id"
            raise ValueError(f"{missing} is missing; the authority shows both for its account")
        if not self.eab_key_id.isascii() or not self.eab_key_id.isprintable():
            raise ValueError("eab_key_id must be printable ASCII, as the authority shows it")

    def __repr__(self) -> str:
        return f"Acme({self.directory_url!r})"  # the rest may hold a secret

    def binding_key(self) -> Secret | None:
        """The key that binds an account of relay to one at the authority, in base64url; None:
        without.

        Raises:
            ValueError: it cannot be read. The message does not quote it.
        """
        if not self.eab_key:
            return None
        key = secret.resolve(self.eab_key)
        if not _BASE64URL.fullmatch(key.reveal()):
            raise ValueError("it is not base64url (letters, digits, - and _)")
        if len(key.reveal().rstrip("=")) % 4 == 1:
            raise ValueError("it is cut: base64url has no such length; copy it anew")
        return key

    @property
    def directory_url(self) -> str:
        """The directory in use."""
        return LETS_ENCRYPT_STAGING if self.staging else self.directory


class Network(str):
    """Addresses of proxies: `10.0.0.0/8`, a single address, or `unix` for Unix sockets."""

    __slots__ = ("network",)

    network: IpNetwork | None  # None: Unix sockets

    def __new__(cls, text: str) -> Self:
        """Raises ValueError: `text` is none of the three."""
        self = super().__new__(cls, text)
        try:
            self.network = None if text == "unix" else ipaddress.ip_network(text)
        except ValueError as error:
            if "host bits" in str(error):
                network = ipaddress.ip_network(text, strict=False)
                raise ValueError(f"{text!r} has bits beyond its prefix; write {network}") from None
            raise ValueError(
                f'{text!r} is no network such as "10.0.0.0/8", "192.0.2.7" or "2001:db8::/32", '
                'nor "unix"'
            ) from None
        return self


def check_front(server: Any) -> None:
    """Check the settings of `ServerSettings` that are about TLS and proxies.

    Raises:
        ValueError: the message begins with the setting's name.
    """
    for domain in server.domains:
        check_domain(domain)
    if len(server.domains) != len(set(server.domains)):
        raise ValueError("domains names a domain twice")
    if len(server.domains) > _MAX_DOMAINS:
        raise ValueError(f"domains may be {_MAX_DOMAINS} at most")
    if server.tls == "auto" and not server.domains:
        raise ValueError(
            'domains is empty; tls = "auto" needs the names to get certificates for, such as '
            '["relay.example"]'
        )
    if server.tls == []:
        raise ValueError("tls is an empty list; leave it out to serve without TLS")
    if server.redirect_listen and server.tls is None:
        raise ValueError("redirect_listen leads to https, so it needs tls")
    if any(address.path is not None for address in server.redirect_listen or ()):
        raise ValueError('redirect_listen must be "host:port" or "[::]:port"')
    if server.proxy_protocol and not server.trusted_proxies:
        raise ValueError(
            "proxy_protocol needs trusted_proxies: the addresses that may send its header"
        )


def check_domain(domain: str) -> None:
    """A host name that an authority may certify.

    Raises:
        ValueError: it is none.
    """
    if domain.startswith("*."):
        raise ValueError(
            f"domains: {domain!r} is a wildcard, which needs a DNS challenge (dns-01); list each "
            "name, or use certificate files"
        )
    try:
        ipaddress.ip_address(domain.strip("[]"))
    except ValueError:
        pass
    else:
        raise ValueError(
            f"domains: {domain!r} is an IP address; write a name, or use certificate files"
        )
    if not _DOMAIN.fullmatch(domain) or len(domain) > _MAX_DOMAIN_OCTETS:
        raise ValueError(
            f"domains: {domain!r} is not a host name in lower case, such as relay.example (without "
            "scheme, port and path; other letters as xn--…)"
        )

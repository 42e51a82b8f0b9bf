"""The settings of a provider by which people log in: OpenID Connect, or GitHub's OAuth 2.

Checks itself, as the sections of `schema` do. Must not know pages or how a provider is asked.
"""

import re
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from relay import secret
from relay.config.checks import check_name, check_url
from relay.config.forms import PlainText, Url
from relay.secret import Secret

_DOMAIN: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §3.3
_GITHUB: Final = "https://github.com"
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


class OidcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One provider."""

    name: str  # in addresses
    title: PlainText = ""  # on the button; "": the name
    kind: Literal["oidc", "github"] = "oidc"
    issuer: Url = ""  # "": https://github.com, for kind "github"
    client_id: str
    client_secret: str
    scopes: list[str] = []  # []: what is needed for the e-mail address
    domains: list[str] = []  # of e-mail addresses that may log in; []: any
    sign_up: bool = False  # whether somebody new gets an account
    ca: str | None = None  # a file of certificates to trust instead of the system's

    def __post_init__(self) -> None:
        check_name("name", self.name)
        if not self.title.isprintable():
            raise ValueError("title must have printable characters")
        if self.kind == "oidc" and not self.issuer:
            raise ValueError('issuer is needed, such as "https://accounts.google.com"')
        if self.issuer:
            check_url("issuer", self.issuer)
            parts = urlsplit(self.issuer)
            if parts.scheme != "https" and parts.hostname not in _LOCAL:
                raise ValueError("issuer must begin with https://, but on this machine")
        if not self.client_id or not self.client_id.isprintable():
            raise ValueError("client_id must be what the provider calls this relay")
        if self.client_secret.startswith("$"):
            name = self.client_secret.strip("${}")
            raise ValueError(f"client_secret is taken literally; write env:{name}")
        if not self.client_secret:
            raise ValueError("client_secret is needed: the provider shows it beside the client id")
        for scope in self.scopes:
            if not _SCOPE.fullmatch(scope):
                raise ValueError(f"scopes: {scope!r} is no scope; write one word for each")
        if self.kind == "oidc" and self.scopes and "openid" not in self.scopes:
            raise ValueError('scopes must have "openid"')
        for domain in self.domains:
            if not _DOMAIN.fullmatch(domain):
                raise ValueError(f'domains: write {domain!r} in lower case, such as "example.com"')

    def __repr__(self) -> str:
        return f"Oidc({self.name!r})"  # the rest holds a secret

    @property
    def shown(self) -> str:
        """Its name for people."""
        return self.title or self.name

    @property
    def issuer_url(self) -> str:
        """Its issuer, without a slash at the end."""
        return (self.issuer or _GITHUB).rstrip("/")

    @property
    def wanted_scopes(self) -> list[str]:
        """What it is asked for."""
        if self.scopes:
            return self.scopes
        return ["openid", "email"] if self.kind == "oidc" else ["read:user", "user:email"]

    def secret(self) -> Secret:
        """The client's secret itself.

        Raises:
            ValueError: the variable or file that it names cannot be read.
        """
        return secret.resolve(self.client_secret)

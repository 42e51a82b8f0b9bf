"""Asks a provider: its addresses and keys, and who somebody is that it sends here.

Every function waits for the network, so it runs on a thread beside the loop (`providers`). Decides
what is believed of an answer: no redirect, no other scheme, no more than 256 KiB, an ID token that
is signed for this relay and for this log-in. Must not know accounts or pages.
"""

import os
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from relay.config.oidc import OidcSettings

if TYPE_CHECKING:
    from authlib.integrations.requests_client import OAuth2Session

_TIMEOUT_SECONDS: Final = 5.0  # of a connection and of each read
_ANSWER_SECONDS: Final = 10.0  # of a complete answer
_MAX_OCTETS: Final = 256 * 1024
_KEPT_SECONDS: Final = 3600.0
_ANEW_SECONDS: Final = 60.0  # keys are read again for an unknown one, but not more often
_LEEWAY_SECONDS: Final = 60  # by which its clock may be wrong
# None with a shared secret, and not "none".
_ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
                      "ES512", "EdDSA", "Ed25519"]  # fmt: skip


class ProviderError(Exception):
    """The provider cannot be asked, or its answer cannot be believed; for the operator's log."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a provider is asked. GitHub has no keys, and `userinfo` is its API."""

    issuer: str
    authorization: str
    token: str
    userinfo: str
    keys: str = ""


@dataclass(frozen=True, slots=True)
class Journey:
    """One visit of a browser to a provider: what comes back must belong to it."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str


@dataclass(frozen=True, slots=True)
class Person:
    """A person, as the provider describes them."""

    issuer: str
    subject: str
    email: str
    is_verified: bool


class ProviderClient:
    """One provider. Its addresses and keys are kept for an hour."""

    def __init__(self, settings: OidcSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._endpoints: tuple[float, Endpoints] | None = None
        self._keys: tuple[float, dict[str, Any]] | None = None

    def leave(self, journey: Journey) -> str:
        """Where a browser goes to log in.

        Raises:
            ProviderError: the provider's addresses cannot be read.
        """
        endpoints = self.endpoints()
        with self._session(journey) as session:
            fields = {"nonce": journey.nonce} if endpoints.keys else {}
            url, _ = session.create_authorization_url(
                endpoints.authorization,
                state=journey.state,
                code_verifier=journey.verifier,
                **fields,
            )
        return str(url)

    def identify(self, journey: Journey, code: str) -> Person:
        """The person who came back with a code.

        Raises:
            ProviderError: the code is refused, or the answer cannot be believed.
        """
        from authlib.common.errors import AuthlibBaseError
        from joserfc.errors import JoseError

        endpoints = self.endpoints()
        try:
            with self._session(journey) as session:
                token = session.fetch_token(
                    endpoints.token,
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=journey.verifier,
                    timeout=_TIMEOUT_SECONDS,
                    allow_redirects=False,
                )
                if endpoints.keys:
                    return self._person(session, endpoints, token, journey.nonce)
                return _github_person(session, endpoints)
        except (AuthlibBaseError, JoseError, OSError, ValueError, TypeError, LookupError) as error:
            raise ProviderError(f"{type(error).__name__}: {error}") from error

    def endpoints(self) -> Endpoints:
        """The provider's addresses.

        Raises:
            ProviderError: they cannot be read, or belong to another issuer.
        """
        settings = self.settings
        with self._lock:
            if self._endpoints is None or self._endpoints[0] < time.monotonic():
                found = _github(settings) if settings.kind == "github" else self._discover()
                self._endpoints = (time.monotonic() + _KEPT_SECONDS, found)
            return self._endpoints[1]

    def _discover(self) -> Endpoints:
        issuer = self.settings.issuer_url
        document = self._get(f"{issuer}/.well-known/openid-configuration")
        stated = document.get("issuer")
        if not isinstance(stated, str) or stated.rstrip("/") != issuer:
            raise ProviderError(f"its configuration is of another issuer: {stated!r:.200}")
        urls = []
        for name in (
            "authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri",
        ):  # fmt: skip
            url = document.get(name, "")
            if url or name != "userinfo_endpoint":
                self._check_url(name, url)
            urls.append(url)
        return Endpoints(stated, *urls)

    def _check_url(self, name: str, url: object) -> None:
        scheme = urlsplit(url).scheme if isinstance(url, str) else ""
        allowed = ("https", urlsplit(self.settings.issuer_url).scheme)
        if scheme not in allowed:
            raise ProviderError(f"its configuration has no usable {name}: {url!r:.200}")

    def _get(self, url: str) -> dict[str, Any]:
        try:
            with self._session() as session:
                return _document(session.get(url, withhold_token=True, allow_redirects=False))
        except (OSError, ValueError) as error:
            raise ProviderError(f"{url}: {error}") from error

    def _session(self, journey: Journey | None = None) -> "OAuth2Session":
        from authlib.integrations.requests_client import OAuth2Session

        settings = self.settings
        session = OAuth2Session(
            settings.client_id,
            settings.secret().reveal(),
            redirect_uri=journey.redirect_uri if journey else None,
            scope=" ".join(settings.wanted_scopes),
            code_challenge_method="S256",
            default_timeout=_TIMEOUT_SECONDS,
        )
        session.trust_env = False  # no proxy and no .netrc of the environment
        session.verify = settings.ca or _system_certificates()
        session.hooks["response"].append(_read_bounded)
        return session

    # --- ID tokens ---

    def _person(
        self, session: "OAuth2Session", endpoints: Endpoints, token: Any, nonce: str
    ) -> Person:
        claims = self._claims(endpoints, token, nonce)
        email, is_verified = claims.get("email"), claims.get("email_verified")
        if email is None and endpoints.userinfo:
            answer = session.get(endpoints.userinfo, allow_redirects=False)
            document = _document(answer)
            if document.get("sub") != claims["sub"]:
                raise ProviderError("its user information is of somebody else")
            email, is_verified = document.get("email"), document.get("email_verified")
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= 255:
            raise ProviderError("its ID token has no usable subject")
        return Person(
            self.settings.issuer_url,
            subject,
            email if isinstance(email, str) else "",
            is_verified is True or is_verified == "true",
        )

    def _claims(self, endpoints: Endpoints, token: Any, nonce: str) -> Any:
        """The claims of an ID token that is signed for this relay and this log-in."""
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt

        decoded = jwt.decode(
            token["id_token"], self._key_set(endpoints, token["id_token"]), algorithms=_ALGORITHMS
        )
        audience = self.settings.client_id
        claims = CodeIDToken(
            decoded.claims,
            decoded.header,
            options={
                "iss": {"essential": True, "value": endpoints.issuer},
                "aud": {"essential": True, "value": audience},
            },
            params={
                "nonce": nonce,
                "client_id": audience,
                "access_token": token.get("access_token", ""),
            },
        )
        claims.validate(int(time.time()), _LEEWAY_SECONDS)
        return claims

    def _key_set(self, endpoints: Endpoints, id_token: str) -> Any:
        """The provider's keys, read again if they lack the one that is named."""
        from joserfc.jwk import KeySet
        from joserfc.jws import extract_compact

        header = extract_compact(id_token.encode()).headers()
        named = header.get("kid")
        with self._lock:
            now = time.monotonic()
            kept = self._keys
            age = _KEPT_SECONDS if kept is None else now - kept[0]
            is_known = kept is not None and named in [
                key.get("kid") for key in kept[1]["keys"] if isinstance(key, dict)
            ]
            if kept is None or age >= _KEPT_SECONDS or (not is_known and age >= _ANEW_SECONDS):
                document = self._get(endpoints.keys)
                if not isinstance(document.get("keys"), list):
                    raise ProviderError("its keys are no list")
                self._keys = kept = (now, document)
        return KeySet.import_key_set(kept[1])  # type: ignore[arg-type]  # any JSON object


# --- GitHub ---


def _github(settings: OidcSettings) -> Endpoints:
    issuer = settings.issuer_url
    is_public = issuer == "https://github.com"
    return Endpoints(
        issuer,
        f"{issuer}/login/oauth/authorize",
        f"{issuer}/login/oauth/access_token",
        "https://api.github.com" if is_public else f"{issuer}/api/v3",
    )


def _github_person(session: "OAuth2Session", endpoints: Endpoints) -> Person:
    """GitHub issues no ID token: who somebody is, its API says."""
    user = _document(session.get(f"{endpoints.userinfo}/user", allow_redirects=False))
    number = user.get("id")
    if not isinstance(number, int) or isinstance(number, bool):
        raise ProviderError("its user has no number")
    answer = session.get(f"{endpoints.userinfo}/user/emails", allow_redirects=False)
    _check_status(answer)
    for one in msgspec.json.decode(answer.content, type=list[dict[str, Any]]):
        email = one.get("email")
        if one.get("primary") is True and isinstance(email, str):
            return Person(endpoints.issuer, str(number), email, one.get("verified") is True)
    return Person(endpoints.issuer, str(number), "", False)


# --- answers ---


def _check_status(answer: Any) -> None:
    if answer.status_code != 200:
        raise ProviderError(f"{urlsplit(answer.url).path} answers {answer.status_code}")


def _document(answer: Any) -> dict[str, Any]:
    _check_status(answer)
    return msgspec.json.decode(answer.content, type=dict[str, Any])


def _read_bounded(answer: Any, **_: Any) -> None:
    """Read an answer, but not a long or a slow one; a hook, before the library reads it."""
    if answer.is_redirect:
        raise ProviderError(f"{urlsplit(answer.url).path} leads elsewhere, which is not followed")
    deadline = time.monotonic() + _ANSWER_SECONDS
    octets = bytearray()
    for piece in answer.iter_content(8192):
        octets += piece
        if len(octets) > _MAX_OCTETS or time.monotonic() > deadline:
            answer.close()
            raise ProviderError(f"{urlsplit(answer.url).path} is too long or too slow")
    answer._content = bytes(octets)


def _system_certificates() -> str | bool:
    """The authorities of the system, as elsewhere in the relay; True: those of the library."""
    paths = ssl.get_default_verify_paths()
    for path in (paths.cafile, paths.capath):
        if path and os.path.exists(path):
            return path
    return True

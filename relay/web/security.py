"""What protects people's browsers: header fields of every page, cookies, requests of other sites.

Decides whether a request that changes something comes from these pages. Must not know accounts.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import Response

SESSION_COOKIE: Final = "relay"
THEME_COOKIE: Final = "theme"
LANGUAGE_COOKIE: Final = "lang"
COLUMNS_COOKIE: Final = "columns"
_YEAR_SECONDS: Final = 365 * 86_400
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

POLICY: Final = "content-security-policy"


def page_policy(*form_targets: str) -> str:
    """Nothing from elsewhere, and no script within a page: a name that somebody chose can run
    nothing. `form_targets`: other origins to which the answer to a form may lead."""
    targets = " ".join(("'self'", *form_targets))
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"connect-src 'self'; worker-src 'self'; form-action {targets}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )


HEADERS: Final = (
    (POLICY.encode(), page_policy().encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=()"),
)
STRICT_TRANSPORT: Final = (b"strict-transport-security", b"max-age=31536000")


def is_cross_site(method: str, headers: Mapping[str, str]) -> bool:
    """Whether another site's page makes this request, which would change something.

    The rule of Go's `http.CrossOriginProtection`: browsers say where a request comes from, in
    Sec-Fetch-Site, or the older ones in Origin. Other programs say neither, and have no cookies
    of somebody else.
    """
    if method in _SAFE_METHODS:
        return False
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return False
    return urlsplit(origin).netloc != headers.get("host", "")


def session_cookie_name(*, secure: bool) -> str:
    """The session cookie's name; `__Host-` binds it to this host and to https (RFC 6265bis)."""
    return f"__Host-{SESSION_COOKIE}" if secure else SESSION_COOKIE


def set_session(response: Response, token: str, seconds: int, *, secure: bool) -> None:
    """Give a browser its session, or with an empty token take it away."""
    set_private(response, session_cookie_name(secure=secure), token, seconds, secure=secure)


def set_private(response: Response, name: str, value: str, seconds: int, *, secure: bool) -> None:
    """Set a cookie that no script reads; an empty value takes it away."""
    response.set_cookie(
        name,
        value,
        max_age=seconds if value else 0,
        path="/",
        secure=secure,
        httponly=True,
        samesite="lax",
    )


def step_cookie_name(kind: str, *, secure: bool) -> str:
    """The name of a cookie that binds something under way to its browser."""
    return f"__Host-{kind}" if secure else kind


def set_step(response: Response, kind: str, token: str, seconds: int, *, secure: bool) -> None:
    """Bind something under way to a browser, or with an empty token let it go."""
    response.set_cookie(
        step_cookie_name(kind, secure=secure),
        token,
        max_age=seconds if token else 0,
        path="/",
        secure=secure,
        httponly=True,
        samesite="lax",
    )


def set_preference(response: Response, name: str, value: str, *, secure: bool) -> None:
    """Remember a choice of how pages look."""
    response.set_cookie(
        name, value, max_age=_YEAR_SECONDS, path="/", secure=secure, httponly=True, samesite="lax"
    )

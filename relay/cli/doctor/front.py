"""The relay from its clients' side: the public address, and the proxy before it.

Decides what must not be reachable there. Sends no key.
"""

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from relay import config
from relay.cli.doctor import buffering
from relay.cli.doctor.findings import Finding, fault, passed, warning
from relay.cli.doctor.public import connection_to

_TIMEOUT_SECONDS: Final = 5.0
_PROXY_SECONDS: Final = 60.0  # nginx: proxy_read_timeout
_CLOUDFLARE_SECONDS: Final = 100.0
_MOST_READ: Final = 4096  # octets of an answer
_OF_FILES: Final = "check the certificate there"
_OF_AUTO: Final = (
    "wait a moment after the first start; if no certificate comes, the relay's log says why "
    "(`journalctl -u relay`)"
)


def examine(settings: config.Settings, *, offline: bool) -> Iterator[Finding]:
    """All findings; `offline` asks nobody."""
    yield from _admin(settings)
    yield from _silence(settings)
    if not offline:
        is_auto = settings.server.tls == "auto"
        public = list(_public(settings.server.public_url, _OF_AUTO if is_auto else _OF_FILES))
        yield from public
        if all(one.level == "ok" for one in public):
            yield from buffering.examine(settings)


def _admin(settings: config.Settings) -> Iterator[Finding]:
    address = settings.server.admin_listen
    if not address or address.path is not None or address.host.lower() == "localhost":
        return
    try:
        is_loopback = ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        yield warning(
            "admin listener",
            f"other machines may reach {address}, and its token crosses the network in plain text",
            'set server.admin_listen to "unix" or to a loopback address',
        )


def _silence(settings: config.Settings) -> Iterator[Finding]:
    """Whether keep-alives come before a proxy gives up."""
    longest = max(settings.pool.grace, settings.pool.keep_alive)
    found = f"a stream is never silent for more than {longest:g} s"
    if longest >= _PROXY_SECONDS:
        yield warning(
            "100-second rule",
            f"{found}; nginx ends it after {_PROXY_SECONDS:g} s, Cloudflare after "
            f"{_CLOUDFLARE_SECONDS:g} s",
            "lower pool.grace and pool.keep_alive",
        )
    else:
        yield passed(
            "100-second rule",
            f"{found}: proxies wait {_PROXY_SECONDS:g} to {_CLOUDFLARE_SECONDS:g} s. Answers that "
            "are no stream have no keep-alives: clients behind Cloudflare should stream",
        )


def _public(url: str, certificate_remedy: str) -> Iterator[Finding]:
    what = f"public_url {url}"
    try:
        status, body = _get(url, "/healthz")
    except socket.gaierror as error:
        yield fault(what, f"its name is not found: {error.strerror}", "add a DNS record for it")
        return
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or "no TLS"
        yield fault(what, f"clients cannot trust it: {reason}", certificate_remedy)
        return
    except (OSError, http.client.HTTPException) as error:
        yield fault(
            what, f"no answer: {error}",
            "start the relay, and check public_url, the firewall and the proxy",
        )  # fmt: skip
        return
    if status != 200 or body != b"ok\n":
        yield fault(
            what, f"GET /healthz got {status}, not the relay's answer",
            "let the proxy pass every path on to the relay",
        )  # fmt: skip
        return
    yield passed(what, "the relay answers there")
    try:
        status, body = _get(url, "/metrics")
    except (OSError, http.client.HTTPException):
        return
    if status == 200 and b"relay_" in body:
        yield fault(
            "metrics", f"everybody can read {url}/metrics",
            "do not pass this path on to the admin listener",
        )  # fmt: skip
    else:
        yield passed("metrics", "not served in public")


def _get(url: str, path: str) -> tuple[int, bytes]:
    """Status and beginning of an answer. Raises OSError or HTTPException."""
    connection, prefix = connection_to(url, _TIMEOUT_SECONDS)
    try:
        connection.request("GET", prefix + path)
        response = connection.getresponse()
        return response.status, response.read(_MOST_READ)
    finally:
        connection.close()

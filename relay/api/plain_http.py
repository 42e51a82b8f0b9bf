"""The listener for plain HTTP beside https: an authority's challenges, and redirects for people.

Decides who is redirected: a reader of pages, never an API client. A client that follows a redirect
sends its key in clear text with every request, and nobody notices. Must not know certificates.
"""

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol
from urllib.parse import urlsplit

from relay.api.paths import error_shape
from relay.config import Address, ServerSettings
from relay.errors import FORBIDDEN, NOT_FOUND, RelayError
from relay.net.deadlines import Deadlines
from relay.net.exchange import Exchange
from relay.net.listener import listen
from relay.net.server import Bounds, Server
from relay.wire.headers import CREDENTIALS

_CHALLENGES: Final = b"/.well-known/acme-challenge/"  # RFC 8555 §8.3
_API: Final = b"/v1"
_IN_CLEAR: Final = (
    " The key in this request crossed the network in clear text: revoke it, and make a new one."
)

_BOUNDS: Final = Bounds(connections=256, body=64 * 1024, idle_time=10.0)

_log = logging.getLogger("relay.api")

Bind = Callable[[Server, Address], Awaitable[None]]


class HttpChallenges(Protocol):
    """Answers to an authority's HTTP-01 challenges."""

    def key_authorization(self, token: str) -> str | None: ...


class PlainHttp:
    """See the module."""

    def __init__(
        self, authority: str, domains: Sequence[str], challenges: HttpChallenges | None
    ) -> None:
        """`authority`: host and port of the https address, where a request names none of
        `domains`."""
        self._authority = authority.encode()
        self._domains = frozenset(domain.encode() for domain in domains)
        self._challenges = challenges

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        request = exchange.request
        exchange.closing = True
        if request.path.startswith(_CHALLENGES) and self._challenges is not None:
            token = request.path.removeprefix(_CHALLENGES).decode("latin-1")
            answer = self._challenges.key_authorization(token)
            if answer is None:
                exchange.fail(RelayError(NOT_FOUND, "There is no such challenge."))
            else:
                fields = [(b"content-type", b"application/octet-stream")]
                exchange.respond(200, fields, answer.encode())
            return
        location = b"https://" + self._host(request.headers.get(b"host", b""))
        has_key = not CREDENTIALS.isdisjoint(request.headers)
        is_api = request.path == _API or request.path.startswith(_API + b"/")
        if has_key or is_api or request.method not in (b"GET", b"HEAD"):
            words = f"This is plain HTTP. Use {location.decode()} as the base URL."
            self._refuse(exchange, words + (_IN_CLEAR if has_key else ""))
            return
        target = request.target if request.target.startswith(b"/") else b"/"
        exchange.respond(308, [(b"location", location + target)], b"")

    def _host(self, field: bytes) -> bytes:
        """Where to: a name of ours that the request has, never another one."""
        name = field.partition(b":")[0].lower()
        port = self._authority.rpartition(b":")
        suffix = b":" + port[2] if port[1] and port[2].isdigit() else b""
        return name + suffix if name in self._domains else self._authority

    def _refuse(self, exchange: Exchange, words: str) -> None:
        error = RelayError(FORBIDDEN, words)
        shape = error_shape(exchange.request)
        fields = [
            (b"content-type", b"application/json"),
            (b"request-id", exchange.id),
            *error.headers,
        ]
        exchange.respond(error.status(shape), fields, error.body(shape, exchange.id.decode()))


async def _bind(server: Server, address: Address) -> None:
    await listen(server, address.host, address.port)


def exchange_plain_http(
    server: Server, settings: ServerSettings, challenges: HttpChallenges | None
) -> None:
    """Redirect to the domains of other settings from now on."""
    server.handler = _handler(settings, challenges).handle


def _handler(settings: ServerSettings, challenges: HttpChallenges | None) -> PlainHttp:
    return PlainHttp(urlsplit(settings.public_url).netloc, settings.domains, challenges)


async def open_plain_http(
    settings: ServerSettings,
    challenges: HttpChallenges | None,
    deadlines: Deadlines,
    bind: Bind = _bind,
) -> tuple[Server, bool]:
    """Listen on `redirect_listen`; the server, and whether it listens anywhere.

    `bind` lets a server listen on an address, or raises OSError. Where a default address cannot
    be used, the relay serves without it.

    Raises:
        OSError: an address of the settings cannot be used; the message names it.
    """
    server = Server(_handler(settings, challenges).handle, deadlines, _BOUNDS)
    is_default = settings.redirect_listen is None
    for address in settings.redirect_addresses:
        try:
            await bind(server, address)
        except OSError as error:
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else str(error)
            if not is_default:
                raise OSError(f"cannot listen on {address}: {reason}") from None
            _log.warning("no redirects to https from %s: %s", address, reason)
    return server, bool(server.listeners)

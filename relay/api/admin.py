"""The operator's own listener: what the upstreams are doing, and pausing one of them.

It asks for no key, since it is meant for this machine alone, so that it has to keep out whom
this machine lets in unawares: a web page in the operator's browser. A page's requests carry
fields that no command sends (Fetch Metadata, RFC 6454 §7), and one that had its own name point
here carries that name in Host. A command meant for another relay is refused by the database.

Decides who is answered and in which shape; what a pause means is decided in `gateway.health`.
Knows nothing of callers: nothing of this is served where they are.
"""

import ipaddress
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import quote, unquote

import orjson

from relay.errors import CONFLICT, FORBIDDEN, INTERNAL, NOT_FOUND, WRONG_METHOD, RelayError
from relay.net.exchange import Exchange
from relay.pool.affinity import Sessions
from relay.pool.leases import Upstreams
from relay.pool.upstream import Upstream
from relay.store import pauses
from relay.store.database import Database, StoreError

_log = logging.getLogger("relay.gateway")

PROOF: Final = "x-relay-admin"
_JSON: Final = (b"content-type", b"application/json")
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_BROWSERS: Final = (b"origin", b"sec-fetch-site")
_HOST: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+))(?::[0-9]*)?")
_ACTION: Final = re.compile(rb"/upstreams/([^/]+)/(pause|resume|clear)")
_SERVED: Final = "GET /upstreams, POST /upstreams/NAME/pause, …/resume, …/clear, and GET /healthz"


def identity(path: str | os.PathLike[str]) -> str:
    """Which relay it is: the one that serves from this database, whatever links lead there."""
    return os.fsencode(os.path.realpath(path)).decode(errors="replace")


def proof(path: str | os.PathLike[str]) -> str:
    """The same as a request has it in `x-relay-admin`: percent-encoded, plain ASCII."""
    return quote(identity(path))


class Admin:
    """The handler of the admin listener."""

    def __init__(
        self,
        upstreams: Upstreams,
        sessions: Sessions | None,
        database: Database,
        path: str,
        host: str,
    ) -> None:
        """`path` is the database's, `host` the one that relay.toml has this listen on."""
        self._upstreams = upstreams
        self._sessions = sessions
        self._database = database
        self._identity = identity(path)
        self._hosts = {"localhost", host.lower()} - {""}
        self._actions: dict[bytes, Callable[[Upstream], Awaitable[None]]] = {
            b"pause": self._pause,
            b"resume": self._resume,
            b"clear": self._clear,
        }

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request; its failures are told by the server, in the Messages shape."""
        request = exchange.request
        path = request.path
        self._guard(request.headers)
        if path == b"/healthz":
            _allow(exchange, b"GET", b"HEAD")
            exchange.respond(200, [_TEXT], b"ok\n")
        elif path == b"/upstreams":
            _allow(exchange, b"GET", b"HEAD")
            _answer(exchange, self._list())
        elif (match := _ACTION.fullmatch(path)) is not None:
            _allow(exchange, b"POST")
            self._check_meant(request.headers)
            upstream = self._named(unquote(match[1].decode("latin-1")))
            await self._actions[match[2]](upstream)
            _log.warning("upstream %s: %s, by the operator", upstream.name, match[2].decode())
            _answer(exchange, self._row(upstream))
        else:
            raise RelayError(NOT_FOUND, f"There is nothing here. Served: {_SERVED}.")

    # --- who is answered ---

    def _guard(self, headers: dict[bytes, bytes]) -> None:
        for name in _BROWSERS:
            if name in headers:
                raise RelayError(FORBIDDEN, f"Not for browsers: {name.decode()} is not taken here.")
        match = _HOST.fullmatch(headers.get(b"host", b"").decode("latin-1"))
        host = (match[1] or match[2]).lower() if match is not None else ""
        if host not in self._hosts and not _is_ip(host):
            raise RelayError(
                FORBIDDEN,
                "Host must be an IP address, localhost, or the host of server.admin_listen.",
            )

    def _check_meant(self, headers: dict[bytes, bytes]) -> None:
        told = headers.get(PROOF.encode())
        if told is None:
            raise RelayError(
                FORBIDDEN, f"Send {PROOF} with the database of the relay that is meant."
            )
        if unquote(told.decode("latin-1")) != self._identity:
            raise RelayError(
                CONFLICT, f"Another relay is meant: this one serves from {self._identity}."
            )

    def _named(self, name: str) -> Upstream:
        found = self._upstreams.named(name)
        if found is None:
            names = ", ".join(one.name for one in self._upstreams) or "none"
            raise RelayError(NOT_FOUND, f"No upstream has that name; there are: {names}.")
        return found

    # --- what they get ---

    def _list(self) -> dict[str, object]:
        return {
            "database": self._identity,
            "upstreams": self._rows(),
            "waiting": self._upstreams.waiting,
        }

    def _rows(self) -> list[dict[str, object]]:
        counts = self._sessions.counts(time.monotonic()) if self._sessions is not None else {}
        rows = self._upstreams.view()
        for row in rows:
            row["sessions"] = counts.get(str(row["name"]), 0)
        return rows

    def _row(self, upstream: Upstream) -> dict[str, object]:
        return next(row for row in self._rows() if row["name"] == upstream.name)

    # --- what they do: in force at once, and written before the answer. A caller that leaves
    # meanwhile changes nothing of either: the writing has been asked for by then.

    async def _pause(self, upstream: Upstream) -> None:
        upstream.health.pause()
        try:
            await pauses.pause(self._database, upstream.name, time.time())
        except StoreError as error:
            raise _not_written(f"{upstream.name} is paused", error) from None

    async def _resume(self, upstream: Upstream) -> None:
        upstream.health.resume()
        self._upstreams.wake()
        try:
            await pauses.resume(self._database, upstream.name)
        except StoreError as error:
            raise _not_written(f"{upstream.name} is resumed", error) from None

    async def _clear(self, upstream: Upstream) -> None:
        upstream.health.clear()
        self._upstreams.wake()


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _allow(exchange: Exchange, *methods: bytes) -> None:
    if exchange.request.method not in methods:
        allowed = b", ".join(methods)
        raise RelayError(
            WRONG_METHOD,
            f"Use {allowed.decode()} for this.",
            headers=((b"allow", allowed),),
        )


def _answer(exchange: Exchange, value: object) -> None:
    exchange.respond(200, [_JSON], orjson.dumps(value) + b"\n")


def _not_written(done: str, error: StoreError) -> RelayError:
    return RelayError(INTERNAL, f"{done}, but only until the relay is started again: {error}.")

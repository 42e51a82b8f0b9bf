"""The operator's listener: shows the upstreams' state, pauses and resumes them.

On a Unix socket the file system decides who reaches it; on TCP every request needs the token
(`api.admin_token`). A web page in the operator's browser could still reach it, so it refuses
browsers: their requests carry fields that no command sends (Fetch Metadata; RFC 6454 §7), and
after DNS rebinding Host names the page's own site. A command for another relay is refused by the
path of its database.

Decides which requests are answered, and how. `pool.health` decides the effect of a pause. Must not
know callers: none of these paths is served on their listener.
"""

import hmac
import ipaddress
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote

import msgspec
import orjson

from relay.api.explain import Explainer
from relay.api.explanation import explanation, not_kept
from relay.api.monitor import Monitor
from relay.errors import (
    CONFLICT,
    FORBIDDEN,
    INTERNAL,
    NOT_FOUND,
    UNAUTHENTICATED,
    WRONG_METHOD,
    RelayError,
)
from relay.net.exchange import Exchange
from relay.pool.affinity import Bindings
from relay.pool.upstream import Upstream
from relay.store import pauses
from relay.store.audit import Actor, Change, note
from relay.store.database import Database, StoreError

_log = logging.getLogger("relay.api")

PROOF: Final = "x-relay-admin"
_JSON: Final = (b"content-type", b"application/json")
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_BROWSER_FIELDS: Final = (b"origin", b"sec-fetch-site")
_HOST_FIELD: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+))(?::[0-9]*)?")
_EXPLAIN: Final = b"/explain/"
_ACTION: Final = re.compile(rb"/upstreams/([^/]+)/(pause|resume|clear)")
_SERVED: Final = (
    "GET /upstreams, POST /upstreams/NAME/pause, …/resume, …/clear, POST /reload, POST /handover, "
    "POST /trickle, GET /explain/ID, GET /metrics, GET /status, and GET /healthz"
)

Command: TypeAlias = Callable[[], Awaitable[object]]


def identity(path: str | os.PathLike[str]) -> str:
    """The relay's identity: the path of its database, with symbolic links resolved."""
    return os.fsencode(os.path.realpath(path)).decode(errors="replace")


def proof(path: str | os.PathLike[str]) -> str:
    """The identity as `x-relay-admin` carries it: percent-encoded, plain ASCII."""
    return quote(identity(path))


@dataclass(frozen=True, slots=True)
class AdminAccess:
    """Who may ask: the host that Host may name besides localhost and IP addresses, and the token
    to be sent with every request; None: none is, for it is a Unix socket."""

    host: str
    token: str | None

    @property
    def authorization(self) -> bytes | None:
        """The value of the `authorization` field."""
        return None if self.token is None else f"Bearer {self.token}".encode()


class Admin:
    """The handler of the admin listener."""

    def __init__(
        self,
        monitor: Monitor,
        bindings: Bindings,
        database: Database,
        path: str,
        access: AdminAccess,
        explainer: Explainer,
    ) -> None:
        """`path` is the database's."""
        self._upstreams = monitor.upstreams
        self._bindings = bindings
        self._database = database.by(Actor("operator", "admin listener"))
        self.monitor = monitor
        self.explainer = explainer
        self._identity = identity(path)
        self._authorization = access.authorization
        self._hosts = {"localhost", access.host.lower()} - {""}
        self.commands: dict[bytes, Command] = {}  # by path; they act on the process
        self._actions: dict[bytes, Callable[[Upstream], Awaitable[None]]] = {
            b"pause": self._pause,
            b"resume": self._resume,
            b"clear": self._clear,
        }

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request.

        Raises:
            RelayError: the request is refused; the server answers in the Messages shape.
        """
        request = exchange.request
        path = request.path
        self._refuse_browsers(request.headers)
        self._check_token(request.headers)
        if path == b"/healthz":
            _allow(exchange, b"GET", b"HEAD")
            exchange.respond(200, [_TEXT], b"ok\n")
        elif path == b"/upstreams":
            _allow(exchange, b"GET", b"HEAD")
            _answer(exchange, await self._list())
        elif path == b"/status":
            _allow(exchange, b"GET", b"HEAD")
            _answer(exchange, await self._status())
        elif path == b"/metrics":
            _allow(exchange, b"GET", b"HEAD")
            accept = request.headers.get(b"accept", b"").decode("latin-1")
            text, content_type = await self.monitor.metrics(accept)
            exchange.respond(200, [(b"content-type", content_type.encode())], text)
        elif path.startswith(_EXPLAIN):
            _allow(exchange, b"GET", b"HEAD")
            _answer(exchange, await self._explain(unquote(path[len(_EXPLAIN) :].decode("latin-1"))))
        elif (command := self.commands.get(path)) is not None:
            _allow(exchange, b"POST")
            self._check_identity(request.headers)
            _answer(exchange, await command())
        elif (match := _ACTION.fullmatch(path)) is not None:
            _allow(exchange, b"POST")
            self._check_identity(request.headers)
            upstream = self._find(unquote(match[1].decode("latin-1")))
            await self._actions[match[2]](upstream)
            _log.warning("upstream %s: %s, by the operator", upstream.name, match[2].decode())
            _answer(exchange, await self._row(upstream))
        else:
            raise RelayError(NOT_FOUND, f"There is nothing here. Served: {_SERVED}.")

    # --- access ---

    def _refuse_browsers(self, headers: dict[bytes, bytes]) -> None:
        for name in _BROWSER_FIELDS:
            if name in headers:
                raise RelayError(FORBIDDEN, f"Not for browsers: {name.decode()} is not taken here.")
        match = _HOST_FIELD.fullmatch(headers.get(b"host", b"").decode("latin-1"))
        host = (match[1] or match[2]).lower() if match is not None else ""
        if host not in self._hosts and not _is_ip(host):
            raise RelayError(
                FORBIDDEN,
                "Host must be an IP address, localhost, or the host of server.admin_listen.",
            )

    def _check_token(self, headers: dict[bytes, bytes]) -> None:
        """Raises RelayError: the token is missing or wrong. It tells nothing about the relay."""
        expected = self._authorization
        if expected is None or hmac.compare_digest(headers.get(b"authorization", b""), expected):
            return
        raise RelayError(
            UNAUTHENTICATED,
            "Send authorization: Bearer with the token in the file beside the database whose "
            "name ends in .admin-token.",
            headers=((b"www-authenticate", b"Bearer"),),
        )

    def _check_identity(self, headers: dict[bytes, bytes]) -> None:
        stated = headers.get(PROOF.encode())
        if stated is None:
            raise RelayError(
                FORBIDDEN, f"Send {PROOF} with the database of the relay that is meant."
            )
        if unquote(stated.decode("latin-1")) != self._identity:
            raise RelayError(
                CONFLICT, f"Another relay is meant: this one serves from {self._identity}."
            )

    def _find(self, name: str) -> Upstream:
        upstream = self._upstreams.named(name)
        if upstream is None:
            names = ", ".join(known.name for known in self._upstreams) or "none"
            raise RelayError(NOT_FOUND, f"No upstream has that name; there are: {names}.")
        return upstream

    # --- state ---

    async def _list(self) -> dict[str, object]:
        total = (await self.monitor.figures()).total
        rows = self._with_sessions(await self.monitor.rows(total))
        return {"database": self._identity, "upstreams": rows, "waiting": total.waiting}

    async def _status(self) -> dict[str, object]:
        status, total = await self.monitor.status()
        rows = self._with_sessions(await self.monitor.rows(total))
        first = {"database": self._identity, "upstreams": rows, "waiting": total.waiting}
        return {**first, **status}

    def _with_sessions(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        sticky = self._upstreams.settings.sticky != "off"
        counts = self._bindings.counts(time.monotonic()) if sticky else {}
        for row in rows:
            row["sessions"] = counts.get(row["name"], 0)
        return rows

    async def _row(self, upstream: Upstream) -> dict[str, Any]:
        rows = self._with_sessions(await self.monitor.view())
        return next(row for row in rows if row["name"] == upstream.name)

    async def _explain(self, request_id: str) -> dict[str, object]:
        facts = await self.explainer.explain(request_id)
        request = {**msgspec.to_builtins(facts), "not_kept": not_kept(facts)}
        return {"database": self._identity, "request": request, "text": explanation(facts)}

    # --- actions ---
    # An action takes effect immediately and is written before the answer. A caller that leaves
    # cancels neither: the write is already queued.

    async def _pause(self, upstream: Upstream) -> None:
        upstream.health.pause()
        try:
            await pauses.pause(self._database, upstream.name, time.time())
        except StoreError as error:
            raise _not_written_error(f"{upstream.name} is paused", error) from None

    async def _resume(self, upstream: Upstream) -> None:
        upstream.health.resume()
        self._upstreams.wake()
        try:
            await pauses.resume(self._database, upstream.name)
        except StoreError as error:
            raise _not_written_error(f"{upstream.name} is resumed", error) from None

    async def _clear(self, upstream: Upstream) -> None:
        upstream.clear()
        self._upstreams.wake()
        try:
            await note(self._database, time.time(), Change("upstream.clear", upstream.name))
        except StoreError as error:
            raise _not_written_error(f"{upstream.name} may serve again", error) from None


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


def _not_written_error(effect: str, error: StoreError) -> RelayError:
    return RelayError(INTERNAL, f"{effect}, but only until the relay is started again: {error}.")

"""One request to the provisioning API, from its key to its answer.

Decides the order: path, key, scope, query, body, and what an error of the rules is. Must not know
what an endpoint does.
"""

import logging
import time
from typing import Final

import msgspec

from relay.accounts import AccountError, InvalidError
from relay.accounts.admin_keys import prefix_of
from relay.errors import RelayError
from relay.gateway.context import Outcome, RequestContext
from relay.provisioning import openapi
from relay.provisioning.access import KeyCheck, check_scope
from relay.provisioning.call import (
    MAX_BODY_OCTETS,
    Call,
    RunningRelay,
    read_body,
    read_query,
)
from relay.provisioning.idempotency import Answer, SameCall, once
from relay.provisioning.problems import CONTENT_TYPE, Problem, sentence
from relay.provisioning.routes import Route, find_route
from relay.store.admin_keys import AdminKey
from relay.store.audit import Actor
from relay.store.database import StoreError

_log = logging.getLogger("relay.provisioning")

_JSON: Final = (b"content-type", b"application/json")
_BODYLESS: Final = ("GET", "DELETE")


class Provisioning:
    """See the module."""

    def __init__(self, relay: RunningRelay) -> None:
        self._relay = relay
        self._key_check = KeyCheck(relay.database)

    async def serve(self, ctx: RequestContext) -> None:
        """Answer a call on every outcome but a cancellation."""
        try:
            status, body = await self._answer(ctx)
        except Problem as problem:
            _fail(ctx, problem)
        except AccountError as error:
            status = 422 if isinstance(error, InvalidError) else 409
            _fail(ctx, Problem(status, sentence(error)))
        except RelayError as error:
            _fail(ctx, Problem(error.kind.status, error.message))
        except StoreError as error:
            _log.error("%s", error)
            _fail(ctx, Problem(503, "The database cannot be used now. Try again in a moment."))
        else:
            _respond(ctx, status, _JSON, body)

    async def describe(self, ctx: RequestContext) -> None:
        """`GET /openapi.json`."""
        body = openapi.document(self._relay.settings.server.public_url)
        _respond(ctx, 200, _JSON, body)

    async def _answer(self, ctx: RequestContext) -> Answer:
        exchange = ctx.exchange
        request, now = exchange.request, time.time()
        path, _, query = request.target.partition(b"?")
        prefix = prefix_of(self._relay.settings)
        key = await self._key_check.admit(request.headers, exchange.peer, prefix, now)
        route, parts = find_route(request.method.decode("latin-1"), path.decode("latin-1"))
        check_scope(key, route.scope)
        body = await _body(ctx, route, key)
        call = Call(
            self._relay,
            key,
            self._relay.database.by(Actor(key.id, exchange.peer)),
            parts,
            read_query(query, route.query),
            None if route.body is None else read_body(body, route.body),
            now,
        )

        async def carry_out() -> Answer:
            reply = await route.endpoint(call)
            if route.method != "GET":
                await self._refresh()
            return reply.status, msgspec.json.encode(reply.value)

        name = request.headers.get(b"idempotency-key")
        if name is None or route.method != "POST":
            return await carry_out()
        same = SameCall(key.id, name, path + b"\0" + body, shows_key=route.shows_key)
        return await once(call.database, same, now, carry_out)

    async def _refresh(self) -> None:
        """Put what was written into force. A failure delays that by a moment: see `Changes`."""
        try:
            await self._relay.refresh()
        except StoreError as error:
            _log.warning("a change is in force later: %s", error)


async def _body(ctx: RequestContext, route: Route, key: AdminKey) -> bytes:
    """The body of a call. Raises Problem: 413, 415; RelayError: it does not come."""
    exchange = ctx.exchange
    request = exchange.request
    if request.length > MAX_BODY_OCTETS:
        raise Problem(413, f"A body has up to {MAX_BODY_OCTETS:,} octets here.")
    exchange.narrow_body(MAX_BODY_OCTETS + 1)
    body = await exchange.body(key.id)
    if len(body) > MAX_BODY_OCTETS:
        raise Problem(413, f"A body has up to {MAX_BODY_OCTETS:,} octets here.")
    if route.method in _BODYLESS:
        return b""
    kind = request.headers.get(b"content-type", b"application/json").split(b";")[0].strip()
    if body and kind.lower() != b"application/json":
        raise Problem(415, "Send the body as application/json.")
    return body


def _fail(ctx: RequestContext, problem: Problem) -> None:
    outcome = Outcome.REFUSED if problem.status < 500 else Outcome.FAILED
    ctx.end(outcome, problem.detail)
    body = problem.body(ctx.id)
    ctx.exchange.respond(
        problem.status,
        [CONTENT_TYPE, (b"request-id", ctx.exchange.id), *problem.headers],
        body,
    )


def _respond(ctx: RequestContext, status: int, kind: tuple[bytes, bytes], body: bytes) -> None:
    ctx.end(Outcome.COMPLETE)
    fields = [kind, (b"request-id", ctx.exchange.id), (b"cache-control", b"no-store")]
    ctx.exchange.respond(status, fields, body)

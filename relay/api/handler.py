"""Which path leads where, and what becomes of every failure: an answer in the caller's dialect."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import unquote

from relay.api.models import Models
from relay.api.stored_responses import StoredResponses
from relay.clock import rfc3339
from relay.errors import INTERNAL, NOT_FOUND, WRONG_METHOD, Dialect, RelayError
from relay.gateway.access_record import AccessRecord
from relay.gateway.access_record import record as begin_record
from relay.gateway.authentication import KeyIndex
from relay.gateway.context import RequestContext
from relay.gateway.metering import Metering
from relay.gateway.relay import Relay
from relay.net.exchange import Exchange
from relay.store.keys import LiveKey
from relay.telemetry.access_log import AccessLog

_JSON: Final = (b"content-type", b"application/json")
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_MODELS: Final = b"/v1/models"
_RESPONSES: Final = b"/v1/responses"
_OPENAI_PATHS: Final = (b"/v1/chat/", b"/v1/completions", b"/v1/embeddings")
_SERVED: Final = (
    "POST /v1/messages, POST /v1/messages/count_tokens, POST /v1/chat/completions, "
    "POST /v1/responses, POST /v1/responses/compact, POST /v1/responses/input_tokens, "
    "GET /v1/models and GET /v1/models/{id}"
)

_WITHOUT_V1: Final = frozenset({b"/chat/completions", b"/completions", b"/responses", b"/models"})
_BASE_URL: Final = "The base URL that OpenAI clients want ends with /v1: add that to yours."
_LEGACY: Final = (
    "There is nothing at /v1/completions: the models behind this relay take conversations, not "
    "plain prompts. Use POST /v1/chat/completions with `messages`."
)

_log = logging.getLogger("relay.gateway")

Endpoint = Callable[[RequestContext], Awaitable[None]]


class Handler:
    """The server's handler."""

    def __init__(
        self,
        relay: Relay,
        models: Models,
        stored: StoredResponses,
        callers: KeyIndex,
        metering: Metering,
        log: AccessLog | None,
    ) -> None:
        self._metering = metering
        self._models = models
        self._stored = stored
        self._callers = callers
        self._log = log
        self.ready: Callable[[], bool] = lambda: callers.ready
        self._endpoints: dict[bytes, tuple[tuple[bytes, ...], Endpoint]] = {
            b"/v1/messages": ((b"POST",), relay.messages),
            b"/v1/messages/count_tokens": ((b"POST",), relay.count_tokens),
            b"/v1/chat/completions": ((b"POST",), relay.chat),
            _RESPONSES: ((b"POST",), relay.responses),
            b"/v1/responses/compact": ((b"POST",), relay.compact),
            b"/v1/responses/input_tokens": ((b"POST",), relay.input_tokens),
            _MODELS: ((b"GET", b"HEAD"), self._list_models),
            b"/healthz": ((b"GET", b"HEAD"), self._alive),
            b"/readyz": ((b"GET", b"HEAD"), self._is_ready),
            b"/": ((b"GET", b"HEAD"), self._alive),
            b"/api/hello": ((b"GET", b"HEAD"), self._alive),
        }

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request, whatever happens, and log it."""
        record, request = begin_record(exchange), exchange.request
        call = RequestContext(exchange, record)
        try:
            endpoint = self._endpoints.get(request.path)
            if endpoint is None:
                record.path = _masked(request.path)
                endpoint = self._other(request.path, record.path)
            methods, answer = endpoint
            if request.method not in methods:
                allowed = b", ".join(methods)
                raise RelayError(
                    WRONG_METHOD,
                    f"Use {allowed.decode()} for {request.path.decode()}.",
                    headers=((b"allow", allowed),),
                )
            await answer(call)
        except RelayError as error:
            record.outcome = f"refused: {_without_keys(error.message)}"
            self._fail(call, error)
        except asyncio.CancelledError:
            record.outcome = "caller left"
            raise
        except Exception:
            record.outcome = "failed"
            _log.exception("request %s failed", exchange.id.decode())
            told = "The relay failed. Its log has more under the request id."
            self._fail(call, RelayError(INTERNAL, told))
        finally:
            record.status = exchange.status
            record.us = int((time.monotonic() - exchange.arrived) * 1e6)
            if call.ticket is not None:
                self._metering.settle(call)
            if self._log is not None:
                self._log.line(record)

    def _fail(self, call: RequestContext, error: RelayError) -> None:
        """Tell the caller; who is told so before the answer has begun has used nothing."""
        exchange = call.exchange
        if not exchange.started:
            self._metering.refund(call)
        if call.holder is None and exchange.request.path.startswith(b"/v1/"):
            self._find_holder(call)  # refused for its path, or how it asks
        exchange.fail(error, _dialect(exchange), self._metering.lines(call, error))

    def _find_holder(self, call: RequestContext) -> None:
        caller = self._callers.find(call.exchange.request.headers)
        if caller is not None:
            with contextlib.suppress(RelayError):  # there may be no such plan any more
                self._metering.enter(call, caller)

    def refused(self, number: bytes, peer: str, error: RelayError) -> None:
        """Log what was no request: the server has answered it."""
        if self._log is not None:
            self._log.line(
                AccessRecord(
                    rfc3339(time.time()),
                    number.decode(),
                    peer,
                    "",
                    "",
                    status=error.kind.status,
                    outcome=f"refused: {error.message}",
                )
            )

    def _other(self, path: bytes, shown: str) -> tuple[tuple[bytes, ...], Endpoint]:
        if path.startswith(_MODELS + b"/"):
            return (b"GET", b"HEAD"), self._show_model
        if path.startswith(_RESPONSES + b"/"):
            found = self._of_response(path[len(_RESPONSES) + 1 :])
            if found is not None:
                return found
        if path == b"/v1/completions":
            raise RelayError(NOT_FOUND, _LEGACY)
        if path in _WITHOUT_V1:
            raise RelayError(NOT_FOUND, f"There is nothing at {shown}. {_BASE_URL}")
        raise RelayError(NOT_FOUND, f"There is nothing at {shown}. Served here: {_SERVED}.")

    async def _list_models(self, call: RequestContext) -> None:
        self._identify(call)
        query = call.exchange.request.target.partition(b"?")[2]
        self._answer(call, self._models.list(query, _is_anthropic(call.exchange)))

    async def _show_model(self, call: RequestContext) -> None:
        self._identify(call)
        name = call.exchange.request.path[len(_MODELS) + 1 :]
        self._answer(call, self._models.show(name, _is_anthropic(call.exchange)))

    def _of_response(self, rest: bytes) -> tuple[tuple[bytes, ...], Endpoint] | None:
        """What leads to a response that is kept; `rest` is the path behind its collection."""
        name, _, what = rest.partition(b"/")
        id = unquote(name.decode("latin-1"))
        stored = self._stored

        async def show(call: RequestContext) -> None:
            owner, request = self._identify(call).user_id, call.exchange.request
            query = request.target.partition(b"?")[2]
            if request.method == b"DELETE":
                self._answer(call, await stored.delete(owner, id))
            elif what:
                self._answer(call, await stored.input_items(owner, id, query))
            else:
                self._answer(call, await stored.show(owner, id, query))

        async def cancel(call: RequestContext) -> None:
            self._answer(call, await stored.cancel(self._identify(call).user_id, id))

        if not id:
            return None
        if not what:
            return (b"GET", b"HEAD", b"DELETE"), show
        if what == b"input_items":
            return (b"GET", b"HEAD"), show
        return ((b"POST",), cancel) if what == b"cancel" else None

    def _identify(self, call: RequestContext) -> LiveKey:
        caller = self._callers.identify(call.exchange.request.headers)
        self._metering.enter(call, caller)
        return caller

    async def _alive(self, call: RequestContext) -> None:
        call.record.outcome = "whole"
        call.exchange.respond(200, [_TEXT], b"ok\n")

    async def _is_ready(self, call: RequestContext) -> None:
        call.record.outcome = "whole"
        ready = self.ready()
        body = b"ready\n" if ready else b"not ready\n"
        call.exchange.respond(200 if ready else 503, [_TEXT], body)

    def _answer(self, call: RequestContext, body: bytes) -> None:
        call.record.outcome = "whole"
        exchange = call.exchange
        headers = [_JSON, (b"request-id", exchange.id), exchange.own_timing()]
        if _dialect(exchange) is not Dialect.MESSAGES:  # where OpenAI's SDKs look for it
            headers.append((b"x-request-id", exchange.id))
        exchange.respond(200, headers, body, self._metering.lines(call))


def _masked(path: bytes) -> str:
    """A path for the log: short, and without what may be a key, pasted by mistake."""
    return _without_keys(path.decode("latin-1"))[:96]


def _without_keys(text: str) -> str:
    return re.sub(r"[A-Za-z0-9_-]{32,}", "…", text)


def _is_anthropic(exchange: Exchange) -> bool:
    return b"anthropic-version" in exchange.request.headers


def _dialect(exchange: Exchange) -> Dialect:
    path = exchange.request.path
    if path.startswith(_RESPONSES):
        return Dialect.RESPONSES
    if path.startswith(_OPENAI_PATHS) or path in _WITHOUT_V1:
        return Dialect.OPENAI
    if path.startswith(_MODELS) and not _is_anthropic(exchange):
        return Dialect.OPENAI
    return Dialect.MESSAGES

"""Serves an ASGI application on exchanges of the relay's own server.

Decides how a request becomes a scope and how an application's messages become an answer, over any
version of HTTP. A page gets one asyncio Task, unlike a request of the API. Must not know pages,
people or sessions.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from relay.net.exchange import Exchange, field_lines
from relay.wire.events import UNTIL_CLOSE

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# The exchange writes these itself.
_OWN_FIELDS: Final = frozenset({b"content-length", b"transfer-encoding", b"connection", b"date"})
_BODILESS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})


async def serve(
    exchange: Exchange, application: Application, *, body_limit: int, secure: bool
) -> None:
    """Answer one request by `application`, whose task ends with the request's connection.

    `body_limit` is in octets. `secure`: people reach this server by https, whatever it speaks
    itself.

    Raises:
        RelayError: the request's body is refused.
    """
    body = b""
    if exchange.request.length or exchange.request.method not in _BODILESS:
        exchange.narrow_body(body_limit)
        body = await exchange.body(f"pages {exchange.peer}")
    answer = _Answer(exchange, body)
    task = asyncio.get_running_loop().create_task(
        _run(application, _scope(exchange, secure), answer)
    )
    # The runner cancels what it awaits: this task.
    await task


async def _run(application: Application, scope: dict[str, Any], answer: "_Answer") -> None:
    try:
        # The head of an answer to HEAD is complete before its application has ended.
        with contextlib.suppress(_AnsweredError):
            await application(scope, answer.receive, answer.send)
    except Exception:
        if answer.is_unwanted:  # the application has noticed before its task was cancelled
            raise asyncio.CancelledError from None
        raise
    if not answer.is_complete:
        raise RuntimeError("the application left its request unanswered")


def _scope(exchange: Exchange, secure: bool) -> dict[str, Any]:
    request = exchange.request
    query = request.target.partition(b"?")[2].partition(b"#")[0]
    headers = list(request.headers.items())
    if request.length >= 0:  # the reader takes it off the fields
        headers.append((b"content-length", b"%d" % request.length))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1" if request.http11 else "1.0",
        "method": request.method.decode("ascii"),
        "scheme": "https" if secure or exchange.is_secure else "http",
        "path": unquote_to_bytes(request.path).decode("utf-8", "replace"),
        "raw_path": request.path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": (exchange.peer, 0),
        "server": None,
        "state": {"request_id": exchange.id.decode()},
    }


class _AnsweredError(Exception):
    """The answer is complete; the rest of what the application would send is not wanted."""


class _Answer:
    """One answer on its way: the two callables that an application gets."""

    def __init__(self, exchange: Exchange, body: bytes) -> None:
        self._exchange = exchange
        self._body: bytes | None = body
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._length: int | None = None

    @property
    def is_complete(self) -> bool:
        return self._exchange.ended

    @property
    def is_unwanted(self) -> bool:
        """Whether the caller has left before the answer was complete."""
        return not self._exchange.ended and self._exchange.transport.is_closing()

    async def receive(self) -> Message:
        """The body as one message. Afterwards there is only the caller's leaving, which cancels
        the task that waits for it here."""
        body, self._body = self._body, None
        if body is None:
            await asyncio.get_running_loop().create_future()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Take a message of the application.

        Raises:
            OSError: the caller has left (ASGI's specification, version 2.4).
        """
        exchange = self._exchange
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers, self._length = _fields(message.get("headers", ()))
            return
        if exchange.ended or exchange.transport.is_closing():
            raise OSError("the caller has left")
        body, more = bytes(message.get("body", b"")), bool(message.get("more_body", False))
        if exchange.started:
            exchange.write(body)
        elif exchange.request.method == b"HEAD":
            length = self._length if more else self._length or len(body)
            size = UNTIL_CLOSE if length is None else length
            exchange.respond_head(self._status, field_lines(self._headers), size)
            raise _AnsweredError
        elif not more:
            exchange.respond(self._status, self._headers, body)
            return
        else:
            exchange.begin(self._status, self._headers, self._length)
            exchange.write(body)
        if more:
            await exchange.writable()
        else:
            exchange.end()


def _fields(
    headers: Iterable[tuple[bytes, bytes]],
) -> tuple[list[tuple[bytes, bytes]], int | None]:
    """The fields to send, and the length that they state."""
    kept: list[tuple[bytes, bytes]] = []
    length = None
    for name, value in headers:
        if name.lower() == b"content-length":
            length = int(value)
        elif name.lower() not in _OWN_FIELDS:
            if b"\r" in value or b"\n" in value:
                raise ValueError("a header field has a line break")
            kept.append((bytes(name).lower(), bytes(value)))
    return kept, length

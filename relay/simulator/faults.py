"""The faults of the simulator, as octets on the wire.

Decides what a peer sees of each fault that `script` names. A fault either replaces the answer or
spoils one that is otherwise good; the tables at the end have one function for each. A fault that
cuts leaves the answer visibly incomplete, except `clean-end`. Must not know the request.
"""

import asyncio
import gzip
import socket
import struct
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
import zstandard

from relay.net.exchange import Exchange
from relay.simulator import events
from relay.simulator.script import Script
from relay.translate.messages.event_document import StreamDocument, document_events

Fields = list[tuple[bytes, bytes]]

_STORM: Final = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n" * 300
_GARBAGE: Final = b"\x16\x03\x01\x02\x00\x01 this is no HTTP \xff\xfe\r\n\r\n"
_GARBAGE_EVENTS: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"del\n\n'
    b"event: content_block_delta\ndata: \xff\xfe\x00{{{\n\n"
    b"no field at all\n\n"
)
_ENVELOPE: Final = b'{"code":500,"msg":"KV cache is full","success":false}'
_ERROR_OBJECT: Final = b'{"object":"error","message":"KV cache is full","code":500}'
_HTML: Final = b"<html><head><title>500</title></head><body><h1>Server Error</h1></body></html>"
_RESET_DELAY_SECONDS: Final = 0.02  # the peer reads what came before a reset


class Prepared(msgspec.Struct):
    """A good answer that is not sent yet: the events of a stream, or one JSON body."""

    fields: Fields
    parts: Sequence[bytes]
    streamed: bool
    error: bytes  # body of an overloaded upstream's answer, where a stream has an error event
    send: Callable[[Exchange, Sequence[bytes]], Awaitable[None]]

    def before(self, at: int) -> Sequence[bytes]:
        """The first `at` events, or octets of the body."""
        if self.streamed or not at:  # an empty part would be written as the last chunk
            return self.parts[:at]
        return [self.parts[0][:at]]

    def start(self, exchange: Exchange) -> None:
        """Write the head of an answer that may stop anywhere."""
        exchange.begin(200, self.fields)


async def _wait_forever() -> None:
    await asyncio.get_running_loop().create_future()


# --- faults that replace an answer --------------------------------------------------


async def _garbage(exchange: Exchange) -> None:
    exchange.write_raw(_GARBAGE)
    exchange.close()


async def _half_head(exchange: Exchange) -> None:
    exchange.write_raw(b"HTTP/1.1 200 OK\r\ncontent-type: applic")
    exchange.close()


async def _huge_head(exchange: Exchange) -> None:
    line = b"x-padding: " + b"p" * 1000 + b"\r\n"
    exchange.write_raw(b"HTTP/1.1 200 OK\r\n" + line * 102 + b"content-length: 2\r\n\r\n{}")
    exchange.close()


async def _close(exchange: Exchange) -> None:
    exchange.close()


async def _empty(exchange: Exchange) -> None:
    exchange.respond(200, [(b"content-type", b"application/json")], b"")


async def _html(exchange: Exchange) -> None:
    exchange.respond(500, [(b"content-type", b"text/html; charset=utf-8")], _HTML)


async def _redirect(exchange: Exchange) -> None:
    exchange.respond(302, [(b"location", b"https://elsewhere.invalid/v1/messages")], b"")


async def _envelope(exchange: Exchange) -> None:
    exchange.respond(200, [(b"content-type", b"application/json")], _ENVELOPE)


async def _nothing(exchange: Exchange) -> None:
    exchange.respond(200, [(b"content-type", b"application/json")], b"{}")


async def _page(exchange: Exchange) -> None:
    exchange.respond(200, [(b"content-type", b"text/html; charset=utf-8")], _HTML)


async def _stall_head(exchange: Exchange) -> None:
    await _wait_forever()


# --- faults within an answer --------------------------------------------------------


async def _send_first(exchange: Exchange, good: Prepared, at: int) -> None:
    """Send the head and the first `at` events or octets."""
    good.start(exchange)
    await good.send(exchange, good.before(at))


async def _error(exchange: Exchange, good: Prepared, script: Script) -> None:
    if not good.streamed:
        exchange.respond(529, good.fields, good.error)
        return
    await _send_first(exchange, good, script.at)
    exchange.write(events.ERROR % exchange.id)
    exchange.end()


async def _cut(exchange: Exchange, good: Prepared, script: Script) -> None:
    await _send_first(exchange, good, script.at)
    exchange.close()


async def _reset(exchange: Exchange, good: Prepared, script: Script) -> None:
    if script.at:
        await _send_first(exchange, good, script.at)
        await asyncio.sleep(_RESET_DELAY_SECONDS)
    # With a linger time of zero the kernel sends RST instead of FIN.
    peer = exchange.transport.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.abort()


async def _stall(exchange: Exchange, good: Prepared, script: Script) -> None:
    await _send_first(exchange, good, script.at)
    await _wait_forever()


async def _clean_end(exchange: Exchange, good: Prepared, script: Script) -> None:
    await _send_first(exchange, good, script.at)
    exchange.end()


async def _truncated_chunk(exchange: Exchange, good: Prepared, script: Script) -> None:
    await _send_first(exchange, good, script.at)
    rest = b"".join(good.parts)[-100:]
    exchange.write_raw(b"%x\r\n%b" % (len(rest), rest[: len(rest) // 2]))
    exchange.close()


async def _garbage_sse(exchange: Exchange, good: Prepared, script: Script) -> None:
    if not good.streamed:
        exchange.respond(200, good.fields, b'{"type":"message","content":[{"ty')
        return
    await _send_first(exchange, good, script.at)
    exchange.write(_GARBAGE_EVENTS)
    await good.send(exchange, good.parts[script.at :])
    exchange.end()


async def _no_final_chunk(exchange: Exchange, good: Prepared, script: Script) -> None:
    good.start(exchange)
    await good.send(exchange, good.parts)
    exchange.close()


async def _storm(exchange: Exchange, good: Prepared, script: Script) -> None:
    exchange.write_raw(_STORM)
    await _send_all(exchange, good)


async def _extra(exchange: Exchange, good: Prepared, script: Script) -> None:
    await _send_all(exchange, good)
    exchange.write_raw(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nextra")


async def _compressed(exchange: Exchange, good: Prepared, script: Script) -> None:
    body = b"".join(good.parts)
    encoding = script.fault.encode()
    fields = [*good.fields, (b"content-encoding", encoding)]
    exchange.respond(200, fields, _COMPRESS[script.fault](body))


async def _other_form(exchange: Exchange, good: Prepared, script: Script) -> None:
    """A document for a stream, and the reverse."""
    body = b"".join(good.parts)
    if good.streamed:
        stream = StreamDocument()
        stream.feed(body)
        exchange.respond(200, _with_type(good, b"application/json"), stream.octets())
    else:
        exchange.respond(200, _with_type(good, b"text/event-stream"), document_events(body))


async def _label(exchange: Exchange, good: Prepared, script: Script) -> None:
    exchange.respond(200, _with_type(good, b"text/plain"), b"".join(good.parts))


def _with_type(good: Prepared, content_type: bytes) -> Fields:
    others = [field for field in good.fields if field[0] != b"content-type"]
    return [*others, (b"content-type", content_type)]


async def _no_stop(exchange: Exchange, good: Prepared, script: Script) -> None:
    parts = good.parts[:-1] if good.streamed else good.parts
    await _send_all(exchange, msgspec.structs.replace(good, parts=parts))


async def _error_object(exchange: Exchange, good: Prepared, script: Script) -> None:
    if not good.streamed:
        exchange.respond(200, good.fields, _ERROR_OBJECT)
        return
    await _send_first(exchange, good, script.at)
    exchange.write(b"data: %b\n\n" % _ERROR_OBJECT)
    exchange.end()


async def _short_length(exchange: Exchange, good: Prepared, script: Script) -> None:
    body = b"".join(good.parts)
    exchange.begin(200, good.fields, len(body) + 100)
    exchange.write(body)
    exchange.close()


async def _drip(exchange: Exchange, good: Prepared, script: Script) -> None:
    await split(exchange, good, 1)


async def _send_all(exchange: Exchange, good: Prepared) -> None:
    if good.streamed:
        good.start(exchange)
        await good.send(exchange, good.parts)
        exchange.end()
    else:
        exchange.respond(200, good.fields, good.parts[0])


async def split(exchange: Exchange, good: Prepared, size: int) -> None:
    """Send head and body in pieces of `size` octets, each in a segment of its own."""
    body = b"".join(good.parts)
    if good.streamed:
        framing = b"transfer-encoding: chunked\r\n"
        body = b"".join([b"%x\r\n%b\r\n" % (len(part), part) for part in good.parts])
        body += b"0\r\n\r\n"
    else:
        framing = b"content-length: %d\r\n" % len(body)
    head = b"".join([b"%b: %b\r\n" % field for field in good.fields])
    wire = b"HTTP/1.1 200 OK\r\n" + head + framing + b"\r\n" + body
    for start in range(0, len(wire), size):
        exchange.write_raw(wire[start : start + size])
        await exchange.writable()
        await asyncio.sleep(0)
    if exchange.request.keep_alive:
        exchange.end()
    else:
        exchange.close()


_COMPRESS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "deflate": zlib.compress,
}
REPLACING: Final[dict[str, Callable[[Exchange], Awaitable[None]]]] = {
    "garbage": _garbage,
    "half-head": _half_head,
    "huge-head": _huge_head,
    "close": _close,
    "empty": _empty,
    "html": _html,
    "redirect": _redirect,
    "stall-head": _stall_head,
    "envelope": _envelope,
    "nothing": _nothing,
    "page": _page,
}
SPOILING: Final[dict[str, Callable[[Exchange, Prepared, Script], Awaitable[None]]]] = {
    "error": _error,
    "cut": _cut,
    "reset": _reset,
    "stall": _stall,
    "clean-end": _clean_end,
    "truncated-chunk": _truncated_chunk,
    "garbage-sse": _garbage_sse,
    "no-final-chunk": _no_final_chunk,
    "storm": _storm,
    "extra": _extra,
    "gzip": _compressed,
    "zstd": _compressed,
    "deflate": _compressed,
    "other-form": _other_form,
    "label": _label,
    "no-stop": _no_stop,
    "error-object": _error_object,
    "drip": _drip,
    "short-length": _short_length,
}
# Faults that keep the usage of the answer from the client.
UNFINISHED: Final = frozenset(
    {
        "error",
        "error-object",
        "cut",
        "reset",
        "stall",
        "clean-end",
        "truncated-chunk",
        "short-length",
    }
)

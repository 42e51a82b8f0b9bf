"""Answers of an upstream as octets: events, chunks, heads."""

import json
from collections.abc import Iterable
from typing import Any

LAST = b"0\r\n\r\n"


def event(name: str, **data: Any) -> bytes:
    """One server-sent event of the Messages API."""
    document = json.dumps({"type": name, **data}, separators=(",", ":"), ensure_ascii=False)
    return f"event: {name}\ndata: {document}\n\n".encode()


def stream(
    texts: Iterable[str] = ("Hel", "lo ", "wörld 🌍"),
    *,
    start: dict[str, Any] | None = None,
    end: dict[str, Any] | None = None,
) -> list[bytes]:
    """The events of a complete stream. `start` and `end`: the usage reported there."""
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-7",
        "content": [],
        "stop_reason": None,
        "usage": start if start is not None else {"input_tokens": 25, "output_tokens": 1},
    }
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        event("message_start", message=message),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("ping"),
        *(
            event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
            for text in texts
        ),
        event("content_block_stop", index=0),
        event("message_delta", delta=delta, usage=end if end is not None else {"output_tokens": 9}),
        event("message_stop"),
    ]


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    """One chunk."""
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


def head(status: bytes = b"200 OK", *fields: bytes, kind: bytes = b"application/json") -> bytes:
    """A response head with these field lines (without CRLF)."""
    lines = [b"HTTP/1.1 " + status, b"content-type: " + kind, *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def sized(
    body: bytes, status: bytes = b"200 OK", *fields: bytes, kind: bytes = b"application/json"
) -> bytes:
    """A complete response with a content-length."""
    return head(status, *fields, b"content-length: %d" % len(body), kind=kind) + body


def chunked_head(kind: bytes = b"text/event-stream", *fields: bytes) -> bytes:
    """The head of a response in chunks."""
    return head(b"200 OK", *fields, b"transfer-encoding: chunked", kind=kind)


def chunked(pieces: Iterable[bytes], kind: bytes = b"text/event-stream") -> bytes:
    """A complete response, each piece a chunk."""
    return chunked_head(kind) + b"".join(map(chunk, pieces)) + LAST

"""A caller and an upstream that take turns: the relay between them has one thing to do at a time.

Decides which octets are sent, and when: the next step begins when the relay sleeps. So the number
of reads, writes and turns of the loop for each request is always the same. Must not know how
instructions are counted.
"""

import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.dialects import CHAT, HOST, MESSAGES, RESPONSES, Dialect
from bench.process import BenchError

_TIMEOUT_S = 60.0
_DELTAS = 20  # events with content in a stream

_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"content-type: %b\r\n"
    b"request-id: req_01000000022486d41c5d3ae2\r\n"
    b"anthropic-organization-id: 5ca1ab1e-0000-4000-8000-51a1a7ed0001\r\n"
    b"server: cloudflare\r\n"
    b"cf-ray: 8c0ffee0c0ffee00-SIM\r\n"
    b"anthropic-ratelimit-requests-limit: 4000\r\n"
    b"anthropic-ratelimit-requests-remaining: 3999\r\n"
    b"anthropic-ratelimit-requests-reset: 2026-11-29T11:09:52Z\r\n"
    b"anthropic-ratelimit-tokens-limit: 2400000\r\n"
    b"anthropic-ratelimit-tokens-remaining: 2399999\r\n"
    b"anthropic-ratelimit-tokens-reset: 2026-11-29T11:09:52Z\r\n"
    b"date: Sun, 29 Nov 2026 11:08:52 GMT\r\n"
    b"%b\r\n\r\n"
)
_TEXT = "Merge sort keeps equal items in order. It compares a sorted list of a million names once. "
_USAGE = b'"input_tokens":58,"cache_creation_input_tokens":0,"cache_read_input_tokens":0'
_MESSAGE = (
    b'{"model":"claude-sonnet-4-7","id":"msg_01000000022486d41c5d3ae2","type":"message",'
    b'"role":"assistant","content":[%b],"stop_reason":%b,"stop_sequence":null,'
    b'"usage":{%b,"output_tokens":%d,"service_tier":"standard"}}'
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request: what a caller sends, and in which writes the upstream answers."""

    name: str
    dialect: Dialect
    stream: bool

    def request(self, port: int, key: str) -> bytes:
        return self.dialect.request(port, key, "tokens=40", stream=self.stream)

    @property
    def writes(self) -> Sequence[bytes]:
        return _STREAM if self.stream else (_JSON,)


def _json() -> bytes:
    text = b'{"type":"text","text":"%b"}' % (_TEXT * 4).encode()
    body = _MESSAGE % (text, b'"end_turn"', _USAGE, 40)
    return _HEAD % (b"application/json", b"content-length: %d" % len(body)) + body


def _stream() -> tuple[bytes, ...]:
    """The head with everything up to the first content; each further piece of text; the end."""
    start = _MESSAGE % (b"", b"null", _USAGE, 1)
    first = (
        _event(b"message_start", b'"message":' + start),
        _event(b"content_block_start", b'"index":0,"content_block":{"type":"text","text":""}'),
        _event(b"ping", b'"x":0'),
        _delta("Merge "),
    )
    last = (
        _event(b"content_block_stop", b'"index":0'),
        _event(
            b"message_delta",
            b'"delta":{"stop_reason":"end_turn","stop_sequence":null},'
            b'"usage":{%b,"output_tokens":%d}' % (_USAGE, _DELTAS),
        ),
        _event(b"message_stop", b'"x":0'),
        b"0\r\n\r\n",
    )
    head = _HEAD % (b"text/event-stream; charset=utf-8", b"transfer-encoding: chunked")
    words = _TEXT.split()
    between = [_delta(words[number % len(words)] + " ") for number in range(_DELTAS)]
    return (head + b"".join(first), *between, b"".join(last))


def _event(name: bytes, members: bytes) -> bytes:
    event = b'event: %b\ndata: {"type":"%b",%b}\n\n' % (name, name, members)
    return b"%x\r\n%b\r\n" % (len(event), event)


def _delta(text: str) -> bytes:
    delta = b'"index":0,"delta":{"type":"text_delta","text":"%b"}' % text.encode()
    return _event(b"content_block_delta", delta)


_JSON = _json()
_STREAM = _stream()
KINDS = (
    Kind("messages-json", MESSAGES, stream=False),
    Kind("messages-sse", MESSAGES, stream=True),
    Kind("chat-json", CHAT, stream=False),
    Kind("responses-sse", RESPONSES, stream=True),
)


class Lockstep:
    """The upstream's listener, its connections from the relay, and one caller's connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._upstream: list[socket.socket] = []
        self._caller: socket.socket | None = None
        self._rest: Callable[[], object] = bool

    def connect(self, port: int, rest: Callable[[], object]) -> None:
        """Connect the caller to the relay; `rest` waits until the relay has nothing to do."""
        self._caller = socket.create_connection((HOST, port), _TIMEOUT_S)
        self._caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = rest

    def close(self) -> None:
        for peer in (self._listener, self._caller, *self._upstream):
            if peer is not None:
                peer.close()

    def exchange(self, kind: Kind, request: bytes) -> bytes:
        """One request and its answer, as the caller has it; the relay sleeps afterwards."""
        caller = self._caller
        assert caller is not None
        caller.sendall(request)
        peer = self._asked(caller)
        self._rest()
        answer = b""
        for octets in kind.writes:
            peer.sendall(octets)
            answer += caller.recv(1 << 20)
            self._rest()
        while not self._complete(kind, answer):
            piece = caller.recv(1 << 20)
            if not piece:
                raise BenchError(f"{kind.name}: an answer was cut: {answer[-200:]!r}")
            answer += piece
            self._rest()
        return answer

    def _complete(self, kind: Kind, answer: bytes) -> bool:
        head, mark, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise BenchError(f"{kind.name}: instead of 200 came {answer[:300]!r}")
        if kind.stream:
            return body.endswith(b"\r\n0\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        return bool(mark) and len(body) >= length

    def _asked(self, caller: socket.socket) -> socket.socket:
        """The connection on which the relay has sent a request to the end."""
        data: dict[socket.socket, bytes] = {}
        deadline = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline:
            peers = [self._listener, *self._upstream, caller]
            for peer in select.select(peers, [], [], _TIMEOUT_S)[0]:
                if peer is caller:
                    raise BenchError(f"the relay answers by itself: {peer.recv(2000)!r}")
                if peer is self._listener:
                    self._upstream.append(peer.accept()[0])
                    self._upstream[-1].settimeout(_TIMEOUT_S)
                    continue
                octets = peer.recv(1 << 20)
                if not octets:
                    self._upstream.remove(peer)
                    peer.close()
                    continue
                request = data[peer] = data.get(peer, b"") + octets
                head, mark, body = request.partition(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
                if mark and len(body) >= int(length or 0):
                    return peer
        raise BenchError("the relay sent the upstream no request")

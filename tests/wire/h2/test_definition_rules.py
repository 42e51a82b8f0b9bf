"""RFC 9113 §6 to §8 and RFC 7541: each kind of frame, requests, and header compression."""

from collections.abc import Callable

from hyperframe.frame import (
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from relay.wire.h2.frames import (
    ACK,
    COMPRESSION_ERROR,
    DATA,
    ENABLE_PUSH,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    MAX_FRAME_SIZE,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTING,
    SETTINGS,
    STREAM_CLOSED,
    U32,
    WINDOW_UPDATE,
)
from tests.wire.h2.peer import ANSWER, GET, POST, Peer
from tests.wire.h2.rules import (
    Rule,
    answered,
    connection_error,
    lives,
    parametrized,
    raw,
    sends,
    sizes,
    stream_error,
)

BASE = b"\x82\x86\x84\x41\x05relay"
PROTOCOL = connection_error(PROTOCOL_ERROR)
FRAME_SIZE = connection_error(FRAME_SIZE_ERROR)
COMPRESSION = connection_error(COMPRESSION_ERROR)
FLOW_CONTROL = connection_error(FLOW_CONTROL_ERROR)
STREAM_PROTOCOL = stream_error(PROTOCOL_ERROR)
ONE_OCTET = ((INITIAL_WINDOW_SIZE, 1),)


def _setting(identifier: int, value: int) -> Callable[[Peer], object]:
    return sends(raw(SETTINGS, SETTING.pack(identifier, value)))


def _posts(
    *following: bytes | DataFrame | PriorityFrame | RstStreamFrame,
) -> Callable[[Peer], object]:
    """The head of a request with a body, and what follows."""
    return lambda peer: peer.send(peer.headers(1, POST, flags="E"), *following)


def _gets(*fields: tuple[str, str]) -> Callable[[Peer], object]:
    """A GET with further fields."""
    return lambda peer: peer.send(peer.headers(1, [*GET, *fields]))


def _head(*fields: tuple[str, str]) -> Callable[[Peer], object]:
    """A request of these fields only."""
    return lambda peer: peer.send(peer.headers(1, fields))


def _without(*names: str) -> Callable[[Peer], object]:
    return _head(*[field for field in GET if field[0] not in names])


def _doubled(name: str) -> Callable[[Peer], object]:
    return _head(*[field for field in GET if field[0] == name], *GET)


def _block(block: bytes) -> Callable[[Peer], object]:
    return sends(raw(HEADERS, block, flags=5, stream=1))


def _blocks(peer: Peer, *frames: object) -> None:
    """HEADERS without END_HEADERS, and frames that follow."""
    peer.send(HeadersFrame(1, peer.block(GET), flags=["END_STREAM"]), *frames)  # type: ignore[arg-type]


def _continuations(peer: Peer) -> None:
    _blocks(
        peer, peer.continuation(1, peer.block([("x", "1")]), flags=""), peer.continuation(1, b"")
    )


def _continuation_of_0(peer: Peer) -> None:
    _blocks(peer, peer.continuation(1, b"", flags=""), raw(9, b"", flags=4, stream=0))


def _continuation_after_end(peer: Peer) -> None:
    peer.send(peer.headers(1, POST, flags="E"), peer.continuation(1, b""))


def _continuation_after_continuation(peer: Peer) -> None:
    _blocks(peer, peer.continuation(1, b""), peer.continuation(1, b""))


def _continuation_after_data(peer: Peer) -> None:
    peer.send(peer.headers(1, POST, flags="E"), peer.data(1, flags=""), peer.continuation(1, b""))


def _later_window(peer: Peer) -> None:
    peer.send(peer.headers(1))
    peer.send(SettingsFrame(settings={INITIAL_WINDOW_SIZE: 1}))


def _negative_window(peer: Peer) -> None:
    peer.send(peer.headers(1))
    peer.send(SettingsFrame(settings={INITIAL_WINDOW_SIZE: 2}))
    peer.send(WindowUpdateFrame(1, window_increment=2))
    assert len(peer.payload(1)) == 4  # of the two octets, one was owed


def _overflow(stream: int) -> Callable[[Peer], object]:
    update = raw(WINDOW_UPDATE, U32.pack(LARGEST_WINDOW), stream=stream)
    return lambda peer: peer.send(peer.headers(1, POST, flags="E"), update, update)


def _updates_with_nothing(peer: Peer) -> None:
    peer.send(peer.headers(1, POST, flags="E"), raw(WINDOW_UPDATE, U32.pack(0), stream=1))


def _pong(peer: Peer) -> None:
    before = len(peer.frames)
    (answer,) = peer.send(PingFrame(opaque_data=b"h2spec!!"))
    assert isinstance(answer, PingFrame)
    assert (answer.opaque_data, set(answer.flags)) == (b"h2spec!!", {"ACK"})
    assert len(peer.frames) == before + 1


def _no_pong(peer: Peer) -> None:
    assert not peer.send(PingFrame(opaque_data=b"h2spec!!", flags=["ACK"]))


def _ack(peer: Peer) -> None:
    (answer,) = peer.send(SettingsFrame(settings={INITIAL_WINDOW_SIZE: 7}))
    assert isinstance(answer, SettingsFrame)
    assert set(answer.flags) == {"ACK"}


def _trailers(fields: list[tuple[str, str]], flags: str = "ES") -> Callable[[Peer], object]:
    return lambda peer: peer.send(
        peer.headers(1, POST, flags="E"),
        peer.data(1, flags=""),
        peer.headers(1, fields, flags=flags),
    )


def _with_length(length: int, *bodies: bytes) -> Callable[[Peer], object]:
    """A request whose content-length is another than that of its body."""

    def play(peer: Peer) -> None:
        frames = [peer.data(1, body, flags="") for body in bodies[:-1]]
        frames.append(peer.data(1, bodies[-1]))
        fields = [*POST, ("content-length", str(length))]
        peer.send(peer.headers(1, fields, flags="E"), *frames)

    return play


def _padded_with_too_much(kind: int) -> Callable[[Peer], object]:
    frame = raw(kind, b"\x06abc", flags=PADDED | 5, stream=1 if kind == DATA else 3)
    return lambda peer: peer.send(peer.headers(1, POST, flags="E"), frame)


FRAMES = [
    Rule("http2/6.1/1", "DATA on stream 0", sends(raw(DATA, b"test")), PROTOCOL),
    Rule(
        "http2/6.1/2",
        "DATA on a stream that is not open",
        lambda peer: peer.send(peer.headers(1), peer.data(1)),
        stream_error(STREAM_CLOSED),
        serves=False,
    ),
    Rule("http2/6.1/3", "DATA with too much padding", _padded_with_too_much(DATA), PROTOCOL),
    Rule(
        "http2/6.2/1",
        "PRIORITY after HEADERS without END_HEADERS",
        lambda peer: _blocks(peer, PriorityFrame(1, stream_weight=1)),
        PROTOCOL,
    ),
    Rule(
        "http2/6.2/2",
        "HEADERS of another stream after that",
        lambda peer: _blocks(peer, peer.headers(3)),
        PROTOCOL,
    ),
    Rule("http2/6.2/3", "HEADERS on stream 0", sends(raw(HEADERS, BASE, flags=5)), PROTOCOL),
    Rule("http2/6.2/4", "HEADERS with too much padding", _padded_with_too_much(HEADERS), PROTOCOL),
    Rule("http2/6.3/1", "PRIORITY on stream 0", sends(raw(PRIORITY, bytes(5))), PROTOCOL),
    Rule(
        "http2/6.3/2",
        "PRIORITY of 4 octets",
        _posts(raw(PRIORITY, bytes(4), stream=1)),
        stream_error(FRAME_SIZE_ERROR),
    ),
    Rule("http2/6.4/1", "RST_STREAM on stream 0", sends(raw(RST_STREAM, bytes(4))), PROTOCOL),
    Rule(
        "http2/6.4/2",
        "RST_STREAM on an idle stream",
        sends(raw(RST_STREAM, bytes(4), stream=1)),
        PROTOCOL,
    ),
    Rule(
        "http2/6.4/3",
        "RST_STREAM of 3 octets",
        _posts(raw(RST_STREAM, bytes(3), stream=1)),
        FRAME_SIZE,
    ),
    Rule(
        "http2/6.5/1",
        "SETTINGS ACK with settings",
        sends(raw(SETTINGS, bytes(6), flags=ACK)),
        FRAME_SIZE,
    ),
    Rule("http2/6.5/2", "SETTINGS on a stream", sends(raw(SETTINGS, stream=1)), PROTOCOL),
    Rule("http2/6.5/3", "SETTINGS of 3 octets", sends(raw(SETTINGS, bytes(3))), FRAME_SIZE),
    Rule("http2/6.5.2/1", "ENABLE_PUSH of 2", _setting(ENABLE_PUSH, 2), PROTOCOL),
    Rule(
        "http2/6.5.2/2",
        "INITIAL_WINDOW_SIZE of 2^31",
        _setting(INITIAL_WINDOW_SIZE, 1 << 31),
        FLOW_CONTROL,
    ),
    Rule("http2/6.5.2/3", "MAX_FRAME_SIZE too small", _setting(MAX_FRAME_SIZE, 16383), PROTOCOL),
    Rule("http2/6.5.2/4", "MAX_FRAME_SIZE too large", _setting(MAX_FRAME_SIZE, 1 << 24), PROTOCOL),
    Rule("http2/6.5.2/5", "an unknown setting", _setting(0xFF, 1), lives),
    Rule(
        "http2/6.5.3/1",
        "the last value of a setting counts",
        lambda peer: peer.send(
            raw(SETTINGS, SETTING.pack(4, 100) + SETTING.pack(4, 1)), peer.headers(1)
        ),
        sizes(1),
    ),
    Rule("http2/6.5.3/2", "SETTINGS are acknowledged", sends(), _ack),
    Rule("http2/6.7/1", "PING is answered with its octets", sends(), _pong),
    Rule("http2/6.7/2", "PING ACK is not answered", sends(), _no_pong),
    Rule("http2/6.7/3", "PING on a stream", sends(raw(PING, bytes(8), stream=1)), PROTOCOL),
    Rule("http2/6.7/4", "PING of 6 octets", sends(raw(PING, bytes(6))), FRAME_SIZE),
    Rule("http2/6.8/1", "GOAWAY on a stream", sends(raw(GOAWAY, bytes(8), stream=1)), PROTOCOL),
    Rule(
        "http2/6.9/1",
        "WINDOW_UPDATE of 0 for the connection",
        sends(raw(WINDOW_UPDATE, bytes(4))),
        PROTOCOL,
    ),
    Rule("http2/6.9/2", "WINDOW_UPDATE of 0 for a stream", _updates_with_nothing, STREAM_PROTOCOL),
    Rule(
        "http2/6.9/3", "WINDOW_UPDATE of 3 octets", sends(raw(WINDOW_UPDATE, bytes(3))), FRAME_SIZE
    ),
    Rule(
        "http2/6.9.1/1",
        "DATA stays within a window of 1",
        lambda peer: peer.send(peer.headers(1)),
        sizes(1),
        settings=ONE_OCTET,
    ),
    Rule("http2/6.9.1/2", "the connection's window above 2^31-1", _overflow(0), FLOW_CONTROL),
    Rule(
        "http2/6.9.1/3",
        "a stream's window above 2^31-1",
        _overflow(1),
        stream_error(FLOW_CONTROL_ERROR),
    ),
    Rule(
        "http2/6.9.2/1",
        "a later window counts for open streams",
        _later_window,
        sizes(1),
        settings=((INITIAL_WINDOW_SIZE, 0),),
    ),
    Rule(
        "http2/6.9.2/2",
        "a window may become negative",
        _negative_window,
        sizes(3, 1),
        settings=((INITIAL_WINDOW_SIZE, 3),),
    ),
    Rule(
        "http2/6.9.2/3",
        "INITIAL_WINDOW_SIZE above 2^31-1",
        _setting(INITIAL_WINDOW_SIZE, (1 << 32) - 1),
        FLOW_CONTROL,
    ),
    Rule("http2/6.10/1", "several CONTINUATION frames", _continuations, answered()),
    Rule(
        "http2/6.10/2",
        "CONTINUATION, then another frame",
        lambda peer: _blocks(peer, peer.continuation(1, b"", flags=""), peer.data(1)),
        PROTOCOL,
    ),
    Rule("http2/6.10/3", "CONTINUATION on stream 0", _continuation_of_0, PROTOCOL),
    Rule("http2/6.10/4", "CONTINUATION after END_HEADERS", _continuation_after_end, PROTOCOL),
    Rule(
        "http2/6.10/5",
        "CONTINUATION after the last CONTINUATION",
        _continuation_after_continuation,
        PROTOCOL,
    ),
    Rule("http2/6.10/6", "CONTINUATION after DATA", _continuation_after_data, PROTOCOL),
    Rule(
        "http2/7/1", "GOAWAY with an unknown code", sends(raw(GOAWAY, b"\0\0\0\0\0\0\0\xff")), lives
    ),
    Rule(
        "http2/7/2",
        "RST_STREAM with an unknown code",
        _posts(raw(RST_STREAM, b"\0\0\0\xff", stream=1)),
        lives,
    ),
]

REQUESTS = [
    Rule(
        "http2/8.1/1",
        "trailers without END_STREAM",
        _trailers([("x-sum", "1")], flags="E"),
        STREAM_PROTOCOL,
    ),
    Rule("http2/8.1.2/1", "a name in upper case", _gets(("X-TEST", "ok")), STREAM_PROTOCOL),
    Rule("http2/8.1.2.1/1", "an unknown pseudo-header", _gets((":test", "ok")), STREAM_PROTOCOL),
    Rule("http2/8.1.2.1/2", "a response's", _gets((":status", "200")), STREAM_PROTOCOL),
    Rule(
        "http2/8.1.2.1/3",
        "a pseudo-header in trailers",
        _trailers([(":method", "POST")]),
        STREAM_PROTOCOL,
    ),
    Rule(
        "http2/8.1.2.1/4",
        "a pseudo-header after a field",
        _head(("x-test", "ok"), *GET),
        STREAM_PROTOCOL,
    ),
    Rule("http2/8.1.2.2/1", "a connection field", _gets(("connection", "close")), STREAM_PROTOCOL),
    Rule("http2/8.1.2.2/2", "TE other than trailers", _gets(("te", "gzip")), STREAM_PROTOCOL),
    Rule(
        "http2/8.1.2.3/1",
        "an empty :path",
        _head(*[(name, "" if name == ":path" else value) for name, value in GET]),
        STREAM_PROTOCOL,
    ),
    Rule("http2/8.1.2.3/2", "no :method", _without(":method"), STREAM_PROTOCOL),
    Rule("http2/8.1.2.3/3", "no :scheme", _without(":scheme"), STREAM_PROTOCOL),
    Rule("http2/8.1.2.3/4", "no :path", _without(":path"), STREAM_PROTOCOL),
    Rule("http2/8.1.2.3/5", "two :method", _doubled(":method"), STREAM_PROTOCOL),
    Rule("http2/8.1.2.3/6", "two :scheme", _doubled(":scheme"), STREAM_PROTOCOL),
    Rule("http2/8.1.2.3/7", "two :path", _doubled(":path"), STREAM_PROTOCOL),
    Rule(
        "http2/8.1.2.6/1",
        "another content-length, one DATA frame",
        _with_length(1, b"test"),
        STREAM_PROTOCOL,
    ),
    Rule(
        "http2/8.1.2.6/2",
        "another content-length, several DATA frames",
        _with_length(1, b"test", b"test"),
        STREAM_PROTOCOL,
    ),
    Rule(
        "http2/8.2/1",
        "PUSH_PROMISE of a client",
        sends(raw(PUSH_PROMISE, b"\0\0\0\x03" + BASE, flags=4, stream=1)),
        PROTOCOL,
    ),
]

COMPRESSION_RULES = [
    Rule("hpack/2.3.3/1", "an index beyond the tables", _block(BASE + b"\xff\x00"), COMPRESSION),
    Rule("hpack/2.3.3/2", "a name beyond", _block(BASE + b"\x7f\x20\x01a"), COMPRESSION),
    Rule("hpack/4.2/1", "a table size update at the end", _block(BASE + b"\x20"), COMPRESSION),
    Rule(
        "hpack/5.2/1",
        "Huffman padding of more than 7 bits",
        _block(BASE + b"\x00\x01x\x82\x1f\xff"),
        COMPRESSION,
    ),
    Rule(
        "hpack/5.2/2", "Huffman padding of zeros", _block(BASE + b"\x00\x01x\x81\x18"), COMPRESSION
    ),
    Rule(
        "hpack/5.2/3",
        "Huffman with EOS",
        _block(BASE + b"\x00\x01x\x84\xff\xff\xff\xff"),
        COMPRESSION,
    ),
    Rule("hpack/6.1/1", "index 0", _block(BASE + b"\x80"), COMPRESSION),
    Rule("hpack/6.3/1", "a table above its limit", _block(b"\x3f\xe2\x1f" + BASE), COMPRESSION),
]

assert ANSWER == b"hello"  # its five octets are the sizes above


@parametrized(FRAMES)
def test_each_kind_of_frame_has_its_rules(rule: Rule) -> None:
    rule.check()


@parametrized(REQUESTS)
def test_a_malformed_request_is_reset(rule: Rule) -> None:
    rule.check()


@parametrized(COMPRESSION_RULES)
def test_a_broken_block_ends_the_connection(rule: Rule) -> None:
    rule.check()


def test_there_are_70_of_these_rules() -> None:
    assert len(FRAMES) + len(REQUESTS) + len(COMPRESSION_RULES) == 70

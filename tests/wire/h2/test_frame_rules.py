"""RFC 9113 §3 to §5: the preface, frames, and the states of streams."""

from collections.abc import Callable

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from relay.wire.events import Limits
from relay.wire.h2.connection import Http2Engine
from relay.wire.h2.frames import (
    CANCEL,
    COMPRESSION_ERROR,
    DATA,
    FRAME_SIZE_ERROR,
    HEADERS,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
)
from relay.wire.h2.stream_table import MAX_STREAMS
from tests.wire.h2.peer import GET, POST, Peer
from tests.wire.h2.rules import (
    Rule,
    answered,
    connection_error,
    lives,
    parametrized,
    raw,
    sends,
    stream_error,
)

UNKNOWN = 22  # a frame type


def _is_open(peer: Peer) -> None:
    assert peer.lives()


def _begin_block(peer: Peer, *following: object) -> None:
    """HEADERS without END_HEADERS, and frames that follow."""
    peer.send(HeadersFrame(1, peer.block(GET), flags=["END_STREAM"]), *following)  # type: ignore[arg-type]


def _get(*following: object) -> Callable[[Peer], object]:
    """A request, and frames that follow it."""
    return lambda peer: (peer.send(peer.headers(1)), peer.send(*following))  # type: ignore[arg-type]


def _get_twice(stream: int) -> Callable[[Peer], object]:
    """A request, and another one on `stream`."""
    return lambda peer: (peer.send(peer.headers(5)), peer.send(peer.headers(stream)))


def _reset(*following: object) -> Callable[[Peer], object]:
    """A request that its client resets, and frames that follow."""
    return lambda peer: (
        peer.send(peer.headers(1, POST, flags="E")),
        peer.send(RstStreamFrame(1, error_code=CANCEL), *following),  # type: ignore[arg-type]
    )


def _head_again(peer: Peer) -> None:
    peer.send(peer.headers(1))
    peer.send(peer.headers(1))


def _head_after_reset(peer: Peer) -> None:
    peer.send(peer.headers(1, POST, flags="E"))
    peer.send(RstStreamFrame(1, error_code=CANCEL), peer.headers(1))


def _continued(peer: Peer) -> None:
    peer.send(peer.headers(1), peer.continuation(1, b""))


def _continued_after_reset(peer: Peer) -> None:
    peer.send(peer.headers(1, POST, flags="E"))
    peer.send(RstStreamFrame(1, error_code=CANCEL), peer.continuation(1, b""))


def _too_many(peer: Peer) -> None:
    for number in range(MAX_STREAMS + 1):
        peer.send(peer.headers(2 * number + 1))


def _undefined_flags(peer: Peer) -> None:
    peer.send(raw(PING, b"12345678", flags=0x16))


def _reserved_bit(peer: Peer) -> None:
    peer.send(raw(PING, b"12345678", stream=1 << 31))


def _large_data(peer: Peer) -> None:
    peer.send(peer.headers(1, POST, flags="E"), peer.data(1, b"x" * 16384))


def _too_large_data(peer: Peer) -> None:
    peer.send(peer.headers(1, POST, flags="E"), raw(DATA, b"x" * 16385, stream=1))


def _large_head(peer: Peer) -> None:
    peer.send(raw(HEADERS, b"x" * 16385, flags=5, stream=1))


def _other_head_in_block(peer: Peer) -> None:
    _begin_block(peer, peer.headers(3))


def _depends_on_itself(peer: Peer) -> None:
    peer.send(peer.headers(1, flags="ESI", depends_on=1))


def _priority_on_itself(peer: Peer) -> None:
    peer.send(peer.headers(1, POST, flags="E"), PriorityFrame(1, depends_on=1))


RULES = [
    Rule("http2/3.5/1", "a valid preface", sends(), _is_open),
    Rule("http2/4.1/1", "an unknown frame type", sends(raw(UNKNOWN, b"?" * 8)), lives),
    Rule("http2/4.1/2", "undefined flags", _undefined_flags, lives),
    Rule("http2/4.1/3", "the reserved bit", _reserved_bit, lives),
    Rule("http2/4.2/1", "DATA of 2^14 octets", _large_data, answered()),
    Rule("http2/4.2/2", "DATA above 2^14", _too_large_data, connection_error(FRAME_SIZE_ERROR)),
    Rule("http2/4.2/3", "HEADERS above 2^14", _large_head, connection_error(FRAME_SIZE_ERROR)),
    Rule(
        "http2/4.3/1",
        "a block that is not HPACK",
        sends(raw(HEADERS, b"\x82\x86\x84\x41\x8a", flags=5, stream=1)),
        connection_error(COMPRESSION_ERROR),
    ),
    Rule(
        "http2/4.3/2",
        "PRIORITY within a block",
        lambda peer: _begin_block(peer, PriorityFrame(1, stream_weight=9)),
        connection_error(PROTOCOL_ERROR),
    ),
    Rule(
        "http2/4.3/3",
        "HEADERS of another stream within a block",
        _other_head_in_block,
        connection_error(PROTOCOL_ERROR),
    ),
    *(
        Rule(f"http2/5.1/{number}", f"idle: {kind}", sends(one), connection_error(PROTOCOL_ERROR))
        for number, kind, one in (
            (1, "DATA", DataFrame(1, b"test", flags=["END_STREAM"])),
            (2, "RST_STREAM", RstStreamFrame(1, error_code=CANCEL)),
            (3, "WINDOW_UPDATE", WindowUpdateFrame(1, window_increment=100)),
            (4, "CONTINUATION", ContinuationFrame(1, b"\x82", flags=["END_HEADERS"])),
        )
    ),
    Rule(
        "http2/5.1/5",
        "half-closed: DATA",
        _get(DataFrame(1, b"test", flags=["END_STREAM"])),
        stream_error(STREAM_CLOSED),
        serves=False,
    ),
    Rule(
        "http2/5.1/6",
        "half-closed: HEADERS",
        _head_again,
        stream_error(STREAM_CLOSED),
        serves=False,
    ),
    Rule(
        "http2/5.1/7",
        "half-closed: CONTINUATION",
        _continued,
        connection_error(PROTOCOL_ERROR),
        serves=False,
    ),
    Rule(
        "http2/5.1/8",
        "closed by RST_STREAM: DATA",
        _reset(DataFrame(1, b"test")),
        connection_error(STREAM_CLOSED),
    ),
    Rule(
        "http2/5.1/9",
        "closed by RST_STREAM: HEADERS",
        _head_after_reset,
        connection_error(STREAM_CLOSED),
    ),
    Rule(
        "http2/5.1/10",
        "closed by RST_STREAM: CONTINUATION",
        _continued_after_reset,
        connection_error(PROTOCOL_ERROR),
    ),
    Rule(
        "http2/5.1/11",
        "closed: DATA",
        _get(DataFrame(1, b"test")),
        connection_error(STREAM_CLOSED),
    ),
    Rule("http2/5.1/12", "closed: HEADERS", _head_again, connection_error(STREAM_CLOSED)),
    Rule("http2/5.1/13", "closed: CONTINUATION", _continued, connection_error(PROTOCOL_ERROR)),
    Rule(
        "http2/5.1.1/1",
        "an even stream id",
        lambda peer: peer.send(peer.headers(2)),
        connection_error(PROTOCOL_ERROR),
    ),
    Rule("http2/5.1.1/2", "a lower stream id", _get_twice(3), connection_error(PROTOCOL_ERROR)),
    Rule(
        "http2/5.1.2/1",
        "streams above the limit",
        _too_many,
        stream_error(REFUSED_STREAM, 2 * MAX_STREAMS + 1),
        serves=False,
    ),
    Rule(
        "http2/5.3.1/1",
        "HEADERS that depend on themselves",
        _depends_on_itself,
        stream_error(PROTOCOL_ERROR),
        serves=False,
    ),
    Rule(
        "http2/5.3.1/2",
        "PRIORITY that depends on itself",
        _priority_on_itself,
        stream_error(PROTOCOL_ERROR),
        serves=False,
    ),
    Rule(
        "http2/5.4.1/1",
        "an invalid PING ends the connection",
        sends(raw(PING, b"1234567")),
        connection_error(FRAME_SIZE_ERROR),
    ),
    Rule(
        "http2/5.4.1/2",
        "GOAWAY names the last stream",
        _get(raw(PING, b"1234567")),
        lambda peer: _last_stream(peer, 1),
    ),
    Rule("http2/5.5/1", "an extension frame", sends(raw(UNKNOWN, b"?" * 8, flags=0xFF)), lives),
    Rule(
        "http2/5.5/2",
        "an extension frame within a block",
        lambda peer: _begin_block(peer, raw(UNKNOWN, b"?")),
        connection_error(PROTOCOL_ERROR),
    ),
]


def _last_stream(peer: Peer, expected: int) -> None:
    assert peer.goaway == FRAME_SIZE_ERROR
    assert peer.frames[-1].last_stream_id == expected  # type: ignore[attr-defined]


@parametrized(RULES)
def test_frames_and_states_are_as_the_rfc_says(rule: Rule) -> None:
    rule.check()


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"INVALID CONNECTION PREFACE\r\n\r\n", id="http2/3.5/2: an invalid preface"),
        pytest.param(PREFACE + PingFrame().serialize(), id="PING before SETTINGS"),
    ],
)
def test_a_wrong_preface_is_refused(octets: bytes) -> None:
    engine = Http2Engine(Limits())
    engine.receive(octets, 0.0)
    assert engine.failed
    assert bytes((PROTOCOL_ERROR,)) == engine.take_output()[-1:]


def test_there_are_32_rules_beside_the_wrong_preface() -> None:
    assert len(RULES) == 32

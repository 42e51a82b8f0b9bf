"""What every HTTP/2 server must take: the generic rules of h2spec."""

from collections.abc import Callable
from itertools import pairwise

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hyperframe.frame import (
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from relay.wire.h2.frames import CANCEL, INITIAL_WINDOW_SIZE
from tests.wire.h2.peer import ANSWER, GET, POST, Peer
from tests.wire.h2.rules import Rule, answered, lives, parametrized, sends, sizes

WITHOUT_WINDOW = ((INITIAL_WINDOW_SIZE, 0),)
BASE = b"\x82\x86\x84\x41\x05relay"  # GET, http, /, and :authority, which enters the table
_huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def _literal(first: bytes, name: str, *, huffman: bool) -> bytes:
    """BASE and a literal field; `name` is "" for an index within `first`."""
    octets = BASE + first
    for text in (name, "value") if name else ("value",):
        coded = _huffman.encode(text.encode()) if huffman else text.encode()
        octets += bytes((len(coded) | (0x80 if huffman else 0),)) + coded
    return octets


def _block(block: bytes) -> Frame:
    return HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"])


def _settings_are_acknowledged(peer: Peer) -> None:
    acks = [one for one in peer.frames if isinstance(one, SettingsFrame) and "ACK" in one.flags]
    assert len(acks) == 2


def _ping_is_answered(peer: Peer) -> None:
    (ping,) = [one for one in peer.frames if isinstance(one, PingFrame)]
    assert ping.opaque_data == b"h2spec!!"
    assert "ACK" in ping.flags


def _has_settings(peer: Peer) -> None:
    assert isinstance(peer.frames[0], SettingsFrame)
    assert "ACK" not in peer.frames[0].flags


def _idle_priority(peer: Peer) -> None:
    peer.send(PriorityFrame(3, depends_on=0, stream_weight=255), peer.headers(1))


def _window_update_when_half_closed(peer: Peer) -> None:
    peer.send(peer.headers(1))
    assert not peer.payload(1)
    peer.send(WindowUpdateFrame(1, window_increment=100))


def _priority_when_half_closed(peer: Peer) -> None:
    peer.send(peer.headers(1))
    peer.send(PriorityFrame(1, depends_on=0, stream_weight=255))
    peer.send(WindowUpdateFrame(1, window_increment=100))


def _grown_windows(peer: Peer) -> None:
    peer.send(peer.headers(1))
    peer.send(WindowUpdateFrame(1, window_increment=2))
    peer.send(WindowUpdateFrame(1, window_increment=100))


def _connection_window(peer: Peer) -> None:
    peer.send(WindowUpdateFrame(0, window_increment=100), peer.headers(1))


def _split_head(peer: Peer, *cuts: int) -> None:
    block = peer.block(GET)
    edges = (0, *cuts, len(block))
    pieces = [block[start:end] for start, end in pairwise(edges)]
    first = HeadersFrame(1, pieces[0], flags=["END_STREAM"])
    middle = [peer.continuation(1, piece, flags="") for piece in pieces[1:-1]]
    peer.send(first, *middle, peer.continuation(1, pieces[-1]))


def _trailers(peer: Peer) -> None:
    peer.send(peer.headers(1, [*POST, ("trailer", "x-sum")], flags="E"))
    peer.send(peer.data(1, flags=""), peer.headers(1, [("x-sum", "4")]))


def _requests(fields: list[tuple[str, str]]) -> Callable[[Peer], object]:
    return lambda peer: peer.send(peer.headers(1, fields))


def _after(priority: PriorityFrame) -> Callable[[Peer], object]:
    return lambda peer: peer.send(priority, peer.headers(1))


RULES = [
    Rule("generic/1/1", "a client's preface", lambda peer: None, _has_settings),
    Rule("generic/2/1", "PRIORITY on an idle stream", _idle_priority, answered()),
    Rule(
        "generic/2/2",
        "WINDOW_UPDATE on a half-closed stream",
        _window_update_when_half_closed,
        answered(),
        settings=WITHOUT_WINDOW,
    ),
    Rule(
        "generic/2/3",
        "PRIORITY on a half-closed stream",
        _priority_when_half_closed,
        answered(),
        settings=WITHOUT_WINDOW,
    ),
    Rule(
        "generic/2/4",
        "RST_STREAM on a half-closed stream",
        lambda peer: peer.send(peer.headers(1), RstStreamFrame(1, error_code=CANCEL)),
        lives,
        serves=False,
    ),
    Rule(
        "generic/2/5",
        "PRIORITY on a closed stream",
        lambda peer: (peer.send(peer.headers(1)), peer.send(PriorityFrame(1, stream_weight=9))),
        answered(),
    ),
    Rule(
        "generic/3.1/1",
        "DATA",
        lambda peer: peer.send(peer.headers(1, POST, flags="E"), peer.data(1)),
        answered(),
    ),
    Rule(
        "generic/3.1/2",
        "several DATA frames",
        lambda peer: peer.send(
            peer.headers(1, POST, flags="E"), peer.data(1, flags=""), peer.data(1)
        ),
        answered(),
    ),
    Rule(
        "generic/3.1/3",
        "DATA with padding",
        lambda peer: peer.send(
            peer.headers(1, POST, flags="E"), peer.data(1, flags="SP", pad_length=6)
        ),
        answered(),
    ),
    Rule("generic/3.2/1", "HEADERS", lambda peer: peer.send(peer.headers(1)), answered()),
    Rule(
        "generic/3.2/2",
        "HEADERS with padding",
        lambda peer: peer.send(peer.headers(1, flags="ESP", pad_length=6)),
        answered(),
    ),
    Rule(
        "generic/3.2/3",
        "HEADERS with priority",
        lambda peer: peer.send(peer.headers(1, flags="ESI", stream_weight=254)),
        answered(),
    ),
    *(
        Rule(
            f"generic/3.3/{number}",
            title,
            _after(priority),
            answered(),
        )
        for number, title, priority in (
            (1, "PRIORITY with weight 1", PriorityFrame(1, stream_weight=0)),
            (2, "PRIORITY with weight 256", PriorityFrame(1, stream_weight=255)),
            (3, "PRIORITY with a dependency", PriorityFrame(1, depends_on=3)),
            (4, "PRIORITY, exclusive", PriorityFrame(1, depends_on=3, exclusive=True)),
            (5, "PRIORITY, then HEADERS of a lower stream", PriorityFrame(3, stream_weight=1)),
        )
    ),
    Rule(
        "generic/3.4/1",
        "RST_STREAM",
        lambda peer: peer.send(peer.headers(1, POST, flags="E"), RstStreamFrame(1, error_code=8)),
        lives,
    ),
    Rule("generic/3.5/1", "SETTINGS", sends(SettingsFrame()), _settings_are_acknowledged),
    Rule("generic/3.7/1", "PING", sends(PingFrame(opaque_data=b"h2spec!!")), _ping_is_answered),
    Rule("generic/3.8/1", "GOAWAY", sends(GoAwayFrame()), lives),
    Rule("generic/3.9/1", "WINDOW_UPDATE of the connection", _connection_window, answered()),
    Rule(
        "generic/3.9/2",
        "WINDOW_UPDATE of a stream",
        _grown_windows,
        sizes(2, len(ANSWER) - 2),
        settings=WITHOUT_WINDOW,
    ),
    Rule("generic/3.10/1", "CONTINUATION", lambda peer: _split_head(peer, 1), answered()),
    Rule(
        "generic/3.10/2",
        "several CONTINUATION frames",
        lambda peer: _split_head(peer, 1, 2, 4),
        answered(),
    ),
    Rule("generic/4/1", "GET", _requests(GET), answered()),
    Rule("generic/4/2", "HEAD", _requests([(":method", "HEAD"), *GET[1:]]), answered()),
    Rule("generic/4/3", "POST", _requests(POST), answered()),
    Rule("generic/4/4", "POST with trailers", _trailers, answered()),
    Rule("generic/5/1", "an indexed field", sends(_block(BASE + b"\x90")), answered()),
    *(
        Rule(
            f"generic/5/{number}",
            f"a literal {indexing}, {'new' if name else 'indexed'} name{', Huffman' * huffman}",
            sends(_block(_literal(first, name, huffman=huffman))),
            answered(),
        )
        for number, indexing, first, name, huffman in (
            (2, "with indexing", b"\x7a", "", False),
            (3, "with indexing", b"\x7a", "", True),
            (4, "with indexing", b"\x40", "x-test", False),
            (5, "with indexing", b"\x40", "x-test", True),
            (6, "without indexing", b"\x0f\x2b", "", False),
            (7, "without indexing", b"\x0f\x2b", "", True),
            (8, "without indexing", b"\x00", "x-test", False),
            (9, "without indexing", b"\x00", "x-test", True),
            (10, "never indexed", b"\x1f\x2b", "", False),
            (11, "never indexed", b"\x1f\x2b", "", True),
            (12, "never indexed", b"\x10", "x-test", False),
            (13, "never indexed", b"\x10", "x-test", True),
        )
    ),
    Rule("generic/5/14", "a table size update", sends(_block(b"\x20" + BASE)), answered()),
    Rule(
        "generic/5/15",
        "several table size updates",
        sends(_block(b"\x20\x3f\x61" + BASE)),
        answered(),
    ),
]


@parametrized(RULES)
def test_what_a_server_must_take_is_taken(rule: Rule) -> None:
    rule.check()


def test_there_are_44_generic_rules() -> None:
    assert len(RULES) == 44

"""Floods against the engine: each ends the connection soon, with a warning before where it can."""

import sys
import time
from itertools import islice

import pytest
from hyperframe.frame import GoAwayFrame, PingFrame, SettingsFrame, WindowUpdateFrame

from relay.wire.h2.budget import GRACEFUL, LIMIT
from relay.wire.h2.frames import CANCEL, ENHANCE_YOUR_CALM, NO_ERROR, RST_STREAM, U32, frame
from relay.wire.h2.stream_table import MAX_STREAMS
from tests.fakes.memory import peak_octets
from tests.wire.h2.floods import FLOODS, MADE_YOU_RESET
from tests.wire.h2.peer import POST, Peer

MAX_FRAMES = 2000
AT_ONCE = {"CONTINUATION", "empty CONTINUATION", "HPACK bomb"}  # the first is one too many


def flooded(name: str) -> tuple[Peer, int]:
    """The peer after a flood, and the frames until its connection was closed."""
    peer = Peer(serves=False).open()
    for number, octets in enumerate(islice(FLOODS[name](), MAX_FRAMES + 1)):
        peer.send(octets)
        if peer.engine.failed:
            return peer, number + 1
    return peer, MAX_FRAMES + 1


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_closed_within_2000_frames(name: str) -> None:
    peer, frames = flooded(name)
    assert frames <= MAX_FRAMES
    assert peer.goaway is not None


@pytest.mark.parametrize("name", sorted(set(FLOODS) - AT_ONCE - {"DATA of padding"}))
def test_a_flood_has_its_warning_before_the_close(name: str) -> None:
    peer, _ = flooded(name)
    codes = [one.error_code for one in peer.frames if isinstance(one, GoAwayFrame)]
    assert codes == [ENHANCE_YOUR_CALM, ENHANCE_YOUR_CALM]


def test_rapid_reset_is_closed_by_200_resets() -> None:
    _, frames = flooded("rapid reset")
    assert frames // 2 <= 200


def test_a_request_reset_in_the_same_read_is_never_seen() -> None:
    peer = Peer().open()
    peer.send(peer.headers(1), frame(RST_STREAM, 0, 1, U32.pack(CANCEL)), peer.headers(3))
    assert [stream.id for stream in peer.requests] == [3]
    assert not peer.engine.table.streams


@pytest.mark.parametrize("name", MADE_YOU_RESET)
def test_provoked_resets_close_by_100_of_them(name: str) -> None:
    peer, _ = flooded(name)
    assert len(peer.reset_codes) <= 100
    live = set(peer.engine.table.streams)
    assert len(live) <= MAX_STREAMS


def test_a_reset_stream_keeps_its_place_until_its_handler_ends() -> None:
    peer = Peer(serves=False).open()
    for number in range(MAX_STREAMS):
        stream = 2 * number + 1
        peer.send(peer.headers(stream, POST, flags="E"))
    peer.engine.receive(frame(RST_STREAM, 0, 1, U32.pack(CANCEL)), 0.0)  # its handler goes on
    peer.send(peer.headers(201))
    assert 201 in peer.reset_codes
    peer.engine.table.release(peer.engine.table.streams[1])
    peer.send(peer.headers(203))
    assert 203 not in peer.reset_codes


@pytest.mark.parametrize("size", [0, 4000])
def test_a_head_in_many_pieces_is_refused_by_the_ninth(size: int) -> None:
    peer = Peer().open()
    block = b"\x00\x01a\x7f\xa1\x1e" + b"x" * 4000 if size else b""
    peer.send(peer.headers(1, flags="S"))
    sent = 0
    while not peer.engine.failed:
        peer.send(peer.continuation(1, block, flags=""))
        sent += 1
    assert sent <= 9
    assert peer.goaway == ENHANCE_YOUR_CALM


def test_a_bomb_takes_little_memory() -> None:
    assert peak_octets(lambda: flooded("HPACK bomb")) < 1024 * 1024


@pytest.mark.alone
@pytest.mark.skipif(sys.gettrace() is not None, reason="tracing takes most of the time")
def test_a_thousand_bombs_take_a_second_at_most() -> None:
    octets = b"".join(islice(FLOODS["HPACK bomb"](), 1))
    peers = [Peer().open() for _ in range(1000)]
    before = time.process_time()
    for peer in peers:
        peer.engine.receive(octets, 0.0)
    took = time.process_time() - before
    assert took <= 1.0
    assert all(peer.engine.failed for peer in peers)


def test_answers_to_a_flood_stay_small() -> None:
    peer = Peer(serves=False).open()
    out = 0
    for octets in islice(FLOODS["PING"](), MAX_FRAMES):
        peer.engine.receive(octets, 0.0)
        out = max(out, sum(map(len, peer.engine.table.out)))
    assert out <= 256 * 1024


def test_a_clean_client_scores_nothing_in_10000_requests() -> None:
    peer = Peer().open()
    for number in range(10_000):
        stream = 2 * number + 1
        peer.now += 0.001
        peer.send(peer.headers(stream, POST, flags="E"), peer.data(stream))
        peer.send(WindowUpdateFrame(0, window_increment=5))
        peer.frames.clear()
    assert len(peer.requests) == 10_000
    assert peer.engine.table.budget.score == 0


def test_a_client_that_acknowledges_every_event_scores_nothing() -> None:
    peer = Peer(serves=False).open()
    peer.send(peer.headers(1))
    (stream,) = peer.requests
    for _ in range(10_000):
        peer.collect(stream.send(b"data: an event\n\n"))
        peer.send(
            WindowUpdateFrame(0, window_increment=16), WindowUpdateFrame(1, window_increment=16)
        )
        peer.frames.clear()
    assert peer.engine.table.budget.score == 0


def test_keep_alive_pings_score_nothing_in_a_day() -> None:
    peer = Peer().open()
    for _ in range(8640):
        peer.now += 10.0
        peer.send(PingFrame(opaque_data=b"are-you?"), SettingsFrame())
        peer.frames.clear()
    assert peer.engine.table.budget.score == 0


def test_a_caller_who_cancels_now_and_then_keeps_the_connection() -> None:
    peer = Peer(serves=False).open()
    for number in range(500):
        peer.now += 6.0
        stream = 2 * number + 1
        peer.send(peer.headers(stream))
        peer.send(frame(RST_STREAM, 0, stream, U32.pack(CANCEL)))
        peer.frames.clear()
    assert not peer.engine.table.going


def test_streams_under_way_finish_after_the_warning() -> None:
    peer = Peer(serves=False).open()
    peer.send(peer.headers(1))
    (stream,) = peer.requests
    peer.engine.table.budget.score = GRACEFUL
    peer.send(PingFrame(opaque_data=b"are-you?"))
    assert peer.goaway == ENHANCE_YOUR_CALM
    peer.send(peer.headers(3))
    assert 3 in peer.reset_codes
    peer.respond(stream)
    assert peer.is_answered(1)
    assert not peer.engine.failed
    peer.engine.table.budget.score = LIMIT
    peer.send(PingFrame(opaque_data=b"are-you?"))
    assert peer.engine.failed


def test_a_drain_takes_requests_until_the_peer_knows_of_it() -> None:
    peer = Peer().open()
    peer.send(peer.headers(1))
    peer.engine.begin_drain()
    peer.send(peer.headers(3))
    (first,) = [one for one in peer.frames if isinstance(one, GoAwayFrame)]
    assert (first.last_stream_id, first.error_code) == ((1 << 31) - 1, NO_ERROR)
    assert peer.is_answered(3)
    (question,) = [one for one in peer.frames if isinstance(one, PingFrame)]
    peer.send(PingFrame(opaque_data=question.opaque_data, flags=["ACK"]), peer.headers(5))
    second = [one for one in peer.frames if isinstance(one, GoAwayFrame)][1]
    assert (second.last_stream_id, second.error_code) == (3, NO_ERROR)
    assert 5 in peer.reset_codes

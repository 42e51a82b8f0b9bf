"""Bodies and answers of an engine, cut and ordered in every way."""

import pytest
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from relay.wire.events import Limits
from relay.wire.h2.connection import Http2Engine
from relay.wire.h2.events import BODY, REQUEST
from relay.wire.h2.frames import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    INTERNAL_ERROR,
    NO_ERROR,
    PREFACE,
    PROTOCOL_ERROR,
    SETTINGS,
    STREAM_CLOSED,
    frame,
)
from relay.wire.h2.stream_table import CONNECTION_WINDOW
from tests.wire.h2.peer import GET, POST, Peer
from tests.wire.h2.rules import raw

SCRIPT = Peer()
WIRE = b"".join(
    one.serialize()
    for one in (
        SettingsFrame(settings={INITIAL_WINDOW_SIZE: 70_000}),
        SCRIPT.headers(1, POST, flags="E"),
        SCRIPT.headers(3),
        SCRIPT.data(1, b"first", flags=""),
        SCRIPT.headers(5, POST, flags="EP", pad_length=9),
        SCRIPT.data(5, b"padded", flags="SP", pad_length=3),
        SCRIPT.data(1, b"second"),
        SCRIPT.headers(7, POST, flags="E"),
        SCRIPT.data(7, b"with trailers", flags=""),
        SCRIPT.headers(7, [("x-sum", "1")]),
    )
)


@given(st.lists(st.integers(1, len(WIRE) - 1), max_size=12).map(sorted))
def test_requests_are_the_same_wherever_the_octets_are_cut(cuts: list[int]) -> None:
    peer = Peer()
    peer.send(PREFACE)
    for start, end in zip([0, *cuts], [*cuts, len(WIRE)], strict=True):
        peer.send(WIRE[start:end])
        assert peer.engine.part_of(99) == 0
    assert {1, 3, 5, 7} == {stream.id for stream in peer.requests}
    assert peer.bodies == {1: b"firstsecond", 3: b"", 5: b"padded", 7: b"with trailers"}
    assert all(peer.is_answered(number) for number in (1, 3, 5, 7))


@given(st.binary(max_size=200))
def test_any_octets_are_taken_or_end_the_connection(octets: bytes) -> None:
    engine = Http2Engine(Limits())
    engine.receive(PREFACE + frame(SETTINGS, 0, 0, b""), 0.0)
    engine.receive(octets, 0.0)
    assert engine.failed == (b"\x07" in engine.take_output()[26:] or engine.failed)


def test_what_has_come_of_a_frame_is_known() -> None:
    peer = Peer(serves=False)
    assert not peer.engine.in_head
    peer.send(PREFACE[:5])
    assert peer.engine.in_head
    peer.send(PREFACE[5:], SettingsFrame())
    head = peer.headers(1, POST, flags="E").serialize()
    peer.send(head[:12])
    assert peer.engine.in_head
    peer.send(head[12:])
    assert not peer.engine.in_head
    peer.send(DataFrame(1, b"x" * 100).serialize()[:50])
    assert (peer.engine.part_of(1), peer.engine.part_of(3)) == (41, 0)
    assert not peer.engine.in_head
    assert not peer.engine.take_output()


def test_a_read_of_many_long_heads_is_taken_in_parts() -> None:
    peer = Peer(serves=False).open()
    heads = [peer.headers(2 * number + 1, [*GET, ("x", "x" * 9000)]) for number in range(20)]
    events = peer.engine.receive(b"".join(one.serialize() for one in heads), 0.0)
    assert 1 < len(events) < 20
    assert peer.engine.more
    while peer.engine.more:
        events += peer.engine.receive(b"", 0.0)
    assert [event.stream.id for event in events] == [2 * number + 1 for number in range(20)]


def test_short_heads_of_one_read_come_together_with_their_bodies() -> None:
    peer = Peer(serves=False).open()
    frames = [peer.headers(2 * number + 1, POST, flags="E") for number in range(90)]
    bodies = [peer.data(2 * number + 1) for number in range(90)]
    octets = b"".join(one.serialize() for one in (*frames, *bodies))
    events = peer.engine.receive(octets, 0.0)
    assert [event.stream.early for event in events] == [b"body"] * 90


def test_pieces_of_a_body_in_one_read_are_one_event() -> None:
    peer = Peer(serves=False).open()
    peer.send(peer.headers(1, POST, flags="E"), peer.headers(3, POST, flags="E"))
    octets = b"".join(
        peer.data(stream, b"x" * 100, flags="").serialize() for stream in (1, 1, 3, 1)
    )
    events = peer.engine.receive(octets, 0.0)
    assert [(one.kind, one.stream.id, len(one.data)) for one in events] == [
        (BODY, 1, 200),
        (BODY, 3, 100),
        (BODY, 1, 100),
    ]
    assert REQUEST not in [one.kind for one in events]


def test_a_body_beyond_its_window_is_a_fault() -> None:
    peer = Peer(serves=False).open()
    peer.send(peer.headers(1, POST, flags="E"))
    for _ in range(4):
        peer.send(peer.data(1, b"x" * 16_384, flags=""))
    assert peer.reset_codes == {1: FLOW_CONTROL_ERROR}
    assert peer.resets == [1]
    peer.send(peer.data(1, b"late"))  # it may have been on its way
    assert peer.lives()


def test_bodies_beyond_the_connections_window_end_it() -> None:
    peer = Peer(serves=False).open()
    frames = 0
    for number in range(25):
        stream = 2 * number + 1
        peer.send(peer.headers(stream, POST, flags="E"))
        for _ in range(3):
            frames += 1
            peer.send(peer.data(stream, b"x" * 16_384, flags=""))
    assert peer.goaway == FLOW_CONTROL_ERROR
    assert frames * 16_384 >= CONNECTION_WINDOW


def test_windows_are_given_back_as_bodies_are_read() -> None:
    peer = Peer(serves=False).open()
    peer.send(peer.headers(1, POST, flags="E"))
    (stream,) = peer.requests
    for _ in range(100):
        peer.send(peer.data(1, b"x" * 16_384, flags=""))
        peer.engine.table.credit(stream, 256 * 1024)
    peer.send()
    assert sum(peer.window_updates(1)) >= 1_500_000
    assert sum(peer.window_updates(0)) >= 1_500_000
    assert not peer.reset_codes


def test_a_body_behind_its_answer_is_dropped_to_its_end() -> None:
    peer = Peer(serves=False).open()
    peer.send(peer.headers(1, [*POST, ("content-length", "8")], flags="E"))
    peer.respond(peer.requests[0])
    assert peer.is_answered(1)
    assert 1 in peer.engine.table.streams
    peer.send(peer.data(1, b"half", flags=""))
    peer.send(peer.data(1, b"half"))
    assert not peer.engine.table.streams
    assert not peer.reset_codes
    peer.send(peer.headers(3, [*POST, ("content-length", "80000")], flags="E"))
    peer.respond(peer.requests[1])
    assert peer.is_answered(3)
    assert not peer.reset_codes  # a client could take it for a failure
    peer.send(peer.data(3, b"late", flags=""), peer.headers(3, [("x", "1")]))
    assert peer.lives()


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        pytest.param([(":method", "POST")], "E", id="a pseudo-header field"),
        pytest.param([("x-sum", "1")], "E", id="no END_STREAM"),
    ],
)
def test_a_fault_behind_an_early_answer_is_a_stream_error(
    fields: list[tuple[str, str]], flags: str
) -> None:
    peer = Peer(serves=False).open()
    peer.send(peer.headers(1, POST, flags="E"))
    peer.respond(peer.requests[0])
    peer.send(peer.data(1, b"test", flags=""))
    assert (peer.is_answered(1), peer.reset_codes) == (True, {})
    peer.send(peer.headers(1, fields, flags=flags))
    assert peer.reset_codes == {1: PROTOCOL_ERROR}
    assert peer.lives()


def test_frames_on_a_stream_that_was_reset_here_are_ignored() -> None:
    peer = Peer(serves=False).open()
    peer.send(peer.headers(1, POST, flags="E"), peer.headers(3, POST, flags="E"))
    (stream, _) = peer.requests
    peer.collect(stream.abort(INTERNAL_ERROR))
    assert stream.abort(INTERNAL_ERROR) == stream.cut(INTERNAL_ERROR) == b""
    peer.send(
        peer.data(1),
        peer.headers(1, [("x", "1")]),
        WindowUpdateFrame(1, window_increment=9),
        RstStreamFrame(1, error_code=CANCEL),
    )
    assert peer.lives()
    peer.engine.table.release(stream)
    assert peer.lives()


def test_a_reset_of_a_closed_stream_is_taken_once() -> None:
    peer = Peer().open()
    peer.send(peer.headers(1), RstStreamFrame(1, error_code=CANCEL).serialize()[:0])
    peer.send(RstStreamFrame(1, error_code=CANCEL))
    assert peer.lives()
    peer.send(peer.data(1))
    assert peer.goaway == STREAM_CLOSED


def test_many_resets_are_remembered_but_not_all() -> None:
    peer = Peer(serves=False).open()
    for number in range(300):
        peer.now += 20.0
        stream = 2 * number + 1
        peer.send(peer.headers(stream, POST, flags="E"))
        peer.collect(peer.requests[-1].abort(INTERNAL_ERROR))
        peer.engine.table.release(peer.requests[-1])
    assert len(peer.engine.table._resets) == 256
    peer.send(peer.data(599))
    assert peer.lives()


# --- answers -------------------------------------------------------------------------


def test_an_answer_waits_for_its_window_and_keeps_its_order() -> None:
    peer = Peer(serves=False).open({INITIAL_WINDOW_SIZE: 10})
    peer.send(peer.headers(1))
    (stream,) = peer.requests
    peer.collect(stream.send_head(b"\x88", end=False))
    for piece in (b"12345678", b"90abc", b"def"):
        peer.collect(stream.send(piece))
    assert (peer.payload(1), stream.queued) == (b"1234567890", 6)
    assert stream.send(b"") == b""
    peer.collect(stream.end(b"gh"))
    assert stream.end(b"more") == stream.send(b"more") == b""
    peer.send(WindowUpdateFrame(1, window_increment=3))
    assert not peer.is_answered(1)
    peer.send(WindowUpdateFrame(1, window_increment=100))
    assert peer.payload(1) == b"1234567890abcdefgh"
    assert peer.is_answered(1)
    assert peer.engine.table.pump(1000) == b""


def test_nothing_is_sent_while_the_network_takes_nothing() -> None:
    peer = Peer(serves=False).open()
    peer.send(peer.headers(1), peer.headers(3))
    first, second = peer.requests
    peer.engine.table.held = True
    assert first.send(b"one") == second.end(b"") == b""
    peer.engine.table.held = False
    peer.collect(peer.engine.table.pump(1000))
    assert peer.payload(1) == b"one"
    ends = [one for one in peer.frames if isinstance(one, DataFrame) and one.stream_id == 3]
    assert [(one.data, set(one.flags)) for one in ends] == [(b"", {"END_STREAM"})]


def test_a_cut_answer_is_reset_behind_its_octets() -> None:
    peer = Peer(serves=False).open({INITIAL_WINDOW_SIZE: 4})
    peer.send(peer.headers(1), peer.headers(3))
    first, second = peer.requests
    peer.collect(first.send(b"12345678"))
    assert first.cut(INTERNAL_ERROR) == b""
    peer.collect(second.cut(INTERNAL_ERROR))
    assert peer.reset_codes == {3: INTERNAL_ERROR}
    peer.send(WindowUpdateFrame(1, window_increment=4))
    assert peer.payload(1) == b"12345678"
    assert peer.reset_codes == {1: INTERNAL_ERROR, 3: INTERNAL_ERROR}
    assert first.send_head(b"\x88", end=True) == b""


def test_a_large_answer_gives_others_their_turn() -> None:
    peer = Peer(serves=False).open({INITIAL_WINDOW_SIZE: 1 << 20})
    peer.send(WindowUpdateFrame(0, window_increment=1 << 20))
    peer.send(peer.headers(1), peer.headers(3))
    first, second = peer.requests
    peer.collect(first.end(b"x" * 500_000))
    assert 64 * 1024 <= len(peer.payload(1)) < 100_000
    peer.collect(second.end(b"y" * 200_000))
    before = len(peer.payload(1)), len(peer.payload(3))
    peer.collect(peer.engine.table.pump(64 * 1024))
    after = len(peer.payload(1)), len(peer.payload(3))
    assert all(now - then >= 32_000 for then, now in zip(before, after, strict=True))
    peer.send()
    assert peer.payload(1) == b"x" * 500_000
    assert peer.payload(3) == b"y" * 200_000


def test_a_long_head_is_continued() -> None:
    peer = Peer(serves=False).open()
    peer.send(peer.headers(1))
    block = b"\x88" + b"".join(b"\x00\x01a\x7f\x81\x4d" + b"x" * 10_000 for _ in range(4))
    octets = peer.requests[0].send_head(block, end=True)
    kinds = []
    while octets:
        length = int.from_bytes(octets[:3], "big")
        kinds.append((octets[3], octets[4]))
        octets = octets[9 + length :]
    assert kinds == [(1, 1), (9, 0), (9, 4)]


def test_a_smaller_table_of_the_peer_is_acknowledged_in_a_head() -> None:
    peer = Peer(serves=False).open({HEADER_TABLE_SIZE: 0})
    assert peer.engine.head_prefix() == b"\x20"
    assert peer.engine.head_prefix() == b""


def test_an_end_is_announced_once() -> None:
    peer = Peer().open()
    peer.engine.finish_drain()
    peer.engine.finish_drain()
    peer.engine.end(NO_ERROR)
    peer.send()
    assert len([one for one in peer.frames if isinstance(one, GoAwayFrame)]) == 1


def test_a_request_reset_in_its_own_read_leaves_the_others() -> None:
    peer = Peer().open()
    reset = RstStreamFrame(3, error_code=CANCEL)
    peer.send(peer.headers(1), peer.headers(3), reset, peer.headers(5))
    assert [stream.id for stream in peer.requests] == [1, 5]


def test_a_reset_of_an_answer_under_way_is_no_glitch() -> None:
    peer = Peer(serves=False).open()
    peer.send(peer.headers(1), peer.headers(3))
    peer.collect(peer.requests[0].send_head(b"\x88", end=False))
    peer.send(RstStreamFrame(1, error_code=CANCEL))
    peer.now += 5.0
    peer.send(RstStreamFrame(3, error_code=CANCEL))
    assert peer.engine.table.budget.score == 0
    assert peer.resets == [1, 3]


def test_data_behind_an_answer_whose_handler_goes_on_is_a_glitch() -> None:
    peer = Peer(serves=False).open()
    peer.send(peer.headers(1))
    peer.collect(peer.requests[0].end(b"done"))
    peer.send(peer.data(1))
    assert not peer.reset_codes
    assert peer.engine.table.budget.score > 0
    assert peer.lives()


def test_a_window_that_is_filled_again_is_no_control_frame() -> None:
    peer = Peer(serves=False).open()
    peer.send(peer.headers(1))
    (stream,) = peer.requests
    for _ in range(1000):
        peer.collect(stream.send(b"x" * 2000))
        peer.engine.table.budget.earned = 0
        peer.send(
            WindowUpdateFrame(0, window_increment=2000), WindowUpdateFrame(1, window_increment=2000)
        )
        peer.frames.clear()
    assert peer.engine.table.budget.score == 0


def test_a_priority_on_a_stream_of_the_past_is_judged() -> None:
    peer = Peer().open()
    peer.send(peer.headers(1))
    peer.send(raw(2, bytes(4), stream=1))
    assert peer.reset_codes == {1: 6}
    assert peer.lives()
    peer.send(raw(2, bytes(4), stream=9))
    assert peer.engine.failed


def test_faults_that_no_rule_of_h2spec_has() -> None:
    for octets, code in (
        (raw(HEADERS, b"\0\0\0", flags=0x25, stream=1), 6),
        (raw(7, bytes(4)), 6),
        (raw(8, b"\0\0\0\1", stream=2), PROTOCOL_ERROR),
    ):
        peer = Peer().open()
        peer.send(octets)
        assert peer.goaway == code
    peer = Peer().open()
    peer.send(peer.headers(1, flags="S"))
    for _ in range(8):
        peer.send(peer.continuation(1, b"\x00\x01a\x7f\x9d\x1f" + b"x" * 4124, flags=""))
    assert peer.goaway == ENHANCE_YOUR_CALM


def test_settings_that_make_a_window_too_large_end_it_all() -> None:
    peer = Peer(serves=False).open()
    peer.send(peer.headers(1))
    peer.send(WindowUpdateFrame(1, window_increment=(1 << 31) - 1 - 65535))
    peer.send(SettingsFrame(settings={INITIAL_WINDOW_SIZE: 65536}))
    assert peer.goaway == FLOW_CONTROL_ERROR


def test_a_self_dependent_head_may_be_continued() -> None:
    peer = Peer(serves=False).open()
    block = peer.block(GET)
    head = HeadersFrame(1, block[:2], depends_on=1, flags=["PRIORITY", "END_STREAM"])
    peer.send(head, peer.continuation(1, block[2:]))
    assert peer.reset_codes == {1: PROTOCOL_ERROR}

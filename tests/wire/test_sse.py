"""Event streams: the same events at any split, whatever ends the lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire.sse import MAX_EVENT, Event, EventReader

from .feeding import octet_by_octet, split_at

STREAM = (
    b'event: message_start\ndata: {"type":"message_start"}\n\n'
    b": a comment\n\n"
    b"data:no blank\n\n"
    b"data: one\ndata: two\n\n"
    b"id: 1\nretry: 5\nevent: ping\ndata\n\n"
    b"\n\ndata: last\n\n"
)
EVENTS = [
    Event(b"message_start", b'{"type":"message_start"}'),
    Event(b"", b"no blank"),
    Event(b"", b"one\ntwo"),
    Event(b"ping", b""),
    Event(b"", b"last"),
]


def read(pieces: list[bytes]) -> list[Event]:
    reader = EventReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    assert not reader.pending
    return events


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CR LF"])
@given(st.lists(st.integers(0, 2 * len(STREAM)), max_size=8))
def test_any_split_gives_the_same_events(end: bytes, cuts: list[int]) -> None:
    stream = STREAM.replace(b"\n", end)
    assert read([stream]) == EVENTS
    assert read(split_at(stream, cuts)) == EVENTS
    assert read(octet_by_octet(stream)) == EVENTS


def test_a_lone_cr_ends_lines_too() -> None:
    assert read([STREAM.replace(b"\n", b"\r")]) == EVENTS


def test_an_event_without_its_end_is_pending() -> None:
    reader = EventReader()
    assert not reader.pending
    assert reader.feed(b"data: x\n") == []
    assert reader.pending
    assert reader.feed(b"\n") == [Event(b"", b"x")]
    assert not reader.pending


@pytest.mark.parametrize("cut", [b"", b"\n", b"\n\n"])
def test_the_part_of_an_event_is_shown(cut: bytes) -> None:
    reader = EventReader()
    assert reader.feed(b"data: x\r\n\r\n" + cut + b"data: a\r") == [Event(b"", b"x")]
    assert reader.feed(b"\ndata: b") == []
    assert reader.incomplete == b"data: a\ndata: b"
    reader.feed(b"x" * MAX_EVENT)
    assert (reader.incomplete, reader.pending) == (b"", True)


@pytest.mark.parametrize("size", [MAX_EVENT - 8, MAX_EVENT, 3 * MAX_EVENT])
def test_an_event_over_the_maximum_is_skipped(size: int) -> None:
    reader = EventReader()
    octets = b"data: " + b"x" * size
    events = [
        event
        for start in range(0, len(octets), 100_000)
        for event in reader.feed(octets[start : start + 100_000])
    ]
    assert events == []
    assert reader.pending
    assert len(reader._part) <= MAX_EVENT
    events = reader.feed(b"\n\ndata: next\n\n")
    assert [event.data[-4:] for event in events] == [b"xxxx"] * (size < MAX_EVENT) + [b"next"]
    assert not reader.pending

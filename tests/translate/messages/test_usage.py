"""The usage of an answer is the same however the network cuts the answer."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.translate.messages.usage import JsonTap, NoTap, StreamTap, Usage, message_usage
from relay.wire.chunked import ChunkReader, ChunkScanner
from tests.fakes import answers
from tests.fakes.answers import LAST, chunk, event

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "model": "claude-sonnet-4-7",
    "content": [{"type": "text", "text": 'the "usage": {"input_tokens": 1} of ü and 🌍'}],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 25,
        "output_tokens": 9,
        "cache_read_input_tokens": 7,
        "cache_creation_input_tokens": 5,
    },
}
JSON = json.dumps(MESSAGE, ensure_ascii=False).encode()
ALL = Usage(25, 9, 7, 5, complete=True)
ALL.model, ALL.stop_reason = "claude-sonnet-4-7", "end_turn"
EVENTS = answers.stream(
    ('a "usage" of', " ü 🌍", "\n\nevent: error\n\n"),
    start={
        "input_tokens": 25,
        "cache_read_input_tokens": 7,
        "cache_creation_input_tokens": 5,
        "output_tokens": 1,
    },
)
WIRE = b"".join(EVENTS)


def read(tap: JsonTap | NoTap | StreamTap, pieces: Iterable[bytes], *, framed: bool) -> Usage:
    """Feed a tap as a splice does."""
    if not framed:
        for piece in pieces:
            tap.feed(piece)
        return tap.finish()
    scanner = ChunkScanner()
    tap.begin(b"", scanner, ChunkReader())
    for piece in pieces:
        if isinstance(tap, StreamTap) and tap.passes(piece):
            continue
        if passed := scanner.feed(piece):
            tap.feed(passed)
    assert scanner.done
    return tap.finish()


def cut_once(octets: bytes) -> Iterator[list[bytes]]:
    """Cut at every place; at every 23rd if framing is most of the octets."""
    for at in range(1, len(octets), 1 if len(octets) < 2500 else 23):
        yield [octets[:at], octets[at:]]


def cut_all(octets: bytes, size: int) -> list[bytes]:
    return [octets[start : start + size] for start in range(0, len(octets), size)]


def chunkings(octets: bytes, events: list[bytes] | None = None) -> list[bytes]:
    """The same payload in several chunkings."""
    several = [
        chunk(octets),
        b"".join(map(chunk, cut_all(octets, 1))),
        b"".join(map(chunk, cut_all(octets, 13))),
    ]
    if events:
        several.append(b"".join(map(chunk, events)))
        several.append(b"".join(chunk(event[:-1]) + chunk(event[-1:]) for event in events))
        several.append(b"".join(chunk(event[:20]) + chunk(event[20:]) for event in events))
    return [one + LAST for one in several]


@pytest.mark.parametrize("framed", [False, True])
def test_a_json_answer_is_read_at_every_split(framed: bool) -> None:
    for wire in chunkings(JSON) if framed else [JSON]:
        for pieces in (*cut_once(wire), cut_all(wire, 1), cut_all(wire, 7), [wire]):
            assert read(JsonTap(), pieces, framed=framed) == ALL


@pytest.mark.parametrize("framed", [False, True])
def test_a_stream_is_read_at_every_split(framed: bool) -> None:
    for wire in chunkings(WIRE, EVENTS) if framed else [WIRE]:
        for pieces in (*cut_once(wire), cut_all(wire, 1), cut_all(wire, 7), [wire]):
            assert read(StreamTap(), pieces, framed=framed) == ALL, pieces


@given(st.data())
def test_chunks_and_pieces_may_fall_anywhere(data: st.DataObject) -> None:
    sizes = st.lists(st.integers(1, 120), min_size=1, max_size=30)

    def pieces(octets: bytes) -> list[bytes]:
        cut, at = [], 0
        for size in data.draw(sizes):
            cut.append(octets[at : at + size])
            at += size
        return [piece for piece in (*cut, octets[at:]) if piece]

    wire = b"".join(map(chunk, pieces(WIRE))) + LAST
    assert read(StreamTap(), pieces(wire), framed=True) == ALL
    assert read(StreamTap(), pieces(WIRE), framed=False) == ALL


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_every_line_ending_of_the_standard_is_read(ending: str) -> None:
    wire = b"".join(event.replace(b"\n", ending.encode()) for event in EVENTS)
    for pieces in (*cut_once(wire), [wire], cut_all(wire, 1)):
        usage = read(StreamTap(), pieces, framed=False)
        assert (usage.input, usage.output, usage.complete) == (25, 9, True)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (
            {"input_tokens": 0, "output_tokens": 0},
            {"input_tokens": 31, "output_tokens": 4},
            (31, 4),
        ),
        ({"input_tokens": 0, "output_tokens": 0}, {"output_tokens": 4}, (None, 4)),
        (
            {"input_tokens": 8, "output_tokens": 1},
            {"input_tokens": None, "output_tokens": 4},
            (8, 4),
        ),
        ({"input_tokens": 8, "output_tokens": 1}, {"output_tokens": None}, (8, 1)),
        ({"input_tokens": 8}, {"input_tokens": 0, "output_tokens": 0}, (8, 0)),
        ({"input_tokens": None, "output_tokens": None}, {"output_tokens": 4}, (None, 4)),
        (
            {"input_tokens": 8, "output_tokens": 1, "server_tool_use": None},
            {"output_tokens": 4},
            (8, 4),
        ),
        ({}, {}, (None, None)),
        ({"input_tokens": 8, "output_tokens": 1}, {"output_tokens": -1}, (8, 1)),
        ({"input_tokens": 10**12}, {"output_tokens": 2**80}, (None, None)),
    ],
)
def test_the_highest_valid_count_applies(
    start: dict[str, Any], end: dict[str, Any], expected: tuple[int | None, int | None]
) -> None:
    events = answers.stream(start=start, end=end)
    for framed, pieces in ((False, events), (True, [*map(chunk, events), LAST])):
        usage = read(StreamTap(), pieces, framed=framed)
        assert (usage.input, usage.output) == expected
        assert usage.complete


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": "x"}, [], 7, {"input_tokens": -1.5}])
def test_malformed_usage_is_ignored(usage: Any) -> None:
    body = json.dumps({**MESSAGE, "usage": usage}).encode()
    usage_read = read(JsonTap(), [body], framed=False)
    assert usage_read.complete
    assert (usage_read.input, usage_read.output) == (None, None)
    events = answers.stream(start=usage, end=usage)
    usage_read = read(StreamTap(), events, framed=False)
    assert usage_read.complete


@pytest.mark.parametrize(
    ("details", "thinking"),
    [
        ({"thinking_tokens": 7}, 7),
        ({"thinking_tokens": 0}, 0),
        ({"thinking_tokens": None}, None),
        ({"thinking_tokens": True}, None),
        ({"thinking_tokens": -1}, None),
        ({"thinking_tokens": 2**80}, None),
        ({}, None),
        ([7], None),
        (None, None),
    ],
)
def test_thinking_tokens_are_counted_if_they_are_stated(
    details: object, thinking: int | None
) -> None:
    counts = {"input_tokens": 25, "output_tokens": 9, "output_tokens_details": details}
    body = json.dumps({**MESSAGE, "usage": counts}).encode()
    for usage_read in (
        read(JsonTap(), [body], framed=False),
        read(StreamTap(), answers.stream(end=counts), framed=False),
    ):
        assert (usage_read.input, usage_read.output, usage_read.thinking) == (25, 9, thinking)


@pytest.mark.parametrize(
    ("tap", "events"),
    [
        pytest.param(JsonTap, [JSON[:30], JSON[30:60], JSON[60:]], id="document"),
        pytest.param(StreamTap, EVENTS, id="stream"),
    ],
)
@pytest.mark.parametrize("framed", [False, True])
def test_a_payload_that_was_read_ahead_counts(
    tap: type[JsonTap | StreamTap], events: list[bytes], framed: bool
) -> None:
    for ahead in range(len(events) + 1):
        one, scanner, chunks = tap(), ChunkScanner(), ChunkReader()
        pieces = [*map(chunk, events), LAST] if framed else events
        payload = b""
        for piece in pieces[:ahead]:
            payload += chunks.feed(scanner.feed(piece)) if framed else piece
        one.begin(payload, scanner if framed else None, chunks if framed else None)
        for piece in pieces[ahead:]:
            one.feed(scanner.feed(piece) if framed else piece)
        assert one.finish() == ALL


@pytest.mark.parametrize("wire", [b"no JSON", b"{", b""])
def test_a_document_that_does_not_decode_is_not_complete(wire: bytes) -> None:
    assert message_usage(wire) == read(JsonTap(), [wire], framed=False) == Usage()


@pytest.mark.parametrize("wire", [b"[]", b'{"model":7}', b'{"model":"\xff"}'])
def test_a_document_of_another_shape_is_complete(wire: bytes) -> None:
    assert message_usage(wire) == Usage(complete=True)


def test_a_document_over_32_mib_is_complete_and_has_no_counts() -> None:
    wire = b'{"model":"' + b"x" * 33 * 1024 * 1024 + b'","usage":{"input_tokens":7}}'
    usage = read(JsonTap(), cut_all(wire, 1024 * 1024), framed=False)
    assert (usage.input, usage.complete) == (None, True)


@pytest.mark.parametrize("framed", [False, True])
def test_an_error_or_an_encoded_answer_has_no_counts(framed: bool) -> None:
    tap = NoTap()
    assert read(tap, chunkings(JSON)[:1] if framed else [JSON], framed=framed) == Usage(
        complete=True
    )
    assert not tap.between_events()
    assert not JsonTap().between_events()


def test_an_error_event_ends_a_stream() -> None:
    events = [*EVENTS[:3], answers.event("error", error={"type": "overloaded_error"})]
    for pieces in (events, [b"".join(events)], cut_all(b"".join(events), 1)):
        usage = read(StreamTap(), pieces, framed=False)
        assert (usage.complete, usage.error) == (True, True)


def test_a_delta_that_is_no_object_has_no_stop_reason() -> None:
    data = b'{"type":"message_delta","delta":7,"usage":{"output_tokens":4}}'
    usage = read(StreamTap(), [b"event: message_delta\ndata: " + data + b"\n\n"], framed=False)
    assert (usage.output, usage.stop_reason) == (4, None)


def test_usage_in_another_event_is_ignored() -> None:
    odd = answers.event("ping", usage={"input_tokens": 1, "output_tokens": 1})
    assert read(StreamTap(), [*EVENTS[:2], odd, *EVENTS[2:]], framed=False) == ALL


def test_a_huge_event_hides_nothing_that_follows_it() -> None:
    events = answers.stream(("x" * 3_000_000, '"usage"' * 200_000))
    for size in (65_536, 262_144, 10_000_000):
        usage = read(StreamTap(), cut_all(b"".join(events), size), framed=False)
        assert (usage.input, usage.output, usage.complete) == (25, 9, True)
        wire = b"".join(map(chunk, events)) + LAST
        usage = read(StreamTap(), cut_all(wire, size), framed=True)
        assert (usage.input, usage.output, usage.complete) == (25, 9, True)


def test_a_stream_without_its_end_is_not_complete() -> None:
    for count in range(len(EVENTS)):
        events = EVENTS[:count]
        assert not read(StreamTap(), events, framed=False).complete
        assert not read(StreamTap(), [*map(chunk, events), LAST], framed=True).complete


def test_a_text_that_looks_like_an_end_does_not_end_a_stream() -> None:
    events = answers.stream(('{"type":"message_stop"}', "\nevent: error\ndata: {}\n\n"))[:-2]
    assert not read(StreamTap(), events, framed=False).complete
    assert not read(StreamTap(), [b"".join(events)], framed=False).complete


@pytest.mark.parametrize("together", [1, 2, 3])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("framed", [False, True])
def test_a_text_that_names_the_end_hides_nothing(
    together: int, ending: bytes, framed: bool
) -> None:
    events = answers.stream(["a text", "another", "event: message_stop", "message_stop"])
    expected = read(StreamTap(), [b"".join(events)], framed=False)
    assert expected.complete
    octets = [event.replace(b"\n", ending) for event in events]
    if framed:
        octets = [*map(chunk, octets), LAST]
    pieces = [b"".join(octets[at : at + together]) for at in range(0, len(octets), together)]
    usage = read(StreamTap(), pieces, framed=framed)
    assert (usage.output, usage.stop_reason, usage.complete) == (
        expected.output, expected.stop_reason, True,
    )  # fmt: skip


@pytest.mark.parametrize("after", [b"\n", b": ping\n\n", b"data: [DONE]\n\n"])
def test_octets_after_the_last_event_change_nothing(after: bytes) -> None:
    assert read(StreamTap(), [*EVENTS, after], framed=False) == ALL
    assert read(StreamTap(), [*map(chunk, EVENTS), chunk(after), LAST], framed=True) == ALL


DELTA = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"})
OTHERS = {
    "two events": DELTA + DELTA,
    "a comment before it": b":\n" + DELTA,
    "an id before it": b"id: 7\n" + DELTA,
    "an id in it": DELTA.replace(b"\ndata", b"\nid: 7\ndata"),
    "a second line of data": DELTA[:-1] + b"data: {}\n\n",
    "other line ends": DELTA.replace(b"\n", b"\r\n"),
    "no end": DELTA[:-1],
    "no name": DELTA.partition(b"\n")[2],
    "another name": DELTA.replace(b"_delta\n", b"_delta2\n"),
    "another event": event("ping"),
    "an error": b"event: error\ndata: {}\n\n",
    "a few octets": b"\n\n",
    # A carriage return alone ends a line, too (HTML Standard, 9.2.6).
    "an error behind a bare CR": DELTA[:-2] + b"\r\revent: error\rdata: {}\n\n",
}


def passes(piece: bytes, *before: bytes) -> bool:
    """Whether a piece passes whose like was read twice before."""
    for known in 2 * (*map(chunk, OTHERS.values()), chunk(b"x" * len(DELTA)), chunk(DELTA), piece):
        scanner, tap = ChunkScanner(), StreamTap()
        tap.begin(EVENTS[0], scanner, ChunkReader())
        tap.feed(scanner.feed(known))
    scanner, tap = ChunkScanner(), StreamTap()
    tap.begin(EVENTS[0], scanner, ChunkReader())
    for each in before:
        tap.feed(scanner.feed(each))
    return tap.passes(piece)


@pytest.mark.parametrize("text", ["", "Hi", "x" * 200, "x" * 3000, "\n\n", "你好"])
def test_an_event_of_content_in_its_own_chunk_passes(text: str) -> None:
    delta = {"type": "text_delta", "text": text}
    piece = chunk(event("content_block_delta", index=0, delta=delta))
    assert passes(piece)
    assert passes(piece, piece)


def test_content_with_a_bare_cr_is_read_to_its_end() -> None:
    scanner, tap = ChunkScanner(), StreamTap()
    tap.begin(EVENTS[0], scanner, ChunkReader())
    assert not tap.feed(scanner.feed(chunk(DELTA)))
    assert tap.feed(scanner.feed(chunk(OTHERS["an error behind a bare CR"])))
    assert [name for name, _ in tap.take_others()] == [b"message_start", b"error"]


@pytest.mark.parametrize("other", OTHERS)
def test_nothing_else_passes_unread(other: str) -> None:
    assert not passes(chunk(OTHERS[other]))


def test_a_chunk_passes_only_with_all_its_octets() -> None:
    piece = chunk(DELTA)
    assert passes(piece)
    scanner, tap = ChunkScanner(), StreamTap()
    tap.begin(EVENTS[0], scanner, ChunkReader())
    for other in (
        piece[:-2] + b"xx",
        piece[:-3] + b"x\r\n",
        piece[:60] + piece[-4:],
        piece[:-4] + b"x" + piece[-4:],
    ):
        assert not tap.passes(other)
    assert tap.passes(piece)


def test_a_piece_passes_only_between_chunks_and_before_the_end() -> None:
    piece = chunk(DELTA)
    half = len(piece) // 2
    assert not passes(piece, piece[:half])
    assert not passes(piece, chunk(DELTA[:half]))
    assert not passes(piece, piece[:-1])
    assert not passes(piece, chunk(EVENTS[-2]))  # with the usage: only the end follows
    assert not passes(piece + piece)
    assert not passes(piece[:half])
    tap = StreamTap()
    assert not tap.passes(piece)  # of a stream without chunks


def test_between_events_is_true_only_between_two_events() -> None:
    for wire in (chunk(WIRE), b"".join(map(chunk, EVENTS)), b"".join(map(chunk, cut_all(WIRE, 1)))):
        scanner, tap = ChunkScanner(), StreamTap()
        tap.begin(b"", scanner, ChunkReader())
        plain = b""
        for octet in cut_all(wire, 1):
            if passed := scanner.feed(octet):
                plain += passed
                tap.feed(passed)
            if scanner.at_boundary() and tap.between_events():
                payload = _payload(plain)
                assert not payload.strip(b"\n") or payload.endswith(b"\n\n")


def _payload(framed: bytes) -> bytes:
    payload = b""
    while framed:
        size, _, framed = framed.partition(b"\r\n")
        payload += framed[: int(size, 16)]
        framed = framed[int(size, 16) + 2 :]
    return payload

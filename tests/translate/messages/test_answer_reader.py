"""An answer of unknown form is read until enough of it has come, at any cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.translate.messages.answer_form import Form
from relay.translate.messages.answer_reader import AnswerReader
from relay.translate.messages.first_content import FirstEvent
from tests.fakes import answers
from tests.wire.feeding import octet_by_octet, split_at

STREAM = b"".join(answers.stream())
DOCUMENT = b' \r\n{"type":"message","content":[{"type":"text","text":"hi"}]}'
PAGE = b"<!doctype html><title>Bad gateway</title>"
ERROR = answers.event("error", error={"type": "overloaded_error", "message": "Overloaded"})
CUTS = st.lists(st.integers(0, len(STREAM)), max_size=6)


def fed(reader: AnswerReader, pieces: list[bytes]) -> int:
    """The number of octets after which enough was there; -1 if it never was."""
    octets = 0
    for piece in pieces:
        octets += len(piece)
        if reader.feed(piece):
            return octets
    return -1


@given(CUTS)
def test_a_wanted_stream_is_read_to_its_first_content(cuts: list[int]) -> None:
    reader = AnswerReader(streams=True)
    content = STREAM.index(b"event: content_block_delta")
    assert fed(reader, split_at(STREAM, cuts)) > content
    assert (reader.form, reader.first.kind) == (Form.STREAM, FirstEvent.CONTENT)
    assert not reader.first.pending or cuts


@given(CUTS)
def test_a_stream_in_place_of_a_document_is_read_to_its_end(cuts: list[int]) -> None:
    reader = AnswerReader(streams=False)
    assert fed(reader, split_at(STREAM, cuts)) == -1
    assert (reader.form, reader.broken, reader.document.complete) == (Form.STREAM, False, True)
    assert json.loads(reader.document.octets())["content"][0]["text"] == "Hello wörld 🌍"


@pytest.mark.parametrize("streams", [True, False])
def test_a_document_is_read_to_its_end(streams: bool) -> None:
    for pieces in ([DOCUMENT], octet_by_octet(DOCUMENT)):
        reader = AnswerReader(streams=streams)
        assert fed(reader, pieces) == -1
        assert reader.form is Form.DOCUMENT


@pytest.mark.parametrize("streams", [True, False])
def test_anything_else_is_known_by_its_first_octets(streams: bool) -> None:
    for pieces in ([PAGE], octet_by_octet(PAGE)):
        reader = AnswerReader(streams=streams)
        assert 0 < fed(reader, pieces) <= len(PAGE)
        assert reader.form is Form.OTHER


@pytest.mark.parametrize("streams", [True, False])
@given(cuts=CUTS)
def test_an_error_event_is_enough(streams: bool, cuts: list[int]) -> None:
    reader = AnswerReader(streams=streams)
    octets = STREAM[: STREAM.index(b"event: content_block_start")] + ERROR
    assert fed(reader, [*split_at(octets, cuts), STREAM]) == len(octets)
    if streams:
        assert reader.first.kind is FirstEvent.ERROR
    else:
        assert b"overloaded_error" in (reader.document.error or b"")
        assert not reader.document.complete


def test_a_part_of_an_event_is_pending() -> None:
    reader = AnswerReader(streams=True)
    assert not reader.first.pending
    for end, pending in ((20, True), (len(answers.stream()[0]), False)):
        part = AnswerReader(streams=True)
        assert not part.feed(STREAM[:end])
        assert part.first.pending is pending


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"content_block_start","index":%b,"content_block":{"type":"text"}}' % index
        for index in (b"[1]", b"1e999", b'{"a":1}', b"-1", b'"x"')
    ]
    + [b"[" * 100_000 + b"]" * 100_000, b'{"type":"content_block_del', b"7"],
    ids=lambda data: data[:60].decode(),
)
def test_an_event_that_cannot_be_read_breaks_the_answer(data: bytes) -> None:
    reader = AnswerReader(streams=False)
    assert reader.feed(b"event: content_block_start\ndata: %b\n\n" % data)
    assert reader.broken

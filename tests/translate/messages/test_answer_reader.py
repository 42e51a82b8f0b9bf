"""Odd answers that are read as a whole."""

import pytest

from relay.translate.messages.answer_reader import AnswerReader


@pytest.mark.parametrize("index", [b"[1]", b"1e999", b'{"a":1}', b"-1", b'"x"'])
def test_an_odd_index_breaks_the_answer(index: bytes) -> None:
    reader = AnswerReader(streams=False)
    data = b'{"type":"content_block_start","index":%b,"content_block":{"type":"text","text":""}}'
    reader.feed(b"event: content_block_start\ndata: %b\n\n" % (data % index))
    assert reader.broken

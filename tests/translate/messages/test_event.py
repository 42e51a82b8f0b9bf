"""One event is read, skipped or refused by its shape, however odd."""

import json
from typing import Any

import pytest

from relay.translate.messages import event
from relay.translate.messages.event_fields import StreamEvent

DELTA = {"type": "text_delta", "text": "hi"}


def data(**members: Any) -> bytes:
    return json.dumps(members).encode()


@pytest.mark.parametrize("index", ["0", "1", 0.0, None])
@pytest.mark.parametrize("stated", [True, False], ids=["type", "name"])
def test_an_odd_index_costs_no_content(index: object, stated: bool) -> None:
    kind = {"type": "content_block_delta"} if stated else {}
    octets = data(**kind, index=index, delta=DELTA)
    found = event.read(b"content_block_delta", octets)
    assert (found.type, found.index) == ("content_block_delta", int(str(index or 0)[:1]))
    assert found.delta is not None
    assert bytes(found.delta.text) == b'"hi"'


@pytest.mark.parametrize(
    "octets",
    [
        data(type="content_block_delta", index=None, delta=7),
        data(type="content_block_delta", index=None, delta={"type": 7}),
        data(type="content_block_delta", index=[], delta=DELTA),
        data(type="content_block_start", index=None, content_block="x"),
        data(type="message_delta", delta=[]),
        data(type=7, index="x"),
        b"7",
        b"[]",
        b'{"type":"content_block_delta","index":0,"del',
        b"[" * 100_000,
    ],
    ids=lambda octets: octets[:60].decode(),
)
def test_a_gap_in_an_answer_is_noticed(octets: bytes) -> None:
    with pytest.raises(ValueError):
        event.read(b"content_block_delta", octets)


@pytest.mark.parametrize("octets", [b"", b" ", b"[DONE]"])
def test_an_event_without_data_has_its_name_alone(octets: bytes) -> None:
    assert event.read(b"ping", octets) == StreamEvent("ping")


def test_an_unknown_event_may_have_any_shape() -> None:
    assert event.read(b"", data(type="vendor.news", index={}, delta=7)).type == "vendor.news"
    assert event.read(b"vendor.news", data(index={}, delta=7)).type == "vendor.news"


def test_an_error_without_a_type_is_known_by_its_member() -> None:
    assert event.read(b"", data(error={"message": "x"})).type == "error"
    assert event.read(b"", data(error=None)).type == ""
    assert event.read(b"ping", data(error={"message": "x"})).type == "ping"

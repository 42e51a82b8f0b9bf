"""A body that is passed on in another form is labelled as what it is, and by nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire.events import UNTIL_CLOSE, Limits, Response
from relay.wire.h1 import response_reader
from relay.wire.relabel import as_event_stream, as_json
from tests.fakes.answers import event

DOCUMENT = json.dumps({"type": "message", "content": []}).encode()
DESCRIBING = ["Content-Type: text/html", "content-encoding: gzip", "CONTENT-TYPE:text/plain"]
OTHERS = [
    "request-id: req_1",
    "x-content-type: mine",
    "content-language: de",
    "anthropic-ratelimit-tokens-remaining: 7",
    "x-empty:",
]


def received(lines: list[str]) -> Response:
    """The head as the reader of upstreams returns it."""
    head = "\r\n".join(["HTTP/1.1 200 OK", *lines, "content-length: 5", "", ""])
    read = response_reader(Limits()).feed(head.encode())
    assert read is not None
    return read[0]


def content(response: Response) -> list[bytes]:
    return [line for line in response.onward.split(b"\r\n") if line.lower().startswith(b"content-")]


@given(st.permutations([*OTHERS, DESCRIBING[0], DESCRIBING[1]]).map(list))
def test_a_stream_that_became_a_document_is_labelled_json(lines: list[str]) -> None:
    before = received(lines)
    after = as_json(before, DOCUMENT)
    assert (after.length, after.status) == (len(DOCUMENT), before.status)
    assert after.headers[b"content-type"] == b"application/json"
    assert b"content-encoding" not in after.headers
    assert b"content-type: application/json\r\n" in after.onward
    check_others(before, after)


@given(st.permutations([*OTHERS, DESCRIBING[2]]).map(list))
def test_a_document_that_became_a_stream_is_labelled_so(lines: list[str]) -> None:
    before = received(lines)
    after = as_event_stream(before)
    assert after.length == UNTIL_CLOSE
    assert after.headers[b"content-type"].startswith(b"text/event-stream")
    assert b"content-type: text/event-stream; charset=utf-8\r\n" in after.onward
    check_others(before, after)


def check_others(before: Response, after: Response) -> None:
    """Every other field is as it came, in its order, and the label stands once."""
    assert after.keep_alive == before.keep_alive
    kept = [line for line in after.onward.split(b"\r\n") if line]
    assert sum(line.lower().startswith(b"content-type:") for line in kept) == 1
    assert not any(line.lower().startswith(b"content-encoding:") for line in kept)
    label = (b"content-type:", b"content-encoding:")
    assert [line for line in kept if not line.lower().startswith(label)] == [
        line for line in before.onward.split(b"\r\n") if line and not line.lower().startswith(label)
    ]
    described = {b"content-type", b"content-encoding"}
    assert {name: value for name, value in after.headers.items() if name not in described} == {
        name: value for name, value in before.headers.items() if name not in described
    }


@pytest.mark.parametrize("lines", [[], ["x: y"]])
def test_a_response_without_a_label_gets_one(lines: list[str]) -> None:
    body = event("ping")
    for after in (as_json(received(lines), body), as_event_stream(received(lines))):
        assert len(content(after)) == 1

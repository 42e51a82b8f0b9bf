"""Every vendor's error document is read, and becomes one error for the caller."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import ErrorShape
from relay.translate.messages.error_document import (
    NO_ERROR,
    ErrorDocument,
    caller_error,
    read,
    status_of,
    stream_error,
)

SHAPES = {
    "anthropic": (
        b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
        ErrorDocument("overloaded_error", "", "Overloaded"),
    ),
    "a code as a number": (
        b'{"error":{"code":1302,"message":"Full"}}',
        ErrorDocument("", "1302", "Full"),
    ),
    "msg": (b'{"error":{"code":"7","msg":"Full"}}', ErrorDocument("", "7", "Full")),
    "an error that is a text": (b'{"error":"Full"}', ErrorDocument("", "", "Full")),
    "a text beside a message": (
        b'{"error":"Too Many Requests","message":"Full","code":429}',
        ErrorDocument("", "429", "Full"),
    ),
    "base_resp": (
        b'{"base_resp":{"status_code":2056,"status_msg":"Full"}}',
        ErrorDocument("", "2056", "Full"),
    ),
    "code and msg": (b'{"code":7,"msg":"Full"}', ErrorDocument("", "7", "Full")),
    "detail": (b'{"detail":"Not Found"}', ErrorDocument("", "", "Not Found")),
    "values of other types": (b'{"error":{"type":true,"code":[],"message":1.5}}', NO_ERROR),
    "no JSON": (b"<html>no</html>", NO_ERROR),
    "no UTF-8": (b'{"error":"\xff"}', NO_ERROR),
    "no object": (b"[]", NO_ERROR),
    "too deep": (b'{"error":' * 100_000, NO_ERROR),
}
NO_FAILURES = {
    "success in base_resp": b'{"base_resp":{"status_code":0,"status_msg":"success"}}',
    "base_resp without a code": b'{"base_resp":{"status_msg":"Full"}}',
    "code 200": b'{"code":200,"msg":"ok"}',
    "code 0": b'{"code":"0","message":"ok"}',
    "a type alone": b'{"type":"message"}',
    "over 256 KiB": json.dumps({"error": "x" * 300_000}).encode(),
}


@pytest.mark.parametrize(("body", "document"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("failures_only", [False, True])
def test_a_document_is_read_in_the_shape_of_each_vendor(
    body: bytes, document: ErrorDocument, failures_only: bool
) -> None:
    assert read(body, failures_only=failures_only) == document


@pytest.mark.parametrize("body", NO_FAILURES.values(), ids=NO_FAILURES)
def test_only_a_caller_gets_the_text_of_a_possible_answer(body: bytes) -> None:
    assert read(body, failures_only=True) == NO_ERROR
    assert read(body) != NO_ERROR


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"error":{"type":"overloaded_error"}}', 529),
        (b'{"error":{"type":"rate_limit_error"}}', 429),
        (b'{"error":{"type":"timeout_error"}}', 504),
        (b'{"error":{"type":"a_new_error"}}', 500),
        (b'{"error":{"code":"429"}}', 500),
        (b"no document", 500),
    ],
)
def test_an_error_with_status_200_gets_the_status_of_its_type(body: bytes, status: int) -> None:
    assert status_of(body) == status


@pytest.mark.parametrize(
    ("status", "body", "sent", "code"),
    [
        (200, b'{"error":{"type":"rate_limit_error"}}', 429, "rate_limit_exceeded"),
        (200, b'{"error":{"code":"1214"}}', 502, "bad_upstream"),
        (418, b'{"error":{"type":"a_new_error"}}', 418, None),
        (529, b'{"error":{"type":"overloaded_error"}}', 503, "overloaded"),
        (400, b'{"error":{"type":"invalid_request_error"}}', 400, None),
        (404, b'{"error":{"code":"model_not_found"}}', 404, "model_not_found"),
    ],
)
def test_the_caller_gets_a_status_and_a_code_of_openai(
    status: int, body: bytes, sent: int, code: str | None
) -> None:
    found, error = caller_error(status, body)
    assert found == sent
    document = json.loads(error.body(ErrorShape.OPENAI))["error"]
    assert document["code"] == code
    assert document["message"] == f"The model's upstream answered {status}."


@given(st.integers(0, 999), st.binary(max_size=80) | st.sampled_from([*NO_FAILURES.values()]))
def test_any_document_becomes_an_error_for_the_caller(status: int, body: bytes) -> None:
    sent, error = caller_error(status, body)
    assert error.message
    assert 400 <= sent <= 999
    assert stream_error(body).message

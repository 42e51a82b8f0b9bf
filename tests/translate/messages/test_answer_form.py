"""The form of an answer, and whether it is one, by its octets alone."""

import pytest

from relay.translate.messages.answer_form import Form, form_of, is_answer, is_untyped_error
from tests.fakes.upstream import JSON_ANSWER


@pytest.mark.parametrize(
    ("octets", "form"),
    [
        (b"{", Form.DOCUMENT),
        (b"\xef\xbb\xbf\r\n {}", Form.DOCUMENT),
        (b"event: message_start\n", Form.STREAM),
        (b"data:{}", Form.STREAM),
        (b": a comment\n", Form.STREAM),
        (b"\n\nid: 1\n", Form.STREAM),
        (b"retry: 1", Form.STREAM),
        (b"[{}]", Form.OTHER),
        (b"null", Form.OTHER),
        (b"<html>", Form.OTHER),
        (b"\x1f\x8b\x08", Form.OTHER),
        (b"events are", Form.OTHER),
        (b"", Form.OTHER),
    ],
)
def test_the_first_octets_show_the_form(octets: bytes, form: Form) -> None:
    assert form_of(octets) is form


@pytest.mark.parametrize("octets", [b"", b" \n", b"even", b"data", b"\xef\xbb\xbf"])
def test_too_few_octets_show_nothing_yet(octets: bytes) -> None:
    assert form_of(octets, complete=False) is None


@pytest.mark.parametrize(
    "document",
    [
        JSON_ANSWER,
        b'{"type":"message","content":[]}',
        b'{"type":"message","content":null}',
        b'{"content":[{"type":"text","text":"no type"}]}',
        b'{"type":"message","content":[{}],"error":null,"base_resp":{"status_code":0}}',
        b'{"type":"message","content":[{"type":"text","text":"caf\\ud83d "}]}',
    ],
)
def test_a_message_is_an_answer(document: bytes) -> None:
    assert is_answer(document, counting=False)


@pytest.mark.parametrize(
    "document",
    [
        b"{}", b"null", b"[]", b'"text"', b"7", b"", b"<html>", b'{"type":"mess',
        b'{"code":500,"msg":"404 NOT_FOUND","success":false}',
        b'{"detail":"model is loading"}', b'{"error":{"message":"busy"}}', b'{"error":"busy"}',
        b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}',
        b'{"type":"message","content":[],"error":{"message":"busy"}}',
        b'{"type":"message","content":null,"base_resp":{"status_code":1008,"status_msg":"x"}}',
        b'{"id":"chatcmpl-1","object":"chat.completion","choices":[],"model":"m"}',
        b'{"content":[]}',
        b"{" * 20_000,
    ],
    ids=range(18),
)  # fmt: skip
@pytest.mark.parametrize("counting", [False, True])
def test_anything_else_is_none(document: bytes, counting: bool) -> None:
    assert not is_answer(document, counting=counting)


def test_a_count_is_an_answer_to_a_count_only() -> None:
    assert is_answer(b'{"input_tokens":7}', counting=True)
    assert not is_answer(b'{"input_tokens":7}', counting=False)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"error":{"message":"busy"}}', True),
        (b'{"type":"error","error":{"message":"busy"}}', True),
        (b'{"type":"vendor_note","message":"hello"}', False),
        (b'{"type":"content_block_delta","error":{"message":"busy"}}', False),
        (b"[DONE]", False),
        (b"{}", False),
    ],
)
def test_an_error_object_is_known_without_a_type(data: bytes, error: bool) -> None:
    assert is_untyped_error(data) is error

"""A Messages answer becomes the same chat completion; an error keeps its message."""

import json
import tomllib
from typing import Any

import pytest

from relay.errors import ErrorShape
from relay.translate.chat.answer import AnswerMetadata, translate
from relay.translate.messages import content
from relay.translate.messages.error_document import caller_error, stream_error
from tests.corpora import CORPORA
from tests.translate import chunks
from tests.translate.chunks import METADATA


def error(status: int, body: bytes) -> tuple[int, bytes]:
    status, found = caller_error(status, body)
    return status, found.body(ErrorShape.OPENAI)


def error_event(data: bytes) -> bytes:
    return stream_error(data).event(ErrorShape.OPENAI)


USAGE = "10 (0 read, 0 written), 9 (0 thought)"


def cases(kind: str) -> list[Any]:
    document = tomllib.loads((CORPORA / "chat" / "answers.toml").read_text(encoding="utf-8"))
    return [pytest.param(case, id=case["name"]) for case in document[kind]]


@pytest.mark.parametrize("case", cases("case"))
def test_an_answer_becomes_a_completion(case: dict[str, Any]) -> None:
    payload = case["payload"].encode()
    if "message" not in case:
        with pytest.raises(ValueError):
            translate(payload, METADATA)
        return
    document = chunks.completion(translate(payload, METADATA))
    (choice,) = document["choices"]
    assert choice["message"] == {"role": "assistant", **json.loads(case["message"])}
    assert choice["finish_reason"] == case.get("finish", "stop")
    assert chunks.usage(document["usage"]) == case.get("usage", USAGE)


@pytest.mark.parametrize("case", cases("error"))
def test_an_error_keeps_its_message_and_gets_a_type(case: dict[str, Any]) -> None:
    body = case["body"].encode()
    if case["status"]:
        status, octets = error(case["status"], body)
        prefix = f"{status} "
    else:
        event = error_event(body)
        assert event.startswith(b"data: {")
        assert event.endswith(b"}\n\n")
        octets, prefix = event[6:], ""
    document = json.loads(octets)
    assert list(document) == ["error"]
    found = document["error"]
    assert list(found) == ["message", "type", "param", "code"]
    assert f"{prefix}{found['type']} {found['code'] or 'null'}" == case["expected"]
    assert found["message"] == case["message"]
    assert found["param"] is None


@pytest.mark.parametrize("document", [b"\xff", b"[]", b"7", b"[" * 100_000, b'{"error":[]}'])
def test_an_unreadable_error_is_reported_by_its_status(document: bytes) -> None:
    for status in (400, 418, 429, 500, 507, 529):
        found, octets = error(status, document)
        assert found == (503 if status == 529 else status)
        message = json.loads(octets)["error"]["message"]
        assert message == f"The model's upstream answered {status}."
    assert b"ended its answer with an error" in error_event(document)


def test_the_metadata_is_repeated_unchanged() -> None:
    metadata = AnswerMetadata('chatcmpl-"1"', 1, 'a "model" of ü', "kimi")
    payload = b'{"type":"message","content":[{"type":"thinking","thinking":"a"}]}'
    document = json.loads(translate(payload, metadata))
    assert (document["id"], document["created"], document["model"]) == (
        'chatcmpl-"1"',
        1,
        'a "model" of ü',
    )
    (entry,) = document["choices"][0]["message"]["reasoning_details"]
    assert entry["format"] == "kimi-v1"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"type":"message","content":[{"type":"text","text":"\xff"}]}',
        b'{"type":"message","content":[{"type":"thinking","thinking":"\xff"}]}',
        b'{"type":"message","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"type":"message","content":[{"type":"tool_use","id":"toolu_1","input":{}}]}',
        b'{"type":["message"],"content":[]}',
    ],
)
def test_a_payload_that_is_not_an_answer_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError):
        translate(payload, METADATA)


def test_the_citations_of_a_block_are_bounded() -> None:
    cited = {"type": "web_search_result_location", "url": "https://a.example", "title": "T"}
    text = {"type": "text", "text": "a", "citations": [cited] * 1000}
    payload = json.dumps({"type": "message", "content": [text, text]}).encode()
    document = chunks.completion(translate(payload, METADATA))
    assert len(document["choices"][0]["message"]["annotations"]) == 200


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('""', 0),
        ('"abc"', 3),
        ('"ü🌍"', 2),
        (r'"\n\"\\\/"', 4),
        (r'"\\n"', 2),
        (r'"\\u00e9"', 6),
        (r'"\u00e9\u0000"', 2),
        (r'"\ud7ff\ue000"', 2),
        (r'"\ud83c\udf0d\UD83C"', None),
        (r'"\uD83C\uDF0Dü"', 2),
        (r'"\ud83c"', 1),
        (r'"\udf0d"', 0),
        (r'"\\ud83c"', 6),
    ],
)
def test_characters_are_counted_as_a_client_reads_them(text: str, count: int | None) -> None:
    if count is None:  # not JSON: the count may be any number
        count = content.count_characters(text.encode())
    assert content.count_characters(text.encode()) == count

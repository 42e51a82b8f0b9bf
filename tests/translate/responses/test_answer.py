"""Whole answers, errors and compacted conversations, as the Responses API tells them."""

import json
from typing import Any

import msgspec
import pytest

from relay.errors import OVERLOADED, Dialect, RelayError
from relay.translate.messages.error_document import judged
from relay.translate.messages.usage import Usage
from relay.translate.responses.answer import compacted, translate
from relay.translate.responses.stream import ResponsesStream
from tests.translate import replies
from tests.translate.openresponses import validate
from tests.translate.replies import SEAL, TOLD


def message(*content: Any, stop: str | None = "end_turn", **more: Any) -> bytes:
    usage = {"input_tokens": 10, "output_tokens": 9}
    told = {"type": "message", "content": content, "stop_reason": stop, "usage": usage, **more}
    return json.dumps(told).encode()


def test_a_response_has_every_member_that_the_specification_wants() -> None:
    octets, output = translate(message({"type": "text", "text": "Hi"}), TOLD, "anthropic")
    told = replies.response(octets)
    assert told["output"] == [json.loads(item) for item in output]
    assert (told["id"], told["created_at"], told["completed_at"]) == (
        "resp_1",
        1763942400,
        int(replies.NOW),
    )
    assert (told["object"], told["status"], told["error"]) == ("response", "completed", None)
    assert replies.usage(told["usage"]) == "10 (0 read), 9 (0 thought)"


def test_usage_that_is_known_better_is_told() -> None:
    usage = Usage(input=4, output=9, cache_read=6, stop_reason="end_turn", complete=True)
    octets, _ = translate(message({"type": "text", "text": "Hi"}), TOLD, "anthropic", usage)
    assert replies.usage(json.loads(octets)["usage"]) == "10 (6 read), 9 (0 thought)"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"type":"message","content":5}',
        b'{"content":[{"type":"text","text":5}]}',
        b'{"content":[{"type":"tool_use","id":"t","input":{}}]}',
        b'{"type":"message","content":[{"type":"text","text":"\xff"}]}',
        b'{"type":"error","error":{}}',
    ],
)
def test_what_is_no_answer_is_none(payload: bytes) -> None:
    with pytest.raises(ValueError):
        translate(payload, TOLD, "anthropic")
    with pytest.raises(ValueError):
        compacted(payload, TOLD, [])


# --- a conversation made short ------------------------------------------------------


def test_a_compacted_conversation_has_what_its_user_said_and_a_sealed_summary() -> None:
    picture = "data:image/png;base64,AAAA"
    items = [
        {"role": "user", "content": "One"},
        {"role": "developer", "content": "Be brief"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {
            "type": "message",
            "id": "msg_own",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Two"},
                {"type": "input_image", "image_url": picture},
            ],
        },
        {"type": "news"},
    ]
    raws = [msgspec.Raw(json.dumps(item).encode()) for item in items]
    answer = message({"type": "thinking", "thinking": "x", "signature": "y"},
                     {"type": "text", "text": 'So: "far".'})  # fmt: skip
    told = json.loads(compacted(answer, TOLD, raws))
    validate("CompactResource", told)
    first, second, last = told["output"]
    assert first["content"] == [{"type": "input_text", "text": "One"}]
    assert (first["role"], first["status"]) == ("user", "completed")
    assert second["id"] == "msg_own"
    assert second["content"][1]["image_url"] == picture
    assert last["type"] == "compaction"
    sealed = msgspec.Raw(json.dumps(last["encrypted_content"]).encode())
    summary = SEAL.opened_summary(sealed)
    assert summary is not None
    assert json.loads(bytes(summary)) == 'So: "far".'
    assert SEAL.opened(sealed) is None  # it is no thought


def test_a_summary_without_a_word_is_none() -> None:
    with pytest.raises(ValueError):
        compacted(message({"type": "text", "text": ""}), TOLD, [])


# --- what went wrong ----------------------------------------------------------------

ERRORS = [
    (529, '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
     503, "overloaded", "server_error"),
    (429, '{"type":"error","error":{"type":"rate_limit_error","message":"Slow down"}}',
     429, "rate_limit_exceeded", "rate_limit_exceeded"),
    (400, '{"type":"error","error":{"type":"invalid_request_error","message":"messages: no"}}',
     400, None, "invalid_prompt"),
    (400, '{"type":"error","error":{"type":"invalid_request_error",'
     '"message":"prompt is too long: 201 tokens > 200 maximum"}}',
     400, "context_length_exceeded", "context_length_exceeded"),
    (413, '{"type":"error","error":{"type":"request_too_large","message":"Too large"}}',
     413, "request_too_large", "invalid_prompt"),
    (402, '{"error":{"code":"1113","message":"Insufficient balance"}}',
     402, "insufficient_quota", "insufficient_quota"),
    (500, "<html>no</html>", 500, "internal_error", "server_error"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "payload", "told", "code", "in_stream"), ERRORS)
def test_an_error_has_the_code_that_clients_stop_or_try_again_by(
    status: int, payload: str, told: int, code: str | None, in_stream: str
) -> None:
    found, judgement = judged(status, payload.encode())
    error = json.loads(judgement.body(Dialect.RESPONSES))["error"]
    assert (found, error["code"]) == (told, code)
    assert error.keys() == {"message", "type", "param", "code"}
    events = replies.check(ResponsesStream(TOLD).fail(judgement))
    failed = events[-1]["response"]
    assert failed["status"] == "failed"
    assert failed["error"] == {"code": in_stream, "message": error["message"]}


def test_who_must_not_try_again_soon_is_told_by_the_code_at_which_codex_stops() -> None:
    headers = ((b"retry-after", b"3600"), (b"x-should-retry", b"false"))
    error = RelayError(OVERLOADED, "No upstream can serve this model before noon.", headers=headers)
    events = replies.check(ResponsesStream(TOLD).fail(error))
    assert events[-1]["response"]["error"]["code"] == "server_is_overloaded"

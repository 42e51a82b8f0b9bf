"""Complete answers, errors and compacted conversations in the Responses API."""

import json
from typing import Any

import msgspec
import pytest

from relay.errors import OVERLOADED, ErrorShape, RelayError
from relay.translate.messages.error_document import caller_error
from relay.translate.messages.usage import Usage
from relay.translate.responses.answer import compacted, translate, user_messages
from relay.translate.responses.stream import ResponsesStream
from tests.translate import replies
from tests.translate.openresponses import validate
from tests.translate.replies import METADATA, SEAL


def message(*content: Any, stop: str | None = "end_turn", **more: Any) -> bytes:
    usage = {"input_tokens": 10, "output_tokens": 9}
    document = {"type": "message", "content": content, "stop_reason": stop, "usage": usage, **more}
    return json.dumps(document).encode()


def test_a_response_has_every_member_that_is_required() -> None:
    octets, output = translate(message({"type": "text", "text": "Hi"}), METADATA, "anthropic")
    response = replies.response(octets)
    assert response["output"] == [json.loads(item) for item in output]
    assert (response["id"], response["created_at"], response["completed_at"]) == (
        "resp_1",
        1763942400,
        int(replies.NOW),
    )
    assert (response["object"], response["status"], response["error"]) == (
        "response",
        "completed",
        None,
    )
    assert replies.usage(response["usage"]) == "10 (0 read), 9 (0 thought)"


def test_a_corrected_usage_replaces_that_of_the_answer() -> None:
    usage = Usage(input=4, output=9, cache_read=6, complete=True)
    usage.stop_reason = "end_turn"
    octets, _ = translate(message({"type": "text", "text": "Hi"}), METADATA, "anthropic", usage)
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
def test_a_payload_that_is_not_an_answer_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError):
        translate(payload, METADATA, "anthropic")
    with pytest.raises(ValueError):
        compacted(payload, METADATA, [])


# --- compacted conversations ---------------------------------------------------------


def test_compaction_keeps_user_messages_and_seals_a_summary() -> None:
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
    document = json.loads(compacted(answer, METADATA, user_messages(raws, METADATA)))
    validate("CompactResource", document)
    first, second, last = document["output"]
    assert first["content"] == [{"type": "input_text", "text": "One"}]
    assert (first["role"], first["status"]) == ("user", "completed")
    assert second["id"] == "msg_own"
    assert second["content"][1]["image_url"] == picture
    assert last["type"] == "compaction"
    sealed = msgspec.Raw(json.dumps(last["encrypted_content"]).encode())
    summary = SEAL.opened_summary(sealed)
    assert summary is not None
    assert json.loads(bytes(summary)) == 'So: "far".'
    assert SEAL.opened(sealed) is None  # it is not thinking


def test_a_summary_without_text_is_refused() -> None:
    with pytest.raises(ValueError):
        compacted(message({"type": "text", "text": ""}), METADATA, [])


# --- errors -------------------------------------------------------------------------

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


@pytest.mark.parametrize(("status", "payload", "expected", "code", "in_stream"), ERRORS)
def test_an_error_has_the_code_that_clients_stop_or_try_again_by(
    status: int, payload: str, expected: int, code: str | None, in_stream: str
) -> None:
    found, judgement = caller_error(status, payload.encode())
    error = json.loads(judgement.body(ErrorShape.RESPONSES))["error"]
    assert (found, error["code"]) == (expected, code)
    assert error.keys() == {"message", "type", "param", "code"}
    events = replies.check(ResponsesStream(METADATA).fail(judgement))
    failed = events[-1]["response"]
    assert failed["status"] == "failed"
    assert failed["error"] == {"code": in_stream, "message": error["message"]}


def test_a_final_overload_has_the_code_at_which_codex_stops() -> None:
    headers = ((b"retry-after", b"3600"), (b"x-should-retry", b"false"))
    error = RelayError(OVERLOADED, "No upstream can serve this model before noon.", headers=headers)
    events = replies.check(ResponsesStream(METADATA).fail(error))
    assert events[-1]["response"]["error"]["code"] == "server_is_overloaded"


def test_a_refusal_keeps_the_explanation_of_a_complete_answer() -> None:
    details = {"type": "refusal", "explanation": "Not this."}
    octets, _ = translate(message(stop="refusal", stop_details=details), METADATA, "anthropic")
    [item] = replies.response(octets)["output"]
    assert item["content"] == [{"type": "refusal", "refusal": "Not this."}]


@pytest.mark.parametrize(
    "item",
    [b'{"role":"user","content":"\xff"}', b'{"role":"user","content":5}', b"7"],
    ids=["not UTF-8", "content of a wrong type", "not an object"],
)
def test_compaction_leaves_out_unreadable_messages(item: bytes) -> None:
    answer = message({"type": "text", "text": "So far."})
    document = json.loads(compacted(answer, METADATA, user_messages([msgspec.Raw(item)], METADATA)))
    assert [item["type"] for item in document["output"]] == ["compaction"]

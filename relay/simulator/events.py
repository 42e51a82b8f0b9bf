"""An answer as the API sends it: one JSON document, or the events of a stream.

Pure. Each event is a complete `event: …\\ndata: …\\n\\n` text, in the order of the real API.
Deltas are cached, since paced streams repeat the same words.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import orjson

from relay.simulator import words
from relay.simulator.answer import Answer
from relay.simulator.cache import Prompt

JSON = dict[str, Any]

PING: Final = b'event: ping\ndata: {"type": "ping"}\n\n'
STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
ERROR: Final = (
    b"event: error\n"
    b'data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},'
    b'"request_id":"%b"}\n\n'
)
_ARGUMENT_CHARACTERS: Final = 16  # of one input_json_delta


def message(model: str, number: str, answer: Answer, prompt: Prompt, request: JSON) -> bytes:
    """The answer as one JSON document."""
    document = _envelope(model, number, answer.blocks, prompt, answer.output_tokens)
    document["stop_reason"] = answer.stop_reason
    document["stop_sequence"] = answer.stop_sequence
    document["stop_details"] = answer.stop_details
    document["usage"] |= _details(answer)
    if "context_management" in request:
        document["context_management"] = {"applied_edits": []}
    return orjson.dumps(document)


def stream(model: str, number: str, answer: Answer, prompt: Prompt, request: JSON) -> list[bytes]:
    """The answer as events."""
    start = _envelope(model, number, [], prompt, min(1, answer.output_tokens))
    found = [event("message_start", {"type": "message_start", "message": start})]
    for index, block in enumerate(answer.blocks):
        found += _block(index, block, answer.pieces[index])
    if not answer.blocks:
        found.append(PING)
    usage: JSON = {
        "input_tokens": prompt.uncached,
        "cache_creation_input_tokens": prompt.written_5m + prompt.written_1h,
        "cache_read_input_tokens": prompt.read,
        "output_tokens": answer.output_tokens,
    }
    usage |= _details(answer)
    ending: JSON = {
        "type": "message_delta",
        "delta": {
            "stop_reason": answer.stop_reason,
            "stop_sequence": answer.stop_sequence,
            "stop_details": answer.stop_details,
        },
        "usage": usage,
    }
    if "context_management" in request:
        ending["context_management"] = {"applied_edits": []}
    found.append(event("message_delta", ending))
    found.append(STOP)
    return found


def _details(answer: Answer) -> JSON:
    """The members of `usage` for an answer with thinking or searches."""
    found: JSON = {}
    if answer.thinking_tokens:
        found["output_tokens_details"] = {"thinking_tokens": answer.thinking_tokens}
    if answer.searches:
        found["server_tool_use"] = {
            "web_search_requests": answer.searches,
            "web_fetch_requests": 0,
        }
    return found


def event(name: str, data: JSON) -> bytes:
    """One server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def _envelope(model: str, number: str, blocks: list[JSON], prompt: Prompt, output: int) -> JSON:
    return {
        "model": model,
        "id": "msg_01" + number,
        "type": "message",
        "role": "assistant",
        "content": blocks,
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "usage": {
            "input_tokens": prompt.uncached,
            "cache_creation_input_tokens": prompt.written_5m + prompt.written_1h,
            "cache_read_input_tokens": prompt.read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": prompt.written_5m,
                "ephemeral_1h_input_tokens": prompt.written_1h,
            },
            "output_tokens": output,
            "service_tier": "standard",
            "inference_geo": "global",
        },
    }


def _block(index: int, block: JSON, pieces: Sequence[str]) -> list[bytes]:
    kind = block["type"]
    empty: JSON
    if kind == "text":
        empty = {"type": "text", "text": ""}
        # A tuple is a text that will come again (`tokens=200`): its events are cached.
        if type(pieces) is tuple and pieces:
            deltas = _cached_deltas(index, pieces)
        else:
            deltas = [_text_delta(index, piece) for piece in pieces or words.pieces(block["text"])]
        if "citations" in block:
            # The real API sends the citations of a text ahead of it.
            empty["citations"] = []
            deltas = [
                *(
                    _delta(index, {"type": "citations_delta", "citation": citation})
                    for citation in block["citations"]
                ),
                *deltas,
            ]
    elif kind == "thinking":
        empty = {"type": "thinking", "thinking": "", "signature": ""}
        deltas = [_delta(index, {"type": "thinking_delta", "thinking": piece}) for piece in pieces]
        deltas.append(_delta(index, {"type": "signature_delta", "signature": block["signature"]}))
    elif kind == "web_search_tool_result":
        empty, deltas = block, []  # without deltas
    else:
        empty = {**block, "input": {}}
        text = orjson.dumps(block["input"]).decode()
        step = _ARGUMENT_CHARACTERS
        parts = [text[at : at + step] for at in range(0, len(text), step)]
        deltas = [
            _delta(index, {"type": "input_json_delta", "partial_json": part})
            for part in ("", *parts)
        ]
    start = {"type": "content_block_start", "index": index, "content_block": empty}
    found = [event("content_block_start", start)]
    if index == 0:
        found.append(PING)
    found += deltas
    found.append(
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n' % index
    )
    return found


@lru_cache(maxsize=16)
def _cached_deltas(index: int, pieces: tuple[str, ...]) -> list[bytes]:
    return [_text_delta(index, piece) for piece in pieces]


def _text_delta(index: int, text: str) -> bytes:
    return (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
        b'"delta":{"type":"text_delta","text":%b}}\n\n' % (index, orjson.dumps(text))
    )


def _delta(index: int, delta: JSON) -> bytes:
    return event(
        "content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}
    )

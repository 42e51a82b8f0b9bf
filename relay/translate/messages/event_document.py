"""Converts between the two forms of an answer of the Messages API: a document, and its events.

An upstream may stream although a document was asked for, and the reverse. Such an answer is good
and has been paid for, so its caller gets it in the form that they asked for. Must not know
upstreams or other dialects.
"""

import json
from typing import Any, Final

from relay.translate.messages.answer_form import is_untyped_error
from relay.translate.raw_json import unreadable
from relay.wire.sse import EventReader

MESSAGE_STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_NO_DATA: Final = (b"", b"[DONE]")
_MAX_BLOCKS: Final = 10_000  # of one answer
_DELTAS: Final = {  # type of a delta → its member, which is appended to that of the block
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}
# Types of block → members that come in deltas, each with the delta's type.
_STREAMED: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "text": (("text", "text_delta"),),
    "thinking": (("thinking", "thinking_delta"), ("signature", "signature_delta")),
}


class StreamDocument:
    """Takes the octets of a stream, and makes a document of its events.

    `error` is the data of an error event, which ends the stream. `stopped`: a stop event has come.
    """

    __slots__ = ("_blocks", "_events", "_message", "_pieces", "error", "stopped")

    def __init__(self) -> None:
        self._events = EventReader()
        self._message: dict[str, Any] = {"type": "message", "role": "assistant"}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}
        self.stopped = False
        self.error: bytes | None = None

    @property
    def complete(self) -> bool:
        """Whether the answer has come to its end: a stop event, or at least a reason to stop."""
        return self.error is None and (
            self.stopped or isinstance(self._message.get("stop_reason"), str)
        )

    def feed(self, octets: bytes) -> None:
        """Take the next octets.

        Raises:
            ValueError: an event cannot be read.
        """
        for name, data in self._events.feed(octets):
            if not (self.stopped or self.error is not None):
                self._take(name, data)

    def octets(self) -> bytes:
        """The document, once the stream is complete.

        Raises:
            ValueError: its blocks do not fit together.
        """
        for (index, member), pieces in self._pieces.items():
            block = self._blocks.setdefault(index, {"type": "text", "text": ""})
            text = "".join(pieces)
            if member == "partial_json":
                block["input"] = json.loads(text) if text.strip() else block.get("input", {})
            else:
                block[member] = _text(block.get(member)) + text
        blocks = [self._blocks[index] for index in sorted(self._blocks)]
        return json.dumps({**self._message, "content": blocks}, separators=(",", ":")).encode()

    def _take(self, name: bytes, data: bytes) -> None:
        if data.strip() in _NO_DATA:
            self.stopped = self.stopped or name == b"message_stop"
            return
        if name == b"error" or is_untyped_error(data):
            self.error = data
            return
        event = json.loads(data)
        if not isinstance(event, dict):
            raise unreadable("an event that is no object")
        kind = event.get("type")
        match kind if isinstance(kind, str) else name.decode("latin-1"):
            case "error":
                self.error = data
            case "message_start":
                self._message.update(_object(event.get("message")))
            case "content_block_start":
                block = _object(event.get("content_block"))
                self._blocks[self._index(event)] = block
            case "content_block_delta":
                self._take_delta(self._index(event), _object(event.get("delta")))
            case "message_delta":
                self._message.update(_object(event.get("delta")))
                usage = _object(event.get("usage"))
                counts = self._message["usage"] = _object(self._message.get("usage"))
                counts.update({key: value for key, value in usage.items() if value is not None})
            case "message_stop":
                self.stopped = True

    def _take_delta(self, index: int, delta: dict[str, Any]) -> None:
        kind = delta.get("type")
        if kind is None and "text" in delta:
            kind = "text_delta"  # Kimi's plan, at times (llm_wiki #303)
        if kind == "citations_delta" and index in self._blocks:
            block = self._blocks[index]
            if not isinstance(block.get("citations"), list):
                block["citations"] = []
            block["citations"].append(delta.get("citation"))
        elif (member := _DELTAS.get(str(kind))) is not None:
            self._pieces.setdefault((index, member), []).append(_text(delta.get(member)))

    def _index(self, event: dict[str, Any]) -> int:
        index = event.get("index") or 0
        if not isinstance(index, int) or not 0 <= index < _MAX_BLOCKS:
            raise unreadable("a block with an impossible index")
        return index


def document_events(document: bytes) -> bytes:
    """The complete event stream of a message.

    Raises:
        ValueError: `document` is none.
    """
    message = json.loads(document)
    if not isinstance(message, dict):
        raise unreadable("an answer that is no object")
    content = message.get("content") or []
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise unreadable("an answer without content")
    usage = _object(message.get("usage"))
    delta = {
        "stop_reason": message.get("stop_reason") or "end_turn",
        "stop_sequence": message.get("stop_sequence"),
    }
    if message.get("stop_details") is not None:
        delta["stop_details"] = message["stop_details"]
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    events = [_event("message_start", message=start)]
    for index, block in enumerate(content):
        events += _block_events(index, _object(block))
    events.append(_event("message_delta", delta=delta, usage=usage))
    events.append(MESSAGE_STOP)
    return b"".join(events)


def _block_events(index: int, block: dict[str, Any]) -> list[bytes]:
    kind = str(block.get("type"))
    deltas: list[dict[str, Any]] = []
    start = dict(block)
    for member, delta_type in _STREAMED.get(kind, ()):
        text = _text(block.get(member))
        start[member] = ""
        if text:
            deltas.append({"type": delta_type, member: text})
    if kind == "text" and isinstance(citations := block.get("citations"), list):
        start["citations"] = []
        deltas += [{"type": "citations_delta", "citation": citation} for citation in citations]
    if kind.endswith("tool_use"):
        given = block.get("input")
        text = given if isinstance(given, str) else json.dumps(given or {}, separators=(",", ":"))
        start["input"] = {}
        deltas.append({"type": "input_json_delta", "partial_json": text})
    return [
        _event("content_block_start", index=index, content_block=start),
        *(_event("content_block_delta", index=index, delta=delta) for delta in deltas),
        _event("content_block_stop", index=index),
    ]


def _event(name: str, **members: Any) -> bytes:
    data = json.dumps({"type": name, **members}, separators=(",", ":"))
    return f"event: {name}\ndata: {data}\n\n".encode()


def _object(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise unreadable("a value that should be an object")
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise unreadable("a value that should be a text")
    return value

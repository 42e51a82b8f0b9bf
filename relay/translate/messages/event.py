"""One event of a Messages stream, read as far as a translation needs it.

This decides what can be passed over and what cannot be read: an event of a kind that nobody
knows yet may have any shape, but a hole in an answer must not go unnoticed. It must not know
what becomes of the events.
"""

import json
from typing import Any, Final

import msgspec

from relay.translate.messages.content import Block
from relay.translate.raw_json import NOTHING

_SAYS_NOTHING: Final = (b"", b"[DONE]")
_KNOWN: Final = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    }
)


class Delta(msgspec.Struct, frozen=True, gc=False):
    """What any kind of delta may bring. Texts are left as the octets that they are."""

    type: str | None = None
    text: msgspec.Raw = NOTHING
    thinking: msgspec.Raw = NOTHING
    signature: msgspec.Raw = NOTHING
    partial_json: msgspec.Raw = NOTHING
    citation: msgspec.Raw = NOTHING
    stop_details: msgspec.Raw = NOTHING


class StreamEvent(msgspec.Struct, frozen=True, gc=False):
    """What any kind of event may bring that matters here."""

    type: str | None = None
    index: int = 0
    delta: Delta | None = None
    content_block: Block | None = None
    error: msgspec.Raw = NOTHING


class _Unknown(msgspec.Struct, frozen=True):
    type: Any = None


_decode = msgspec.json.Decoder(StreamEvent).decode
_decode_unknown = msgspec.json.Decoder(_Unknown).decode


def read(name: bytes, data: bytes) -> StreamEvent:
    """An event; `type` is what its data says, else what its `event:` line did, which is `name`.

    Raises:
        ValueError: it cannot be read, and is not of a kind that may be passed over.
    """
    if not data.isascii():
        data.decode()  # what is spliced in is not looked at again
    try:
        event = _decode(data)
    except (msgspec.DecodeError, RecursionError) as failure:
        return _second_look(name, data, failure)
    if event.type is not None:
        return event
    failed = not name and bytes(event.error) not in (b"", b"null")
    return msgspec.structs.replace(event, type="error" if failed else name.decode("latin-1"))


def _second_look(
    name: bytes, data: bytes, failure: msgspec.DecodeError | RecursionError
) -> StreamEvent:
    """What could not be decoded; without data if it may be passed over."""
    if data.strip() in _SAYS_NOTHING:
        return StreamEvent(name.decode("latin-1"))
    if isinstance(failure, msgspec.ValidationError):
        try:
            told = _decode_unknown(data).type
        except msgspec.ValidationError:
            raise ValueError("an event that is no object") from None
        kind = told if isinstance(told, str) else name.decode("latin-1")
        if kind and kind not in _KNOWN:
            return StreamEvent(kind)
    elif b"\\ud" in data.lower():
        return _with_halves(data)
    raise ValueError(f"an event that cannot be read: {failure}")


def _with_halves(data: bytes) -> StreamEvent:
    """A delta with half a character in it, for which msgspec has no string.

    Those who count in UTF-16 may cut between the two (`\\ud83d`, `\\ude00`). The halves go on as
    they came, for the caller to join.
    """
    try:
        document = json.loads(data)
        index, delta = document.get("index", 0), document["delta"]
        if document["type"] != "content_block_delta" or not isinstance(index, int):
            raise ValueError("half a character where there is no piece of text")
        pieces = {
            piece: msgspec.Raw(json.dumps(delta[piece]).encode())
            for piece in ("text", "thinking", "partial_json")
            if piece in delta
        }
        return StreamEvent(document["type"], index, Delta(delta["type"], **pieces))
    except (AttributeError, KeyError, TypeError, RecursionError):
        raise ValueError("an event that cannot be read") from None

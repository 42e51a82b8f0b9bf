"""Reads a complete answer of the Messages API, as far as a translation needs it.

Must not know what a dialect makes of it.
"""

import json
from typing import Any, Final

import msgspec

from relay.translate.messages.content_fields import Block
from relay.translate.messages.message_fields import MessageFields
from relay.translate.raw_json import NOTHING, unreadable

_RAW_MEMBERS: Final = tuple(name for name in Block.__struct_fields__ if name != "type")
_decode_message: Final = msgspec.json.Decoder(MessageFields).decode
_decode_blocks: Final = msgspec.json.Decoder(list[Block]).decode


def read(payload: bytes) -> tuple[list[Block], msgspec.Raw]:
    """The blocks of an answer, and its `stop_details`.

    Raises:
        ValueError: `payload` is not an answer, or cannot be read.
    """
    try:
        payload.decode()  # must be UTF-8: texts are copied into the output unread
        message = _decode_message(payload)
        content = bytes(message.content)
        if content in (b"", b"null") and message.type == "message":
            return [], message.stop_details
        if content.startswith(b"["):
            return _decode_blocks(content), message.stop_details
    except (msgspec.MsgspecError, RecursionError) as failure:
        if isinstance(failure, msgspec.DecodeError) and b"\\ud" in payload.lower():
            return _read_surrogates(payload)
        raise ValueError(str(failure)) from None
    raise unreadable("an answer without content")


def _read_surrogates(payload: bytes) -> tuple[list[Block], msgspec.Raw]:
    """The same of an answer with a lone surrogate, which msgspec refuses to decode.

    A model may write half a character (`\\ud83d`). It is passed on as it came, as in a stream.
    """
    try:
        document = json.loads(payload)
        if not isinstance(document["content"], list):
            raise unreadable("an answer without content")
        blocks = [_block(block) for block in document["content"]]
        details = document.get("stop_details")
    except (AttributeError, KeyError, TypeError, RecursionError) as failure:
        raise ValueError(str(failure)) from None
    return blocks, NOTHING if details is None else _raw(details)


def _block(members: dict[str, Any]) -> Block:
    kind = members.get("type", "")
    if not isinstance(kind, str):
        raise unreadable("a block without a type")
    given = {name: _raw(members[name]) for name in _RAW_MEMBERS if name in members}
    return Block(kind, **given)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value, separators=(",", ":")).encode())

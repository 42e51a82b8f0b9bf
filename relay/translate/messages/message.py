"""Reads a complete answer of the Messages API, as far as a translation needs it.

Must not know what a dialect makes of it.
"""

from typing import Final

import msgspec

from relay.translate.messages.content import Block
from relay.translate.raw_json import NOTHING


class _Message(msgspec.Struct, frozen=True):
    type: str = ""
    content: msgspec.Raw = NOTHING
    stop_details: msgspec.Raw = NOTHING


_decode_message: Final = msgspec.json.Decoder(_Message).decode
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
        raise ValueError(str(failure)) from None
    raise ValueError("an answer without content")

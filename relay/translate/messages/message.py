"""A whole answer of the Messages API, read as far as a translation needs it."""

import msgspec

from relay.translate.messages.content import Block
from relay.translate.raw_json import NOTHING


class _Message(msgspec.Struct, frozen=True):
    type: str = ""
    content: msgspec.Raw = NOTHING
    stop_details: msgspec.Raw = NOTHING


_message = msgspec.json.Decoder(_Message).decode
_blocks = msgspec.json.Decoder(list[Block]).decode


def read(payload: bytes) -> tuple[list[Block], msgspec.Raw]:
    """Its blocks, and its `stop_details`.

    Raises:
        ValueError: `payload` is no answer, or one that cannot be read.
    """
    try:
        payload.decode()  # what is spliced in is not looked at again
        message = _message(payload)
        content = bytes(message.content)
        if content in (b"", b"null") and message.type == "message":
            return [], message.stop_details
        if content.startswith(b"["):
            return _blocks(content), message.stop_details
    except (msgspec.MsgspecError, RecursionError) as failure:
        raise ValueError(str(failure)) from None
    raise ValueError("an answer without content")

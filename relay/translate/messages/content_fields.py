"""The members of a content block, as msgspec reads them."""

import msgspec

from relay.translate.raw_json import NOTHING


class Block(msgspec.Struct, frozen=True, gc=False):
    """A content block of an answer, or the start of one in a stream."""

    type: str = ""
    text: msgspec.Raw = NOTHING
    thinking: msgspec.Raw = NOTHING
    signature: msgspec.Raw = NOTHING
    data: msgspec.Raw = NOTHING
    id: msgspec.Raw = NOTHING
    name: msgspec.Raw = NOTHING
    input: msgspec.Raw = NOTHING
    citations: msgspec.Raw = NOTHING


class Citation(msgspec.Struct, frozen=True, gc=False):
    """A source of a text."""

    type: str = ""
    url: msgspec.Raw = NOTHING
    title: msgspec.Raw = NOTHING


class StopDetails(msgspec.Struct, frozen=True, gc=False):
    """Why an answer ended."""

    explanation: msgspec.Raw = NOTHING

"""The members of an event that a translation reads, as msgspec reads them."""

from typing import Any

import msgspec

from relay.translate.messages.content_fields import Block
from relay.translate.raw_json import NOTHING


class Delta(msgspec.Struct, frozen=True, gc=False):
    """The members of all types of delta. Texts stay JSON strings as octets."""

    type: str | None = None
    text: msgspec.Raw = NOTHING
    thinking: msgspec.Raw = NOTHING
    signature: msgspec.Raw = NOTHING
    partial_json: msgspec.Raw = NOTHING
    citation: msgspec.Raw = NOTHING
    stop_details: msgspec.Raw = NOTHING


class StreamEvent(msgspec.Struct, frozen=True, gc=False):
    """The members of all types of event that a translation reads."""

    type: str | None = None
    index: int = 0
    delta: Delta | None = None
    content_block: Block | None = None
    error: msgspec.Raw = NOTHING


class EventType(msgspec.Struct, frozen=True):
    """An event's type, which may be no string."""

    type: Any = None

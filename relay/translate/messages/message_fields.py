"""The members of a complete answer, as msgspec reads them."""

import msgspec

from relay.translate.raw_json import NOTHING


class MessageFields(msgspec.Struct, frozen=True):
    """The members that a translation reads."""

    type: str = ""
    content: msgspec.Raw = NOTHING
    stop_details: msgspec.Raw = NOTHING

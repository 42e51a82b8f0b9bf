"""The members of a request that identify its conversation, as msgspec reads them."""

from typing import Final

import msgspec

ABSENT: Final = msgspec.Raw(b"")


class BodyFields(msgspec.Struct, frozen=True):
    """The members that may identify a conversation, as octets: each may have any type."""

    metadata: msgspec.Raw = ABSENT
    prompt_cache_key: msgspec.Raw = ABSENT
    system: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    messages: msgspec.Raw = ABSENT
    instructions: msgspec.Raw = ABSENT
    input: msgspec.Raw = ABSENT


class Metadata(msgspec.Struct, frozen=True):
    """The `metadata` of a request."""

    user_id: str = ""


class UserFields(msgspec.Struct, frozen=True):
    """The user's id where it is a document."""

    session_id: str = ""


class MessageFields(msgspec.Struct, frozen=True):
    """A message's members, as octets: each may have any type."""

    role: msgspec.Raw = ABSENT
    content: msgspec.Raw = ABSENT

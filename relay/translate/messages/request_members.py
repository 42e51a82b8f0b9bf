"""The members of a request that `peek` reads, as msgspec reads them."""

import msgspec

from relay.translate.messages.second_reading import (
    NOTHING,
    LongMembers,
)


class PlainMembers(LongMembers, frozen=True, gc=False):
    """The members of a request as nearly every caller writes them."""

    model: str | None = None
    stream: bool | None = None
    max_tokens: int | float | None = None
    thread: msgspec.Raw = NOTHING


class RawMembers(LongMembers, frozen=True, gc=False):
    """The members of any JSON object: a value may be of any type and size."""

    model: msgspec.Raw = NOTHING
    stream: msgspec.Raw = NOTHING
    max_tokens: msgspec.Raw = NOTHING
    thread: msgspec.Raw = NOTHING


class Key(str):
    """A key of an object whose values are of no interest."""

    __slots__ = ()

"""The answer to count_tokens, as msgspec reads it."""

import msgspec


class CountedFields(msgspec.Struct):
    """The one member of the answer."""

    input_tokens: int

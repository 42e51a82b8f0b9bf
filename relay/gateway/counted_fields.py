"""The answer to count_tokens, as msgspec reads it."""

import msgspec


class CountedFields(msgspec.Struct):
    """The count."""

    input_tokens: int

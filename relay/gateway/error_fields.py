"""An upstream's error document, as msgspec reads it."""

import msgspec


class ErrorFields(msgspec.Struct):
    """The error itself."""

    type: str
    message: str


class ErrorDocument(msgspec.Struct):
    """The document around it."""

    error: ErrorFields

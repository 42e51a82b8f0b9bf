"""Recognises the form of an upstream's answer by its octets.

Decides whether an answer is a document or an event stream, and whether a document is an answer at
all: vendors and proxies send errors, envelopes and web pages with status 200. Labels are not
looked at, because they are often wrong. Must not know upstreams.
"""

import re
from enum import Enum
from typing import Final

import msgspec

from relay.translate.messages.answer_fields import DocumentType, Outline
from relay.translate.messages.error_document import NO_ERROR, read

_WITHOUT_MEANING: Final = b"\xef\xbb\xbf \t\r\n"  # a byte order mark and white space
_FIELD: Final = re.compile(rb"(?:event|data|id|retry)?:")
_LONGEST_FIELD: Final = 6  # octets of `event:` and `retry:`
_NO_ERRORS: Final = frozenset({b"", b"null", b"false", b'""', b"{}", b"[]"})


class Form(Enum):
    """What an answer's first octets are the beginning of."""

    DOCUMENT = "a document"
    STREAM = "an event stream"
    OTHER = "neither"


_decode: Final = msgspec.json.Decoder(Outline).decode
_decode_type: Final = msgspec.json.Decoder(DocumentType).decode


def form_of(octets: bytes, *, complete: bool = True) -> Form | None:
    """The form of an answer that begins with `octets`; None if they are too few to know."""
    start = octets[:64].lstrip(_WITHOUT_MEANING)
    if start.startswith(b"{"):
        return Form.DOCUMENT
    if _FIELD.match(start) is not None:
        return Form.STREAM
    if complete or len(start) >= _LONGEST_FIELD:
        return Form.OTHER
    return None


def is_answer(document: bytes, *, counting: bool) -> bool:
    """Whether a complete document is a message, or with `counting` a count of tokens."""
    try:
        outline = _decode(document)
    except msgspec.ValidationError:  # a list, a text, null
        return False
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b"\\ud" in document.lower()  # a lone surrogate: its reader decides
    if bytes(outline.error) not in _NO_ERRORS or outline.type == "error":
        return False
    if counting:
        return outline.input_tokens is not None
    content = bytes(outline.content)
    if content[:1] == b"[" and content != b"[]":
        return True
    return outline.type == "message" and not states_error(document)


def states_error(document: bytes) -> bool:
    """Whether a document, or an event's data without a known type, is an error."""
    return read(document, failures_only=True) != NO_ERROR


def is_untyped_error(data: bytes) -> bool:
    """Whether an event's data is an error object that does not say so in its type."""
    try:
        kind = _decode_type(data).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return (not isinstance(kind, str) or kind == "error") and states_error(data)

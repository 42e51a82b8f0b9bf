"""The members of a document that show whether it is an answer, as msgspec reads them."""

from typing import Any

import msgspec

from relay.translate.raw_json import NOTHING


class Outline(msgspec.Struct, frozen=True):
    """A document's members that show its kind."""

    type: Any = None
    content: msgspec.Raw = NOTHING
    error: msgspec.Raw = NOTHING
    input_tokens: Any = None


class DocumentType(msgspec.Struct, frozen=True):
    """A document's type, which may be no string."""

    type: Any = None

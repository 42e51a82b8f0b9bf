"""The free text within a call's arguments, as it comes: `{"input": "…"}` in pieces.

A tool that takes free text is a function with one member upstream. What stands in that member is
a JSON string, and so is what goes to the caller: it is passed on as it is written, cut only where
no escape is torn.
"""

import re
from typing import Final

import msgspec

_BEGINNING: Final = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_MAY_BEGIN: Final = re.compile(r'\s*(?:\{\s*(?:"i?n?p?u?t?(?:"\s*(?::\s*)?)?)?)?\Z')
# As far as a text can be passed on: to its end, or to an escape that is not whole. Of a character
# in two halves (RFC 8259 §7) both are wanted.
_HALF: Final = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_WHOLE: Final = re.compile(
    rf'(?:[^"\\]|{_HALF}\\u[0-9a-fA-F]{{4}}|(?!\\u[dD][89abAB])\\(?:u[0-9a-fA-F]{{4}}|[^u]))*+'
)
_string: Final = msgspec.json.Decoder(str).decode


class FreeText:
    """Pieces of arguments in, pieces of the text out; JSON strings without quotation marks."""

    __slots__ = ("_begun", "_held", "_over", "_raw")

    def __init__(self) -> None:
        self._raw = b""  # what cannot be decoded yet: half a character
        self._held = ""  # what cannot be passed on yet
        self._begun = False
        self._over = False

    def feed(self, piece: bytes) -> bytes:
        """Take a piece, the inside of a JSON string."""
        self._raw += piece
        try:
            words = _string(b'"%b"' % self._raw)
        except msgspec.DecodeError:
            return b""
        self._raw = b""
        if self._over:
            return b""
        self._held += words
        if not self._begun:
            match = _BEGINNING.match(self._held)
            if match is None:
                self._over = _MAY_BEGIN.match(self._held) is None
                return b""
            self._begun = True
            self._held = self._held[match.end() :]
        whole = _WHOLE.match(self._held)
        assert whole is not None
        self._held = self._held[whole.end() :]
        self._over = self._held.startswith('"')
        return whole[0].encode()

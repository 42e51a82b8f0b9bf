"""The free text within a call's arguments, `{"input": "…"}`, while the arguments stream in.

Decides which octets of the text can be passed on. A custom tool takes free text; upstream it is
a function with one string member, `input`. The text goes to the caller as it is written, cut
only where no escape is split. Must not know which tool is called.
"""

import re
from typing import Final

import msgspec

from relay.translate.halves import mended

_PREFIX: Final = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_PREFIX_SO_FAR: Final = re.compile(r'\s*(?:\{\s*(?:"i?n?p?u?t?(?:"\s*(?::\s*)?)?)?)?\Z')
# The part of a text that can be passed on: up to its end, up to an incomplete escape, or up to the
# first character that no JSON string has. The two halves of a surrogate pair (RFC 8259 §7) stay
# together; one alone is mended at the end of the call.
_HIGH_SURROGATE: Final = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_COMPLETE: Final = re.compile(
    rf'(?:[^"\\\x00-\x1f]|{_HIGH_SURROGATE}\\u[0-9a-fA-F]{{4}}'
    r'|(?!\\u[dD][89a-fA-F])\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt]))*+'
)
_INCOMPLETE: Final = re.compile(
    rf"\\(?:u[0-9a-fA-F]{{0,3}})?|{_HIGH_SURROGATE}(?:\\(?:u[0-9a-fA-F]{{0,3}})?)?"
)
_ESCAPE_OCTETS: Final = 6
_HALF: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")
_MAX_BEFORE_TEXT: Final = 1024  # characters before the text, white space for the most part


class _Arguments(msgspec.Struct, frozen=True):
    input: msgspec.Raw


_decode_string: Final = msgspec.json.Decoder(str).decode
_decode_arguments: Final = msgspec.json.Decoder(_Arguments).decode


class FreeText:
    """Pieces of arguments in, pieces of the text out: insides of JSON strings."""

    __slots__ = ("_ended", "_pending_text", "_started", "_undecoded")

    def __init__(self) -> None:
        self._undecoded: list[bytes] = []  # the last one ends with half a surrogate pair
        self._pending_text = ""  # decoded, not passed on yet
        self._started = False
        self._ended = False

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece of the arguments, the inside of a JSON string."""
        if self._ended:
            return b""
        self._undecoded.append(piece)
        if _ends_with_half(piece):
            return b""
        octets = b"".join((b'"', *self._undecoded, b'"'))
        self._undecoded.clear()
        try:
            text = _decode_string(octets)
        except msgspec.DecodeError:  # no later piece makes it a text
            self._ended = True
            return b""
        self._pending_text += text
        if not self._started:
            match = _PREFIX.match(self._pending_text)
            if match is None:
                self._ended = (
                    len(self._pending_text) > _MAX_BEFORE_TEXT
                    or _PREFIX_SO_FAR.match(self._pending_text) is None
                )
                return b""
            self._started = True
            self._pending_text = self._pending_text[match.end() :]
        complete = _COMPLETE.match(self._pending_text)
        assert complete is not None
        pending = self._pending_text = self._pending_text[complete.end() :]
        self._ended = pending != "" and _INCOMPLETE.fullmatch(pending) is None
        return complete[0].encode()


class StreamedText:
    """The free text of one call while its arguments come: what of it was shown, and the rest.

    Pieces of arguments are JSON strings; the texts are insides of JSON strings.
    """

    __slots__ = ("_free_text", "_pieces", "_shown", "octets")

    def __init__(self) -> None:
        self._free_text = FreeText()
        self._pieces: list[bytes] = []
        self._shown: list[bytes] = []
        self.octets = 0  # of the pieces, which are kept until the end

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece; the text that can be passed on with it."""
        self._pieces.append(piece[1:-1])
        self.octets += len(piece)
        text = self._free_text.feed(piece[1:-1])
        if text:
            self._shown.append(text)
        return text

    def finish(self) -> bytes:
        """No more pieces come: the rest of the text.

        Empty for a call that was cut off, or has the text twice: it stays as it was shown.
        """
        complete = free_text(b'"%b"' % b"".join(self._pieces))
        shown = self.text
        rest = complete[1 + len(shown) : -1] if complete[1:].startswith(shown) else b""
        self._shown.append(rest)
        return rest

    @property
    def text(self) -> bytes:
        """The text that was passed on so far."""
        return b"".join(self._shown)


def _ends_with_half(piece: bytes) -> bool:
    """Whether a piece ends with the first half of a surrogate pair."""
    if _HALF.fullmatch(piece[-_ESCAPE_OCTETS:]) is None:
        return False
    before = piece[: -_ESCAPE_OCTETS + 1]  # with the backslash, which another one may escape
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def free_text(arguments: bytes) -> bytes:
    """The free text of complete arguments, both JSON strings; all of them if there is no text."""
    try:
        octets = _decode_string(mended(arguments)).encode()
        text = _decode_arguments(mended(octets)).input
    except (msgspec.DecodeError, RecursionError):
        return arguments
    return bytes(text) if bytes(text)[:1] == b'"' else arguments

"""Makes the 400 for an invalid request, with the name of the field at fault.

Every reader decodes the parts of a request through here, so any input ends in a `RelayError` at
worst. Decides how a decoding error is worded. Must not know any dialect.
"""

import codecs
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import msgspec

from relay.errors import INVALID_REQUEST, RelayError
from relay.translate.pacing import paced

T = TypeVar("T")

# The exceptions of decoding foreign octets; text that is not UTF-8 raises a ValueError.
UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)

_PIECE_OCTETS: Final = 1024 * 1024
_TRUNCATED: Final = "Input data was truncated"
_VALIDATION_TEXT: Final = re.compile(r"(?P<text>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")


def invalid_field(param: str, text: str) -> RelayError:
    """A 400 about the field at `param`; `text` is a sentence without its full stop."""
    return RelayError(INVALID_REQUEST, f"{param}: {text}.", param=param)


def unknown_type_error(param: str, accepted: Iterable[str], hint: str = "") -> RelayError:
    """A 400 about a type at `param` that is not one of those accepted; `hint` leads on."""
    *names, last = accepted
    one_of = f"one of {', '.join(names)} and {last}" if names else last
    return invalid_field(param, f"it must be {one_of}{hint and '; ' + hint}")


def check_utf8(body: bytes) -> None:
    """Refuse a body that is not UTF-8. A text that is only copied is not decoded elsewhere.

    Raises:
        RelayError: 400, with the place of the first such octet.
    """
    if body.isascii():
        return
    decode = codecs.getincrementaldecoder("utf-8")().decode
    for start in paced(range(0, len(body), _PIECE_OCTETS), large=True):
        piece = body[start : start + _PIECE_OCTETS]
        try:
            decode(piece, start + len(piece) == len(body))
        except UnicodeDecodeError as error:
            left_over = len(error.object) - len(piece)  # octets of the piece before
            at = start - left_over + error.start
            raise RelayError(
                INVALID_REQUEST,
                f"The request body is not UTF-8: octet {at} and those after it are no character. "
                "Encode the text as UTF-8.",
            ) from None


def read(decode: Callable[[Any], T], octets: msgspec.Raw | bytes, param: str) -> T:
    """The part of the request at `param`, decoded.

    Raises:
        RelayError: 400, `decode` refuses it.
    """
    try:
        return decode(octets)
    except UNREADABLE as error:
        raise unreadable_error(error, param) from None


def json_fault(error: Exception | str) -> str:
    """Why octets are no JSON, for whoever wrote them."""
    reason = str(error)
    if reason == _TRUNCATED:  # msgspec says the same of half a surrogate pair
        return r"it ends too early, or a text has half of a surrogate pair, such as \ud83d alone"
    return reason


def unreadable_error(error: Exception, param: str) -> RelayError:
    """The 400 for an exception of `UNREADABLE` at `param` ("" is the complete body)."""
    if isinstance(error, msgspec.ValidationError):
        match = _VALIDATION_TEXT.fullmatch(str(error))
        assert match is not None
        text, param = match["text"], param + (match["path"] or "")
        if (missing := _MISSING.fullmatch(text)) is not None:
            text, param = "it must be given", f"{param}.{missing[1]}"
        if param := param.removeprefix("."):
            return invalid_field(param, text)
        return RelayError(INVALID_REQUEST, f"The request body cannot be read: {text}.")
    if isinstance(error, RecursionError):
        reason = "it is nested too deeply"
    elif isinstance(error, UnicodeDecodeError):
        reason = "it is not UTF-8"
    else:
        reason = json_fault(error)
    if param:
        return invalid_field(param, f"it cannot be read: {reason}")
    return RelayError(INVALID_REQUEST, f"The request body is not valid JSON: {reason}.")

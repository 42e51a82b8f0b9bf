"""What is wrong with a request, as its caller is told: a 400 that names the place.

Every reader of a part of a request decodes through here, so that nothing which somebody may send
ends in anything but a `RelayError`. It knows no dialect.
"""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from relay.errors import INVALID_REQUEST, RelayError

T = TypeVar("T")

# What decoding octets of unknown make may raise; text that is not UTF-8 is a ValueError.
UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)

_PLACE: Final = re.compile(r"(?P<words>.*?)(?: - at `\$(?P<place>.*)`)?", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")


def invalid_field(param: str, words: str) -> RelayError:
    """A 400 about the field at `param`; `words` are a sentence without its full stop."""
    return RelayError(INVALID_REQUEST, f"{param}: {words}.", param=param)


def read(decode: Callable[[Any], T], octets: msgspec.Raw | bytes, at: str) -> T:
    """What `decode` makes of the part of the request at `at`.

    Raises:
        RelayError: 400, it is something else.
    """
    try:
        return decode(octets)
    except UNREADABLE as error:
        raise unreadable_error(error, at) from None


def unreadable_error(error: Exception, at: str) -> RelayError:
    """What one of `UNREADABLE` means for the part of the request at `at` ("": all of it)."""
    if isinstance(error, msgspec.ValidationError):
        match = _PLACE.fullmatch(str(error))
        assert match is not None
        words, place = match["words"], at + (match["place"] or "")
        if (missing := _MISSING.fullmatch(words)) is not None:
            words, place = "it must be given", f"{place}.{missing[1]}"
        if place := place.removeprefix("."):
            return invalid_field(place, words)
        return RelayError(INVALID_REQUEST, f"The request body cannot be read: {words}.")
    if isinstance(error, RecursionError):
        reason = "it is nested too deeply"
    elif isinstance(error, UnicodeDecodeError):
        reason = "it is not UTF-8"
    else:
        reason = str(error)
    if at:
        return invalid_field(at, f"it cannot be read: {reason}")
    return RelayError(INVALID_REQUEST, f"The request body is not valid JSON: {reason}.")

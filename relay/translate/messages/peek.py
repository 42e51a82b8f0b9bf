"""The few things the relay must know of a request body, read without building its tree.

The body itself goes upstream as the very octets that came (prompt caches and thinking
signatures depend on it); `with_model` puts another model name in and changes nothing else.
"""

import re
from typing import Any, Final

import msgspec

from relay.errors import INVALID_REQUEST, RelayError

_MODEL: Final = re.compile(rb'"model"')
_VALUE: Final = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.)*")')
_MANY: Final = 4096


class RequestSummary(msgspec.Struct, frozen=True):
    """What a request asks for. Only `model` is held to a type: the upstream judges the rest."""

    model: Any = None
    stream: Any = None
    max_tokens: Any = None


_decode = msgspec.json.Decoder(RequestSummary).decode
_decode_top = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def peek(body: bytes) -> RequestSummary:
    """Read `model`, `stream` and `max_tokens`.

    Raises:
        RelayError: 400, the body is no JSON object or names no model.
    """
    if not body:
        raise RelayError(INVALID_REQUEST, "The request body is empty; send a JSON object.")
    try:
        asked = _decode(body)
    except msgspec.ValidationError:
        raise RelayError(INVALID_REQUEST, "The request body must be a JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RelayError(
            INVALID_REQUEST, f"The request body is not valid JSON: {reason}."
        ) from None
    if not isinstance(asked.model, str) or not asked.model:
        what = "Field required" if asked.model is None else "Input should be a model's id in quotes"
        raise RelayError(
            INVALID_REQUEST, f"model: {what}. GET /v1/models lists the ids.", param="model"
        )
    return asked


def with_model(body: bytes, name: str) -> bytes:
    """The same octets with `name` as the value of the top-level `model`.

    Other places may say "model" too (a tool's schema, for one). So each spelling of the key is
    marked with a name of its own, and a decode of the top level alone tells which one is it.

    Raises:
        RelayError: 400, `model` is given twice or spelled with escapes, so that two readers
            of this body could take it for different models.
    """
    spots = [match.start() for match in _MODEL.finditer(body)]
    if len(spots) <= _MANY:
        marked = bytearray(body)
        for number, spot in enumerate(spots):
            marked[spot : spot + 7] = b'"~%04x"' % number
        if len(spots) == 1 and _decode(marked).model is None:  # that was it: most bodies
            return _spliced(body, spots[0], name)
        try:
            top = _decode_top(marked)
        except UnicodeDecodeError:  # in a key, which `peek` had no reason to read
            raise RelayError(
                INVALID_REQUEST, "The request body is not valid JSON: a key is not UTF-8."
            ) from None
        found = [spot for number, spot in enumerate(spots) if f"~{number:04x}" in top]
        if len(found) == 1 and "model" not in top:
            return _spliced(body, found[0], name)
    raise RelayError(
        INVALID_REQUEST, "model: give it once, at the top level, without escapes.", param="model"
    )


def _spliced(body: bytes, key: int, name: str) -> bytes:
    """The body with another value for the `"model"` at `key`, which `peek` found to be text."""
    value = _VALUE.match(body, key)
    assert value is not None
    return body[: value.start(1)] + msgspec.json.encode(name) + body[value.end(1) :]

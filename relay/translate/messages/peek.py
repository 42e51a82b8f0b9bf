"""Reads the few members of a request body that the relay needs, without building its tree.

Decides which bodies are refused before an upstream is chosen. The body goes upstream as the
octets that came, because prompt caches and thinking signatures depend on them; `with_model`
replaces the model's name and nothing else. Must not know callers or upstreams.
"""

import re
from itertools import islice
from typing import Any, Final

import msgspec

from relay.errors import INVALID_REQUEST, RelayError

_MODEL_KEY: Final = re.compile(rb'"model"')
_MODEL_MEMBER: Final = re.compile(
    rb'"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]++|\\.)*+")',
)
_MAX_MODEL_KEYS: Final = 4096


class RequestSummary(msgspec.Struct, frozen=True):
    """The members that the relay reads. Only `model` is checked: the upstream checks the rest."""

    model: Any = None
    stream: Any = None
    max_tokens: Any = None


_decode: Final = msgspec.json.Decoder(RequestSummary).decode
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def peek(body: bytes) -> RequestSummary:
    """Read `model`, `stream` and `max_tokens`.

    Raises:
        RelayError: 400, the body is not a JSON object, or has no model.
    """
    if not body:
        raise RelayError(INVALID_REQUEST, "The request body is empty; send a JSON object.")
    try:
        summary = _decode(body)
    except msgspec.ValidationError:
        raise RelayError(INVALID_REQUEST, "The request body must be a JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RelayError(
            INVALID_REQUEST, f"The request body is not valid JSON: {reason}."
        ) from None
    if not isinstance(summary.model, str) or not summary.model:
        absent = summary.model is None
        fault = "Field required" if absent else "Input should be a model's id in quotes"
        raise RelayError(
            INVALID_REQUEST, f"model: {fault}. GET /v1/models lists the ids.", param="model"
        )
    return summary


def with_model(body: bytes, name: str) -> bytes:
    """The same octets with `name` as the value of the top-level `model`.

    Other places may have a "model" too, for example a tool's schema. Each key is therefore
    replaced by a unique one of the same length, and a decode of the top level finds the right one.

    Raises:
        RelayError: 400, `model` is given twice or written with escapes: two readers of this
            body could find different models.
    """
    matches = islice(_MODEL_KEY.finditer(body), _MAX_MODEL_KEYS + 1)
    starts = [match.start() for match in matches]
    if len(starts) <= _MAX_MODEL_KEYS:
        marked = bytearray(body)
        for number, start in enumerate(starts):
            marked[start : start + 7] = b'"~%04x"' % number
        if len(starts) == 1 and _decode(marked).model is None:  # true of most bodies
            return _replace_value(body, starts[0], name)
        try:
            top = _decode_members(marked)
        except UnicodeDecodeError:  # in a key that `peek` has skipped
            raise RelayError(
                INVALID_REQUEST, "The request body is not valid JSON: a key is not UTF-8."
            ) from None
        found = [start for number, start in enumerate(starts) if f"~{number:04x}" in top]
        if len(found) == 1 and "model" not in top:
            return _replace_value(body, found[0], name)
    raise RelayError(
        INVALID_REQUEST, "model: give it once, at the top level, without escapes.", param="model"
    )


def _replace_value(body: bytes, key: int, name: str) -> bytes:
    """The body with `name` as the value of the `"model"` at `key`, which `peek` found a string."""
    value = _MODEL_MEMBER.match(body, key)
    assert value is not None
    return body[: value.start(1)] + msgspec.json.encode(name) + body[value.end(1) :]

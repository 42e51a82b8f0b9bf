"""Reads the few members of a request body that the relay needs, without building its tree.

Decides which bodies are refused before an upstream is chosen. The body goes upstream as the
octets that came, because prompt caches and thinking signatures depend on them; `with_model`
and `around_model` replace the model's name and nothing else. Must not know callers or upstreams.
"""

import re
from typing import Any, Final

import msgspec

from relay.errors import INVALID_REQUEST, RelayError
from relay.translate.halves import mended
from relay.translate.messages.request_members import Key, PlainMembers, RawMembers
from relay.translate.messages.request_summary import RequestSummary
from relay.translate.messages.second_reading import (
    NOTHING,
    not_json_error,
    refuse_second_reading,
)
from relay.translate.raw_json import count, find

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_MODEL_KEY: Final = re.compile(rb'"model"')
_MODEL_MEMBER: Final = re.compile(
    rb'"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]++|\\.)*+")',
)
# The top level of an object up to a member that is long, or whose value is no text or number.
_SPACE: Final = rb"[ \t\r\n]*+"
_MEMBER_NAME: Final = re.compile(
    _SPACE + rb"[{,]" + _SPACE + rb'"([^"\\]*+)"' + _SPACE + b":" + _SPACE
)
_SHORT_VALUE: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[-+.0-9A-Za-z]++', re.DOTALL)
_MAX_MEMBERS_PASSED: Final = 64  # the APIs have about 30
_COMPRESSED: Final = (("gzip", b"\x1f\x8b"), ("zstd", b"\x28\xb5\x2f\xfd"))
_MAX_MODEL_KEYS: Final = 4096
# A text in memory may take four times its octets, so larger bodies are decoded with care.
_MAX_PLAIN_OCTETS: Final = 1024 * 1024
_MAX_VALUE_OCTETS: Final = 64 * 1024
_MAX_THREAD_OCTETS: Final = 4 * 1024  # it has a type and an id


_decode_plain: Final = msgspec.json.Decoder(PlainMembers).decode
_decode_raw: Final = msgspec.json.Decoder(RawMembers).decode
_decode_any: Final = msgspec.json.Decoder().decode


def peek(body: bytes) -> RequestSummary:
    """Read `model`, `stream`, `max_tokens` and `thread`.

    Takes little memory beside the body, whatever is in it.

    Raises:
        RelayError: 400, the body is not a JSON object, has no model, or could be read as another
            request by another parser.
    """
    try:
        return peek_as_it_is(body)
    except UNREADABLE as error:
        return _peek_mended(body, error)


def peek_as_it_is(body: bytes) -> RequestSummary:
    """The same of a body that need not be mended, which takes up to 1 µs for each place.

    Raises:
        UNREADABLE: it is not JSON, or has to be mended.
        RelayError: see `peek`.
    """
    if not body:
        raise RelayError(INVALID_REQUEST, "The request body is empty; send a JSON object.")
    members: PlainMembers | RawMembers
    try:
        try:
            members = (_decode_plain if len(body) <= _MAX_PLAIN_OCTETS else _decode_raw)(body)
        except msgspec.ValidationError:
            members = _decode_raw(body)
    except msgspec.ValidationError:
        raise RelayError(INVALID_REQUEST, "The request body must be a JSON object.") from None
    model: object = members.model
    stream: object = members.stream
    max_tokens: object = members.max_tokens
    if type(members) is RawMembers:
        model, stream, max_tokens = _scalar(model), _scalar(stream), _scalar(max_tokens)
    if not isinstance(model, str) or not model:
        absent = members.model in (None, NOTHING) or model is None
        fault = "Field required" if absent else "Input should be a model's id in quotes"
        raise RelayError(
            INVALID_REQUEST, f"model: {fault}. GET /v1/models lists the ids.", param="model"
        )
    has_thread = members.thread is not NOTHING
    refuse_second_reading(body, members, stream is not None, max_tokens is not None, has_thread)
    thread = _short_thread(members.thread) if has_thread else NOTHING
    return RequestSummary(model, stream, max_tokens, thread)


def _short_thread(raw: msgspec.Raw) -> msgspec.Raw:
    """A `thread` on its own, so that it keeps no body in memory; `{}` for one that is too long."""
    octets = bytes(memoryview(raw)[: _MAX_THREAD_OCTETS + 1])
    if octets == b"null":
        return NOTHING
    return msgspec.Raw(octets if len(octets) <= _MAX_THREAD_OCTETS else b"{}")


def _peek_mended(body: bytes, error: Exception) -> RequestSummary:
    """The same of a body that can be read once it is mended. Raises RelayError: `error`."""
    again = mended(body)
    if again is not body:
        summary = peek(again)
        summary.mended = again
        return summary
    for name, start in _COMPRESSED:
        if body.startswith(start):
            raise RelayError(
                INVALID_REQUEST,
                f"The request body is compressed ({name}), and no content-encoding says so. Send "
                "it as it is, or name the coding in content-encoding.",
            )
    raise not_json_error(error) from None


def _scalar(raw: Any) -> object:
    """A value that is neither long nor an array or object; for those, something that is no value
    of any member.

    Raises:
        RelayError: 400, it is not UTF-8.
    """
    octets = memoryview(raw)
    if not octets:
        return None
    if octets[0] in b"[{" or len(octets) > _MAX_VALUE_OCTETS:
        return ...
    try:
        return _decode_any(octets)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise not_json_error(error) from None


def with_model(body: bytes, name: str) -> bytes:
    """The same octets with `name` as the value of the top-level `model`.

    Other places may have a "model" too, for example a tool's schema. Each key is therefore
    replaced by a unique one of the same length, and a decode of the top level finds the right one.

    Raises:
        RelayError: 400, `model` is given twice or written with escapes: two readers of this
            body could find different models. Or the body is nested too deeply.
    """
    start, end = _searched_span(body)
    return body[:start] + msgspec.json.encode(name) + body[end:]


def around_model(body: bytes, name: str, source: bytes = b"") -> tuple[bytes, memoryview]:
    """The same as `with_model` for a body that `peek` has read, in two pieces: up to the new name,
    and what follows it, which is not copied. `source`: the octets to change, of which `body` is the
    mended form; empty for `body` itself.

    Raises:
        RelayError: 400, as `with_model`.
    """
    start, end = _model_span(body)
    source = source or body
    return source[:start] + msgspec.json.encode(name), memoryview(source)[end:]


def _model_span(body: bytes) -> tuple[int, int]:
    """Where the value of `model` is in a body that `peek` has read: it has one such key.

    Nearly every client writes `model` first, or after texts, numbers and `messages`. So the members
    are passed one by one, the long ones by their length.
    """
    long: RawMembers | None = None
    at = 0
    for _ in range(_MAX_MEMBERS_PASSED):
        key = _MEMBER_NAME.match(body, at)
        if key is None:
            break
        at = key.end()
        value = _SHORT_VALUE.match(body, at)
        if value is not None:
            if key[1] == b"model":
                return value.span()
            at = value.end()
            continue
        try:
            long = long or _decode_raw(body)
        except RecursionError:  # `peek` had a few levels more
            break
        raw = _long_value(long, key[1])
        if raw is None or not body.startswith(raw, at):
            break
        at += len(raw)
    return _searched_span(body)


def _long_value(members: RawMembers, name: bytes) -> memoryview | None:
    """The value of a member that is given once, or the last of several."""
    match name:
        case b"messages":
            return memoryview(members.messages)
        case b"system":
            return memoryview(members.system)
        case b"tools":
            return memoryview(members.tools)
    return None


def _searched_span(body: bytes) -> tuple[int, int]:
    """The same, found as `with_model` describes it. Raises RelayError: 400, see there."""
    number = count(body, b'"model"')
    try:
        if number == 1 and _has_no_model_but(start := find(body, b'"model"'), body):
            return _value_span(body, start)  # true of most bodies
        if number <= _MAX_MODEL_KEYS:
            found = _model_keys(body)
            if len(found) == 1:
                return _value_span(body, found[0])
    except RecursionError as error:  # `peek` had a few levels more
        raise not_json_error(error) from None
    raise RelayError(
        INVALID_REQUEST, "model: give it once, at the top level, without escapes.", param="model"
    )


def _has_no_model_but(start: int, body: bytes) -> bool:
    """Whether the `"model"` at `start` is the only key of the top level that reads so."""
    marked = b'%b"~~~~~"%b' % (body[:start], body[start + 7 :])
    return _decode_raw(marked).model is NOTHING


def _model_keys(body: bytes) -> list[int]:
    """Where the top-level keys `model` are in a body; none if one of them is written with escapes.

    Raises:
        RelayError: 400, a key is not UTF-8.
    """
    marked = bytearray(body)
    starts: dict[str, int] = {}
    for match in _MODEL_KEY.finditer(body):
        start = match.start()
        mark = f"~{len(starts):04x}"
        marked[start : start + 7] = b'"%b"' % mark.encode()
        starts[mark] = start
    found: list[int] = []
    escaped = False
    ignored = Key("")

    def read(_: type[Any], key: str) -> Key:  # one key for all: no object stays for any of them
        nonlocal escaped
        if key == "model":
            escaped = True
        elif key in starts:
            found.append(starts[key])
        return ignored

    try:
        msgspec.json.decode(marked, type=dict[Key, msgspec.Raw], dec_hook=read)
    except UnicodeDecodeError:  # in a key that `peek` has skipped
        raise not_json_error("a key is not UTF-8") from None
    return [] if escaped else found


def _value_span(body: bytes, key: int) -> tuple[int, int]:
    """Where the value of the `"model"` at `key` is, which `peek` found to be a string."""
    value = _MODEL_MEMBER.match(body, key)
    assert value is not None
    return value.span(1)

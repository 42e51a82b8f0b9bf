"""Removes the thinking blocks of another model family from a request.

A family signs its thinking blocks, and another family refuses the signature. Blocks are cut out
of the octets by position. All other octets stay as they came, with numbers, spaces and escapes,
so that the prompt cache finds the same prefix. The rest of a message depends on that message
alone, so the next turn begins with the octets of this one.

Decides how to cut. Must not know when: within a family, thinking blocks must stay.
"""

import re
from typing import Any, Final

import msgspec

from relay.translate.pacing import paced

_THINKING_TYPES: Final = ("thinking", "redacted_thinking")  # a set fails if a type is a list
_PUNCTUATION: Final = {
    mark: re.compile(rb"[ \t\r\n]*" + re.escape(mark) + rb"[ \t\r\n]*")
    for mark in (b"{", b"}", b"[", b"]", b",")
}
_KEY: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)

# The exceptions for a body that is not a valid request. It is passed on unchanged: the error text
# of the upstream is better.
_INVALID: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class _TypeOnly(msgspec.Struct, frozen=True):
    type: Any = None


class _Part:
    """The position of a value in the body, `body[start:end]`.

    `begin` is where its member begins, with the name; in an array it is `start`.
    """

    __slots__ = ("begin", "end", "start")

    def __init__(self, begin: int, start: int, end: int) -> None:
        self.begin = begin
        self.start = start
        self.end = end


_Cut = tuple[int, int]  # from and to: these octets of the body are removed

_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_type: Final = msgspec.json.Decoder(_TypeOnly).decode
_decode_types: Final = msgspec.json.Decoder(list[_TypeOnly]).decode
_decode_any: Final = msgspec.json.Decoder().decode


def without_thinking(body: bytes) -> bytes:
    """The same request without thinking blocks in its assistant messages.

    Every `thinking` and `redacted_thinking` block is removed, and every assistant message that
    has no other block. The same object is returned if there are none, or if the body is not a
    valid request.

    During tool use, the API may refuse a last turn without thinking while `thinking` is `enabled`
    (Anthropic API docs, Extended thinking, Preserving thinking blocks). So `thinking` is removed
    as well until the model has answered the tool results, and with it the `clear_thinking_…`
    edits that require it (Anthropic API docs, Context editing).
    """
    if b"thinking" not in body:
        return body
    try:
        cuts = _cuts(body)
    except _INVALID:
        return body
    if not cuts:
        return body
    pieces: list[bytes] = []
    at = 0
    for start, end in sorted(cuts):
        pieces.append(body[at:start])
        at = end
    pieces.append(body[at:])
    return b"".join(pieces)


def _cuts(body: bytes) -> list[_Cut]:
    """The cuts that remove all thinking; none overlaps another.

    Raises:
        ValueError, MsgspecError, RecursionError: the body is not a valid request.
    """
    top = _object(body, 0, msgspec.Raw(body))
    cuts: list[_Cut] = []
    if "messages" not in top:
        return cuts
    messages, raws = _array(body, top["messages"])
    kept_messages: list[bool] = []
    # The last assistant message has tool calls; user messages with their results follow it.
    has_calls = has_results = False
    for message, raw in paced(zip(messages, raws, strict=True)):
        stays = True
        fields = _decode_members(raw)
        role = _decode_any(fields["role"]) if "role" in fields else None
        content = fields.get("content")
        types: list[Any] = []  # empty for a plain text
        if content is not None and bytes(content)[:1] == b"[":
            types = [block.type for block in _decode_types(content)]
        if role == "assistant":
            kept = [type not in _THINKING_TYPES for type in types]
            if not all(kept):
                place = _object(body, message.start, raw)["content"]
                stays = any(kept)
                if stays:
                    cuts += _cut_out(place, _array(body, place)[0], kept)
            if stays:
                has_calls, has_results = "tool_use" in types, False
        elif role == "user":
            has_results = "tool_result" in types
            has_calls = has_calls and has_results
        kept_messages.append(stays)
    if not all(kept_messages):
        # A message that is removed has no cuts of its own, so no two cuts overlap.
        cuts += _cut_out(top["messages"], messages, kept_messages)
    if cuts and has_calls and has_results:
        cuts += _disable_thinking(body, top)
    return cuts


def _disable_thinking(body: bytes, top: dict[str, _Part]) -> list[_Cut]:
    """The cuts that remove `thinking` if it is `enabled`, and the edits that require it."""
    place = top.get("thinking")
    if place is None or _decode_type(body[place.start : place.end]).type != "enabled":
        return []
    members = list(top.values())
    removed = {place}
    cuts: list[_Cut] = []
    place = top.get("context_management")
    if place is not None and body[place.start : place.start + 1] == b"{":
        fields = _object(body, place.start, msgspec.Raw(body[place.start : place.end]))
        if "edits" in fields:
            edits, raws = _array(body, fields["edits"])
            kept = [not str(_decode_type(raw).type).startswith("clear_thinking") for raw in raws]
            if any(kept):
                cuts += _cut_out(fields["edits"], edits, kept)
            elif kept and len(fields) == 1:
                removed.add(place)
            elif kept:
                cuts += _cut_out(place, list(fields.values()), [name != "edits" for name in fields])
    document = _Part(0, 0, len(body))
    return cuts + _cut_out(document, members, [member not in removed for member in members])


def _cut_out(container: _Part, parts: list[_Part], kept: list[bool]) -> list[_Cut]:
    """The cuts that remove the parts of an array or object that are not kept.

    A part is removed with the comma before it, and the first ones with the comma after them: the
    beginning must not depend on later parts.
    """
    if not any(kept):
        return [(container.start + 1, container.end - 1)]
    first = kept.index(True)
    cuts = [(parts[0].begin, parts[first].begin)] if first else []
    for number in range(first + 1, len(parts)):
        if not kept[number]:
            cuts.append((parts[number - 1].end, parts[number].end))
    return cuts


def _array(body: bytes, place: _Part) -> tuple[list[_Part], list[msgspec.Raw]]:
    """The elements of the array at `place`: their positions, and their octets."""
    raws = _decode_elements(memoryview(body)[place.start : place.end])
    parts: list[_Part] = []
    at = place.start
    for raw in paced(raws):
        start = _skip(body, at, b"," if parts else b"[")
        at = _value(body, start, raw)
        parts.append(_Part(start, start, at))
    if raws:
        _skip(body, at, b"]")
    return parts, raws


def _object(body: bytes, start: int, octets: msgspec.Raw) -> dict[str, _Part]:
    """The positions of the members of the object at `start`, in their order.

    Raises:
        ValueError: a name is given twice, so two readers could read the object differently.
    """
    members = _decode_members(octets)
    parts: dict[str, _Part] = {}
    at = start
    for name, raw in paced(members.items()):
        begin = _skip(body, at, b"," if parts else b"{")
        key = _KEY.match(body, begin)
        assert key is not None  # the octets have been decoded: a name must come next
        at = _value(body, key.end(), raw)
        parts[name] = _Part(begin, key.end(), at)
    if members:
        _skip(body, at, b"}")
    return parts


def _skip(body: bytes, at: int, mark: bytes) -> int:
    """The position behind `mark` and the spaces around it; `mark` must be at `at`."""
    found = _PUNCTUATION[mark].match(body, at)
    if found is None:
        raise ValueError("other octets than were decoded")
    return found.end()


def _value(body: bytes, start: int, raw: msgspec.Raw) -> int:
    """The end of a value, which must be at `start`."""
    octets = bytes(raw)
    if not body.startswith(octets, start):
        raise ValueError("other octets than were decoded")
    return start + len(octets)

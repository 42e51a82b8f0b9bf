"""A request without the thinking that another family of models did.

A thinking block is signed by whom it comes from, and another family refuses the signature. What
is cut out here is cut out of the octets, by position, and all others stay as they came: numbers,
spaces and escapes, and with them the prefix that a prompt cache knows. What stays of a message
depends on that message alone, so the next turn begins with what this one was.

This decides how to cut, not when: within a family, thinking must stay where it is.
"""

import re
from typing import Any, Final, NamedTuple

import msgspec

_KINDS: Final = ("thinking", "redacted_thinking")  # no set: a type may be a list
_MARKS: Final = {
    mark: re.compile(rb"[ \t\r\n]*" + re.escape(mark) + rb"[ \t\r\n]*")
    for mark in (b"{", b"}", b"[", b"]", b",")
}
_KEY: Final = re.compile(rb'"(?:[^"\\]|\\.)*"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)

# What a body may be refused with that is not the request it should be. It stays as it is then:
# the upstream has the better words for what is wrong with it.
_UNEXPECTED: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class _Kind(msgspec.Struct, frozen=True):
    type: Any = None


class _Part(NamedTuple):
    """A value within the body: where it is, and where its member begins, which is the same in
    an array."""

    begin: int
    start: int
    end: int


class _Cut(NamedTuple):
    """`body[start:end]` goes."""

    start: int
    end: int


_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_kind = msgspec.json.Decoder(_Kind).decode
_kinds = msgspec.json.Decoder(list[_Kind]).decode
_any = msgspec.json.Decoder().decode


def without_thinking(body: bytes) -> bytes:
    """The same request, with no thinking in what the assistant said before.

    Every `thinking` and `redacted_thinking` block goes, and an assistant message of nothing
    else with it. The very same object comes back where there is none, and where the body is
    not what a request should be.

    A request in the midst of tool use, whose last turn has no thinking any more, may be refused
    while `thinking` is `enabled` (docs: build/extended-thinking, on preserving thinking blocks).
    So `thinking` goes as well, and the `clear_thinking_…` edits that demand it (docs:
    build/context-editing), until the tools' results are answered.
    """
    if b"thinking" not in body:
        return body
    try:
        cuts = _cuts(body)
    except _UNEXPECTED:
        return body
    if not cuts:
        return body
    pieces: list[bytes] = []
    at = 0
    for cut in sorted(cuts):
        pieces.append(body[at : cut.start])
        at = cut.end
    pieces.append(body[at:])
    return b"".join(pieces)


def _cuts(body: bytes) -> list[_Cut]:
    """All that is to be cut, apart from each other.

    Raises ValueError or a MsgspecError: the body is not what was expected.
    """
    top = _object(body, 0, msgspec.Raw(body))
    cuts: list[_Cut] = []
    if "messages" not in top:
        return cuts
    messages, raws = _array(body, top["messages"])
    staying: list[bool] = []
    calling = results = False  # the last assistant message asks for tools; and has the results
    for message, raw in zip(messages, raws, strict=True):
        stays = True
        fields = _members(raw)
        role = _any(fields["role"]) if "role" in fields else None
        content = fields.get("content")
        kinds: list[Any] = []  # a plain text has none
        if content is not None and bytes(content)[:1] == b"[":
            kinds = [block.type for block in _kinds(content)]
        if role == "assistant":
            kept = [kind not in _KINDS for kind in kinds]
            if not all(kept):
                place = _object(body, message.start, raw)["content"]
                stays = any(kept)
                if stays:
                    cuts += _without(place, _array(body, place)[0], kept)
            if stays:
                calling, results = "tool_use" in kinds, False
        elif role == "user":
            results = "tool_result" in kinds
            calling = calling and results
        staying.append(stays)
    if not all(staying):
        # Nothing was cut within a message that goes as a whole, so no two cuts overlap.
        cuts += _without(top["messages"], messages, staying)
    if cuts and calling and results:
        cuts += _thinking_off(body, top)
    return cuts


def _thinking_off(body: bytes, top: dict[str, _Part]) -> list[_Cut]:
    """Take out `thinking` where it is `enabled`, and what may not be there without it."""
    place = top.get("thinking")
    if place is None or _kind(body[place.start : place.end]).type != "enabled":
        return []
    members = list(top.values())
    going = {place}
    cuts: list[_Cut] = []
    place = top.get("context_management")
    if place is not None and body[place.start : place.start + 1] == b"{":
        fields = _object(body, place.start, msgspec.Raw(body[place.start : place.end]))
        if "edits" in fields:
            edits, raws = _array(body, fields["edits"])
            kept = [not str(_kind(raw).type).startswith("clear_thinking") for raw in raws]
            if any(kept):
                cuts += _without(fields["edits"], edits, kept)
            elif kept and len(fields) == 1:
                going.add(place)
            elif kept:
                cuts += _without(place, list(fields.values()), [name != "edits" for name in fields])
    whole = _Part(0, 0, len(body))
    return cuts + _without(whole, members, [member not in going for member in members])


def _without(whole: _Part, parts: list[_Part], kept: list[bool]) -> list[_Cut]:
    """Cut the parts that are not kept out of the array or object that they are all of.

    A part goes with the comma before it, and the first ones with the comma after them: what
    stays of a beginning must not depend on whether anything follows.
    """
    if not any(kept):
        return [_Cut(whole.start + 1, whole.end - 1)]
    first = kept.index(True)
    cuts = [_Cut(parts[0].begin, parts[first].begin)] if first else []
    for number in range(first + 1, len(parts)):
        if not kept[number]:
            cuts.append(_Cut(parts[number - 1].end, parts[number].end))
    return cuts


def _array(body: bytes, place: _Part) -> tuple[list[_Part], list[msgspec.Raw]]:
    """The elements of the array at `place`: where each is, and its octets."""
    raws = _elements(memoryview(body)[place.start : place.end])
    parts: list[_Part] = []
    at = place.start
    for raw in raws:
        start = _skip(body, at, b"," if parts else b"[")
        at = _value(body, start, raw)
        parts.append(_Part(start, start, at))
    if raws:
        _skip(body, at, b"]")
    return parts, raws


def _object(body: bytes, start: int, octets: msgspec.Raw) -> dict[str, _Part]:
    """Where the members of the object are that begins at `start`, in their order.

    Raises ValueError: a name is given twice, so that two readers could read it differently.
    """
    members = _members(octets)
    parts: dict[str, _Part] = {}
    at = start
    for name, raw in members.items():
        begin = _skip(body, at, b"," if parts else b"{")
        key = _KEY.match(body, begin)
        if key is None:
            raise ValueError("a name that is none")
        at = _value(body, key.end(), raw)
        parts[name] = _Part(begin, key.end(), at)
    if members:
        _skip(body, at, b"}")
    return parts


def _skip(body: bytes, at: int, mark: bytes) -> int:
    """Where the next thing begins after `mark`, which must come next."""
    found = _MARKS[mark].match(body, at)
    if found is None:
        raise ValueError("not what was read here")
    return found.end()


def _value(body: bytes, start: int, raw: msgspec.Raw) -> int:
    """The end of a value which must be there."""
    octets = bytes(raw)
    if not body.startswith(octets, start):
        raise ValueError("not what was read here")
    return start + len(octets)

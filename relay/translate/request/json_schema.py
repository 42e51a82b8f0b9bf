"""Adapts a JSON schema to those that the Messages API can hold an answer to.

The API compiles a schema into a grammar, and refuses keywords that a grammar cannot express
(Anthropic API docs, Structured outputs, JSON Schema limitations). Decides what becomes of such a
keyword: it goes into the description, where the model reads it, or the schema is not used at all
if it means something else without the keyword. All else stays as it came, in its order, because
the model writes in that order. Must not know where a schema comes from.
"""

import re
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

import msgspec

from relay.translate.invalid import UNREADABLE
from relay.translate.raw_json import Octets, encode_string, kind

_MAX_OCTETS: Final = 65_536  # thirty times a real schema; at most 20 ms of work
_MAX_DEPTH: Final = 60

_SCHEMA_MAPS: Final = frozenset({"properties", "$defs", "definitions"})
_SCHEMA_LISTS: Final = frozenset({"anyOf", "allOf", "prefixItems"})
_INEXPRESSIBLE: Final = frozenset(
    {
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "maxItems",
        "uniqueItems",
        "contains",
        "minContains",
        "maxContains",
        "minProperties",
        "maxProperties",
        "patternProperties",
        "propertyNames",
        "dependentRequired",
        "dependentSchemas",
        "unevaluatedItems",
        "unevaluatedProperties",
        "not",
        "if",
        "then",
        "else",
    }
)
_FORMATS: Final = frozenset(
    {
        "date-time",
        "time",
        "date",
        "duration",
        "email",
        "hostname",
        "uri",
        "ipv4",
        "ipv6",
        "uuid",
    }
)
# Look-around, back-references, word boundaries.
_UNSUPPORTED_PATTERN: Final = re.compile(r"\(\?<?[=!]|\\[1-9bB]")

_FALSE: Final = msgspec.Raw(b"false")

_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_any: Final = msgspec.json.Decoder().decode


class _UnsupportedError(Exception):
    """The API has no grammar for the schema."""


@lru_cache(maxsize=64)  # a conversation has the same schemas in each turn
def constrain(schema: bytes) -> bytes | None:
    """The schema as the API accepts it, unchanged if possible; None if that is impossible.

    The API never accepts objects with arbitrary members, nor recursive schemas.
    """
    if len(schema) > _MAX_OCTETS:
        return None
    walk = _Walk()
    try:
        octets = walk.node(schema, "#", 0)
        walk.check()
    except (_UnsupportedError, *UNREADABLE):
        return None
    return bytes(octets) if walk.changed else schema


class _Walk:
    """One pass over a schema."""

    __slots__ = ("_references", "changed")

    def __init__(self) -> None:
        self.changed = False
        self._references: dict[str, set[str]] = {}  # from a definition to those that it refers to

    def node(self, raw: Octets, at: str, depth: int) -> Octets:
        """The schema at the JSON pointer `at`, as the API accepts it."""
        if bytes(raw)[:1] != b"{":
            return raw
        if depth > _MAX_DEPTH:
            raise _UnsupportedError
        members = self._unfold_all_of(_decode_members(raw))
        out: dict[str, Octets] = {}
        constraints: list[str] = []
        for name, value in members.items():
            here = f"{at}/{name}"
            if name in _SCHEMA_MAPS and kind(value) == "{":
                inner = _decode_members(value).items()
                nodes = {key: self.node(one, f"{here}/{key}", depth + 1) for key, one in inner}
                out[name] = _object(nodes)
            elif name in _SCHEMA_LISTS and kind(value) == "[":
                out[name] = self._list(value, here, depth)
            elif name == "oneOf" and kind(value) == "[" and "anyOf" not in members:
                self.changed = True
                out["anyOf"] = self._list(value, here, depth)
            elif name == "items" and kind(value) == "[":
                out[name] = self._list(value, here, depth)
            elif name == "items":
                out[name] = self.node(value, here, depth + 1)
            elif name in _INEXPRESSIBLE or _is_refused(name, value):
                constraints.append(f"{name}: {bytes(value).decode()}")
            elif name == "$ref":
                self._add_reference(_decode_any(value), at)
                out[name] = value
            elif name == "additionalProperties" and value != _FALSE:
                raise _UnsupportedError
            else:
                out[name] = value
        if "additionalProperties" not in out and _is_object(members):
            self.changed = True
            out["additionalProperties"] = _FALSE
        if constraints:
            self.changed = True
            out["description"] = _describe(members.get("description"), constraints)
        return _object(out)

    def check(self) -> None:
        """Refuse a definition that refers to itself, directly or by others."""
        try:
            TopologicalSorter(self._references).prepare()
        except CycleError:
            raise _UnsupportedError from None

    def _list(self, raw: msgspec.Raw, at: str, depth: int) -> bytes:
        inner = enumerate(_decode_elements(raw))
        nodes = [self.node(one, f"{at}/{number}", depth + 1) for number, one in inner]
        return b"[" + b",".join(nodes) + b"]"

    def _unfold_all_of(self, members: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
        """The members without an `allOf` of one schema, a way to describe a `$ref`."""
        if "allOf" not in members or kind(members["allOf"]) != "[":
            return members
        parts = _decode_elements(members["allOf"])
        if len(parts) != 1 or kind(parts[0]) != "{":
            if any(kind(part) == "{" and "$ref" in _decode_members(part) for part in parts):
                raise _UnsupportedError
            return members
        inner = _decode_members(parts[0])
        if not inner.keys().isdisjoint(members):
            raise _UnsupportedError
        self.changed = True
        unfolded: dict[str, msgspec.Raw] = {}
        for name, value in members.items():
            unfolded |= inner if name == "allOf" else {name: value}
        return unfolded

    def _add_reference(self, reference: Any, at: str) -> None:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise _UnsupportedError
        if f"{at}/".startswith(f"{reference}/"):  # a schema around this one
            raise _UnsupportedError
        self._references.setdefault(_definition(at), set()).add(_definition(reference))


def _definition(pointer: str) -> str:
    """The definition that a pointer points into, else the pointer."""
    parts = pointer.split("/", 3)
    if len(parts) > 2 and parts[1] in ("$defs", "definitions"):
        return f"{parts[1]}/{parts[2]}"
    return pointer


def _is_object(members: dict[str, msgspec.Raw]) -> bool:
    if "type" not in members:
        return "properties" in members
    named = _decode_any(members["type"])
    return named == "object" or (isinstance(named, list) and "object" in named)


def _is_refused(name: str, value: msgspec.Raw) -> bool:
    """Whether the API refuses this keyword with this value."""
    if name == "oneOf":  # beside an `anyOf`
        return True
    if name == "enum":
        return kind(value) == "[" and any(kind(one) in "{[" for one in _decode_elements(value))
    if name == "minItems":
        return _decode_any(value) not in (0, 1)
    if name == "format":
        wanted = _decode_any(value)
        return not isinstance(wanted, str) or wanted not in _FORMATS
    if name == "pattern":
        pattern = _decode_any(value)
        return not isinstance(pattern, str) or _UNSUPPORTED_PATTERN.search(pattern) is not None
    return False


def _describe(description: msgspec.Raw | None, constraints: list[str]) -> bytes:
    text = _decode_any(description) if description is not None else ""
    before = f"{text}\n\n" if isinstance(text, str) and text else ""
    return encode_string(f"{before}Must hold: {', '.join(constraints)}")


def _object(members: dict[str, Octets]) -> bytes:
    pieces: list[Octets] = []
    for name, value in members.items():
        pieces += (b"," if pieces else b"{", encode_string(name), b":", value)
    return b"".join((*pieces, b"}")) if pieces else b"{}"

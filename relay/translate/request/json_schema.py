"""JSON schemas that an answer is held to, as the Messages API takes them.

The API makes a grammar of such a schema and refuses what its grammars cannot say (docs:
build-with-claude/structured-outputs, "JSON Schema limitations"). What can be said in words goes
into the description of the schema that it is about, where the model reads it; a schema that
means something else without it is not held at all. All else stays as it came, and in its order,
which is the order that the model writes in. This knows nothing of where a schema came from.
"""

import re
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

import msgspec

from relay.translate.invalid import UNREADABLE
from relay.translate.raw_json import Octets, encode_string, kind

_MOST: Final = 65_536  # octets: thirty times what real ones have, and 20 ms at the worst
_DEEPEST: Final = 60

_MAPS: Final = frozenset({"properties", "$defs", "definitions"})
_LISTS: Final = frozenset({"anyOf", "allOf", "prefixItems"})
_IN_WORDS: Final = frozenset(
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
# Look-around, references to groups, word boundaries.
_PATTERN: Final = re.compile(r"\(\?<?[=!]|\\[1-9bB]")

_FALSE: Final = msgspec.Raw(b"false")

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_any = msgspec.json.Decoder().decode


class _NotHeld(Exception):  # noqa: N818 - it is a finding, not a failure
    """There is no grammar of this schema."""


@lru_cache(maxsize=64)  # a conversation has the same ones in each of its turns
def constrain(schema: bytes) -> bytes | None:
    """The schema as the API takes it, the same octets if it can be; None: it never would.

    It never takes objects with members of any name, nor schemas within themselves.
    """
    if len(schema) > _MOST:
        return None
    walk = _Walk()
    try:
        octets = walk.node(schema, "#", 0)
        walk.check()
    except (_NotHeld, *UNREADABLE):
        return None
    return bytes(octets) if walk.changed else schema


class _Walk:
    """One pass over a schema."""

    __slots__ = ("_leads", "changed")

    def __init__(self) -> None:
        self.changed = False
        self._leads: dict[str, set[str]] = {}  # from a definition to those it refers to

    def node(self, raw: Octets, at: str, depth: int) -> Octets:
        """The schema at `at`, a JSON pointer, as the API takes it."""
        if bytes(raw)[:1] != b"{":
            return raw
        if depth > _DEEPEST:
            raise _NotHeld
        members = self._flat(_members(raw))
        out: dict[str, Octets] = {}
        words: list[str] = []
        for name, value in members.items():
            here = f"{at}/{name}"
            if name in _MAPS and kind(value) == "{":
                inner = _members(value).items()
                nodes = {key: self.node(one, f"{here}/{key}", depth + 1) for key, one in inner}
                out[name] = _object(nodes)
            elif name in _LISTS and kind(value) == "[":
                out[name] = self._list(value, here, depth)
            elif name == "oneOf" and kind(value) == "[" and "anyOf" not in members:
                self.changed = True
                out["anyOf"] = self._list(value, here, depth)
            elif name == "items" and kind(value) == "[":
                out[name] = self._list(value, here, depth)
            elif name == "items":
                out[name] = self.node(value, here, depth + 1)
            elif name in _IN_WORDS or _is_refused(name, value):
                words.append(f"{name}: {bytes(value).decode()}")
            elif name == "$ref":
                self._refer(_any(value), at)
                out[name] = value
            elif name == "additionalProperties" and value != _FALSE:
                raise _NotHeld
            else:
                out[name] = value
        if "additionalProperties" not in out and _is_object(members):
            self.changed = True
            out["additionalProperties"] = _FALSE
        if words:
            self.changed = True
            out["description"] = _described(members.get("description"), words)
        return _object(out)

    def check(self) -> None:
        """Whether a definition leads back to itself, by whatever others."""
        try:
            TopologicalSorter(self._leads).prepare()
        except CycleError:
            raise _NotHeld from None

    def _list(self, raw: msgspec.Raw, at: str, depth: int) -> bytes:
        inner = enumerate(_elements(raw))
        nodes = [self.node(one, f"{at}/{number}", depth + 1) for number, one in inner]
        return b"[" + b",".join(nodes) + b"]"

    def _flat(self, members: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
        """The same without an `allOf` of one, which some write to put words to a `$ref`."""
        if "allOf" not in members or kind(members["allOf"]) != "[":
            return members
        parts = _elements(members["allOf"])
        if len(parts) != 1 or kind(parts[0]) != "{":
            if any(kind(part) == "{" and "$ref" in _members(part) for part in parts):
                raise _NotHeld
            return members
        inner = _members(parts[0])
        if not inner.keys().isdisjoint(members):
            raise _NotHeld
        self.changed = True
        flat: dict[str, msgspec.Raw] = {}
        for name, value in members.items():
            flat |= inner if name == "allOf" else {name: value}
        return flat

    def _refer(self, reference: Any, at: str) -> None:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise _NotHeld
        if f"{at}/".startswith(f"{reference}/"):  # what it is within
            raise _NotHeld
        self._leads.setdefault(_definition(at), set()).add(_definition(reference))


def _definition(pointer: str) -> str:
    """The definition that a pointer leads into, else the pointer."""
    parts = pointer.split("/", 3)
    if len(parts) > 2 and parts[1] in ("$defs", "definitions"):
        return f"{parts[1]}/{parts[2]}"
    return pointer


def _is_object(members: dict[str, msgspec.Raw]) -> bool:
    if "type" not in members:
        return "properties" in members
    named = _any(members["type"])
    return named == "object" or (isinstance(named, list) and "object" in named)


def _is_refused(name: str, value: msgspec.Raw) -> bool:
    """Whether this member is one that the API refuses for its value."""
    if name == "oneOf":  # there is an anyOf as well
        return True
    if name == "enum":
        return kind(value) == "[" and any(kind(one) in "{[" for one in _elements(value))
    if name == "minItems":
        return _any(value) not in (0, 1)
    if name == "format":
        wanted = _any(value)
        return not isinstance(wanted, str) or wanted not in _FORMATS
    if name == "pattern":
        pattern = _any(value)
        return not isinstance(pattern, str) or _PATTERN.search(pattern) is not None
    return False


def _described(description: msgspec.Raw | None, words: list[str]) -> bytes:
    said = _any(description) if description is not None else ""
    before = f"{said}\n\n" if isinstance(said, str) and said else ""
    return encode_string(f"{before}Must hold: {', '.join(words)}")


def _object(members: dict[str, Octets]) -> bytes:
    pieces: list[Octets] = []
    for name, value in members.items():
        pieces += (b"," if pieces else b"{", encode_string(name), b":", value)
    return b"".join((*pieces, b"}")) if pieces else b"{}"

"""Which JSON schemas an answer can be held to: those of `output_config.format` and strict tools.

Pure. The real API makes a grammar of such a schema and refuses what its grammars cannot say,
in words that name the type and the keyword. Annotations are let through, as is a schema that
says no type. It knows nothing of the rest of a request.
"""

import re
from typing import Any, Final

from relay.simulator.refusal import Refusal, invalid

JSON = dict[str, Any]

# docs: build-with-claude/structured-outputs, "JSON Schema limitations"
_FORMATS: Final = frozenset(
    ["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"]
)
_BOUNDS: Final = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)
_REFUSED: Final = {
    "integer": _BOUNDS,
    "number": _BOUNDS,
    "string": frozenset({"minLength", "maxLength"}),
    "array": frozenset({"maxItems", "uniqueItems", "contains", "minContains", "maxContains"}),
    "object": frozenset(
        {
            "minProperties",
            "maxProperties",
            "patternProperties",
            "propertyNames",
            "dependentRequired",
            "dependentSchemas",
        }
    ),
}
_LOGIC: Final = ("oneOf", "not", "if", "then", "else")
_LISTS: Final = ("anyOf", "allOf", "prefixItems")
_MAPS: Final = ("properties", "$defs", "definitions")
# Look-around, references to groups, word boundaries.
_PATTERN: Final = re.compile(r"\(\?<?[=!]|\\[1-9bB]")
_STRICT_TOOLS: Final = 20
_OPTIONAL: Final = 24
_UNIONS: Final = 16
_DEPTH: Final = 100


def check(request: JSON) -> None:
    """Refuses schemas that no grammar can be made of, or that together cost too much.

    Raises:
        Refusal: the first rule that is broken.
    """
    tools = [
        (index, tool["input_schema"])
        for index, tool in enumerate(request.get("tools") or ())
        if tool.get("strict") is True and "input_schema" in tool
    ]
    if len(tools) > _STRICT_TOOLS:
        raise invalid(
            f"Too many strict tools ({len(tools)}). The maximum number of strict tools supported "
            f"is {_STRICT_TOOLS}."
        )
    walk = _Walk()
    for index, schema in tools:
        walk.whole(schema, f"tools.{index}.custom")
    shape = (request.get("output_config") or {}).get("format") or request.get("output_format")
    if type(shape) is dict and type(shape.get("schema")) is dict:
        walk.whole(shape["schema"], "output_config.format.schema")
    walk.limit()


class _Walk:
    """One pass over all schemas of a request; counts what makes a grammar large."""

    __slots__ = ("_at", "_followed", "_root", "optional", "unions")

    def __init__(self) -> None:
        self.optional = 0
        self.unions = 0
        self._at = ""
        self._root: JSON = {}
        self._followed: set[str] = set()  # references that lead to no circle

    def whole(self, schema: JSON, at: str) -> None:
        self._at, self._root = at, schema
        self._followed.clear()
        self._node(schema, 0)
        self._acyclic(schema, ())

    def limit(self) -> None:
        if self.unions > _UNIONS:
            raise invalid(
                f"Schemas contains too many parameters with union types ({self.unions} parameters "
                "with type arrays or anyOf). This causes exponential compilation cost. Reduce the "
                f"number of nullable or union-typed parameters (limit: {_UNIONS} parameters with "
                "unions)."
            )
        if self.optional > _OPTIONAL:
            raise invalid(
                f"Schemas contains too many optional parameters ({self.optional}), which would "
                "make grammar compilation inefficient. Reduce the number of optional parameters "
                f"in your tool schemas (limit: {_OPTIONAL})."
            )

    def _refuse(self, message: str) -> Refusal:
        return invalid(f"{self._at}: {message}")

    def _node(self, node: Any, depth: int) -> None:
        if type(node) is not dict:
            return
        if depth > _DEPTH:
            raise self._refuse("Schema is nested too deeply")
        for name in _LOGIC:
            if name in node:
                raise self._refuse(f"Schema type '{name}' is not supported")
        self._reference(node)
        self._literals(node.get("enum"))
        kinds = node.get("type")
        for kind in kinds if type(kinds) is list else (kinds,):
            if type(kind) is str:
                self._typed(node, kind)
        self.unions += type(kinds) is list or "anyOf" in node
        for inner in _inside(node):
            self._node(inner, depth + 1)

    def _reference(self, node: JSON) -> None:
        reference = node.get("$ref")
        if type(reference) is str and not reference.startswith("#"):
            raise self._refuse(f"External $ref '{reference}' is not supported")
        options = node.get("allOf")
        if type(options) is list and any(type(o) is dict and "$ref" in o for o in options):
            raise self._refuse("'allOf' with '$ref' is not supported")

    def _literals(self, values: Any) -> None:
        if type(values) is list and any(type(value) in (dict, list) for value in values):
            raise self._refuse("Complex types in 'enum' are not supported")

    def _typed(self, node: JSON, kind: str) -> None:
        refused = sorted(_REFUSED.get(kind, frozenset()).intersection(node))
        if len(refused) == 1:
            raise self._refuse(f"For '{kind}' type, property '{refused[0]}' is not supported")
        if refused:
            names = ", ".join(refused)
            raise self._refuse(f"For '{kind}' type, properties {names} are not supported")
        if kind == "array" and node.get("minItems", 0) not in (0, 1):
            raise self._refuse(
                "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
            )
        if kind == "string":
            self._string(node.get("format"), node.get("pattern"))
        if kind == "object":
            self._object(node)

    def _string(self, shape: Any, pattern: Any) -> None:
        if type(shape) is str and shape not in _FORMATS:
            raise self._refuse(f"For 'string' type, format '{shape}' is not supported")
        if type(pattern) is str and _PATTERN.search(pattern):
            raise self._refuse(f"For 'string' type, pattern '{pattern}' is not supported")

    def _object(self, node: JSON) -> None:
        open_ = node.get("additionalProperties")
        if open_ is None:
            raise self._refuse(
                "For 'object' type, 'additionalProperties' must be explicitly set to false"
            )
        if open_ is not False:
            told = "true" if open_ is True else "object"
            raise self._refuse(
                f"For 'object' type, 'additionalProperties: {told}' is not supported. Please set "
                "'additionalProperties' to false"
            )
        properties, required = node.get("properties"), node.get("required")
        if type(properties) is dict:
            needed = required if type(required) is list else []
            self.optional += sum(name not in needed for name in properties)

    def _acyclic(self, node: Any, path: tuple[str, ...]) -> None:
        """A definition that leads to itself would make a grammar without end."""
        if type(node) is not dict:
            return
        reference = node.get("$ref")
        if type(reference) is str and reference not in self._followed:
            if reference in path or reference == "#":
                raise self._refuse(f"Recursive schemas are not supported: '{reference}'")
            self._acyclic(self._find(reference), (*path, reference))
            self._followed.add(reference)
        for inner in _inside(node, _MAPS[:1]):
            self._acyclic(inner, path)

    def _find(self, reference: str) -> Any:
        place: Any = self._root
        for part in reference.removeprefix("#/").split("/"):
            place = place.get(part) if type(place) is dict else None
        return place


def _inside(node: JSON, maps: tuple[str, ...] = _MAPS) -> list[Any]:
    """The schemas within a schema."""
    found: list[Any] = [node.get("items")]
    for name in _LISTS:
        listed = node.get(name)
        if type(listed) is list:
            found += listed
    for name in maps:
        named = node.get(name)
        if type(named) is dict:
            found += named.values()
    return found

"""The rules for JSON schemas of structured output: `output_config.format` and strict tools.

Pure. The real API compiles such a schema to a grammar. It refuses keywords that its grammars do
not have, in a message with the type and the keyword. Annotations are accepted, and so is a schema
without a type. Must not know the rest of a request.
"""

import re
from typing import Any, Final

from relay.simulator.refusal import Refusal, invalid

JSON = dict[str, Any]

# Anthropic documentation, Structured outputs, "JSON Schema limitations".
_FORMATS: Final = frozenset(
    ["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"]
)
_BOUNDS: Final = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)
# Type -> the keywords that are refused for it.
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
_MAX_STRICT_TOOLS: Final = 20
_MAX_OPTIONAL: Final = 24  # parameters
_MAX_UNIONS: Final = 16  # parameters
_MAX_DEPTH: Final = 100


def check(request: JSON) -> None:
    """Check all schemas of a request, and the size of the grammars together.

    Raises:
        Refusal: 400, for the first broken rule.
    """
    tools = [
        (index, tool["input_schema"])
        for index, tool in enumerate(request.get("tools") or ())
        if tool.get("strict") is True and "input_schema" in tool
    ]
    if len(tools) > _MAX_STRICT_TOOLS:
        raise invalid(
            f"Too many strict tools ({len(tools)}). The maximum number of strict tools supported "
            f"is {_MAX_STRICT_TOOLS}."
        )
    walk = _Walk()
    for index, schema in tools:
        walk.check(schema, f"tools.{index}.custom")
    output_config = request.get("output_config") or {}
    output_format = output_config.get("format") or request.get("output_format")
    if type(output_format) is dict and type(output_format.get("schema")) is dict:
        walk.check(output_format["schema"], "output_config.format.schema")
    walk.check_size()


class _Walk:
    """One pass over all schemas of a request; counts the parts that make a grammar large."""

    __slots__ = ("_at", "_followed", "_root", "optional", "unions")

    def __init__(self) -> None:
        self.optional = 0
        self.unions = 0
        self._at = ""
        self._root: JSON = {}
        self._followed: set[str] = set()  # references that are known to be acyclic

    def check(self, schema: JSON, at: str) -> None:
        self._at, self._root = at, schema
        self._followed.clear()
        self._check_node(schema, 0)
        self._check_acyclic(schema, ())

    def check_size(self) -> None:
        if self.unions > _MAX_UNIONS:
            raise invalid(
                f"Schemas contains too many parameters with union types ({self.unions} parameters "
                "with type arrays or anyOf). This causes exponential compilation cost. Reduce the "
                f"number of nullable or union-typed parameters (limit: {_MAX_UNIONS} parameters "
                "with unions)."
            )
        if self.optional > _MAX_OPTIONAL:
            raise invalid(
                f"Schemas contains too many optional parameters ({self.optional}), which would "
                "make grammar compilation inefficient. Reduce the number of optional parameters "
                f"in your tool schemas (limit: {_MAX_OPTIONAL})."
            )

    def _refusal(self, message: str) -> Refusal:
        return invalid(f"{self._at}: {message}")

    def _check_node(self, node: Any, depth: int) -> None:
        if type(node) is not dict:
            return
        if depth > _MAX_DEPTH:
            raise self._refusal("Schema is nested too deeply")
        for name in _LOGIC:
            if name in node:
                raise self._refusal(f"Schema type '{name}' is not supported")
        self._check_reference(node)
        self._check_enum(node.get("enum"))
        kinds = node.get("type")
        for kind in kinds if type(kinds) is list else (kinds,):
            if type(kind) is str:
                self._check_type(node, kind)
        self.unions += type(kinds) is list or "anyOf" in node
        for inner in _subschemas(node):
            self._check_node(inner, depth + 1)

    def _check_reference(self, node: JSON) -> None:
        reference = node.get("$ref")
        if type(reference) is str and not reference.startswith("#"):
            raise self._refusal(f"External $ref '{reference}' is not supported")
        options = node.get("allOf")
        if type(options) is list and any(type(o) is dict and "$ref" in o for o in options):
            raise self._refusal("'allOf' with '$ref' is not supported")

    def _check_enum(self, values: Any) -> None:
        if type(values) is list and any(type(value) in (dict, list) for value in values):
            raise self._refusal("Complex types in 'enum' are not supported")

    def _check_type(self, node: JSON, kind: str) -> None:
        refused = sorted(_REFUSED.get(kind, frozenset()).intersection(node))
        if len(refused) == 1:
            raise self._refusal(f"For '{kind}' type, property '{refused[0]}' is not supported")
        if refused:
            names = ", ".join(refused)
            raise self._refusal(f"For '{kind}' type, properties {names} are not supported")
        if kind == "array" and node.get("minItems", 0) not in (0, 1):
            raise self._refusal(
                "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
            )
        if kind == "string":
            self._check_string(node.get("format"), node.get("pattern"))
        if kind == "object":
            self._check_object(node)

    def _check_string(self, text_format: Any, pattern: Any) -> None:
        if type(text_format) is str and text_format not in _FORMATS:
            raise self._refusal(f"For 'string' type, format '{text_format}' is not supported")
        if type(pattern) is str and _PATTERN.search(pattern):
            raise self._refusal(f"For 'string' type, pattern '{pattern}' is not supported")

    def _check_object(self, node: JSON) -> None:
        additional = node.get("additionalProperties")
        if additional is None:
            raise self._refusal(
                "For 'object' type, 'additionalProperties' must be explicitly set to false"
            )
        if additional is not False:
            value = "true" if additional is True else "object"
            raise self._refusal(
                f"For 'object' type, 'additionalProperties: {value}' is not supported. Please set "
                "'additionalProperties' to false"
            )
        properties, required = node.get("properties"), node.get("required")
        if type(properties) is dict:
            needed = required if type(required) is list else []
            self.optional += sum(name not in needed for name in properties)

    def _check_acyclic(self, node: Any, path: tuple[str, ...]) -> None:
        """Check that no definition refers to itself, which would make an endless grammar."""
        if type(node) is not dict:
            return
        reference = node.get("$ref")
        if type(reference) is str and reference not in self._followed:
            if reference in path or reference == "#":
                raise self._refusal(f"Recursive schemas are not supported: '{reference}'")
            self._check_acyclic(self._find(reference), (*path, reference))
            self._followed.add(reference)
        for inner in _subschemas(node, _MAPS[:1]):
            self._check_acyclic(inner, path)

    def _find(self, reference: str) -> Any:
        found: Any = self._root
        for part in reference.removeprefix("#/").split("/"):
            found = found.get(part) if type(found) is dict else None
        return found


def _subschemas(node: JSON, maps: tuple[str, ...] = _MAPS) -> list[Any]:
    """The schemas directly within a schema."""
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

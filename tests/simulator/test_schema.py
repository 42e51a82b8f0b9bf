"""A schema that the real API has no grammar for is refused in the same words."""

import time
from typing import Any

import pytest

from relay.simulator import strict
from relay.simulator.refusal import Refusal
from relay.simulator.seal import Seal

from .samples import JSON, WEATHER, plain

SEAL = Seal("test")
AT = "output_config.format.schema: "


def closed(properties: JSON, **more: Any) -> JSON:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


def one(**schema: Any) -> JSON:
    return closed({"it": schema})


def structured(schema: JSON) -> JSON:
    return plain(output_config={"format": {"type": "json_schema", "schema": schema}})


def strict_tool(schema: JSON, name: str = "x") -> JSON:
    return {"name": name, "strict": True, "input_schema": schema}


def refused(request: JSON) -> str:
    with pytest.raises(Refusal) as caught:
        strict.check(request, frozenset(), SEAL)
    assert caught.value.status == 400
    return caught.value.message


TEXT = {"type": "string"}
NUMBER = {"type": "number"}
NODE = closed({"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}})

# Sources: Anthropic documentation, Structured outputs; issues that quote answers of the API.
REFUSED: dict[str, tuple[JSON, str]] = {
    "bounds": (
        one(type="integer", minimum=1, maximum=10),
        "For 'integer' type, properties maximum, minimum are not supported",
    ),
    "one bound": (
        one(type="number", multipleOf=0.5),
        "For 'number' type, property 'multipleOf' is not supported",
    ),
    "bounds of a nullable number": (
        one(type=["number", "null"], exclusiveMinimum=0),
        "For 'number' type, property 'exclusiveMinimum' is not supported",
    ),
    "length": (
        one(type="string", maxLength=9),
        "For 'string' type, property 'maxLength' is not supported",
    ),
    "format": (
        one(type="string", format="phone"),
        "For 'string' type, format 'phone' is not supported",
    ),
    "look-ahead": (one(type="string", pattern="^(?!x)"), "For 'string' type, pattern"),
    "word boundary": (one(type="string", pattern=r"\bx"), "For 'string' type, pattern"),
    "many items": (
        one(type="array", items=TEXT, maxItems=5),
        "For 'array' type, property 'maxItems' is not supported",
    ),
    "two items at least": (
        one(type="array", items=TEXT, minItems=2),
        "For 'array' type, 'minItems' values other than 0 or 1 are not supported",
    ),
    "few properties": (
        closed({}, minProperties=1),
        "For 'object' type, property 'minProperties' is not supported",
    ),
    "open object": (
        one(type="object"),
        "For 'object' type, 'additionalProperties' must be explicitly set to false",
    ),
    "object that says it is open": (
        closed({}, additionalProperties=True),
        "For 'object' type, 'additionalProperties: true' is not supported. Please set "
        "'additionalProperties' to false",
    ),
    "map": (
        closed({}, additionalProperties=TEXT),
        "For 'object' type, 'additionalProperties: object' is not supported.",
    ),
    "oneOf": (one(oneOf=[TEXT, NUMBER]), "Schema type 'oneOf' is not supported"),
    "complex enum": (one(enum=["x", {"a": 1}]), "Complex types in 'enum'"),
    "elsewhere": (one(**{"$ref": "https://x.example/s"}), "External $ref"),
    "allOf a definition": (
        closed({"it": {"allOf": [{"$ref": "#/$defs/A"}]}}, **{"$defs": {"A": TEXT}}),
        "'allOf' with '$ref' is not supported",
    ),
    "circle": (
        closed({"it": {"$ref": "#/$defs/Node"}}, **{"$defs": {"Node": NODE}}),
        "Recursive schemas are not supported",
    ),
    "circle at the root": (one(**{"$ref": "#"}), "Recursive schemas are not supported"),
    "deep inside": (
        one(type="array", items={"anyOf": [TEXT, {"type": "string", "minLength": 1}]}),
        "For 'string' type, property 'minLength' is not supported",
    ),
    "in a definition": (
        closed({}, **{"$defs": {"A": {"type": "integer", "minimum": 1}}}),
        "For 'integer' type, property 'minimum' is not supported",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_without_a_grammar_is_refused(name: str) -> None:
    schema, words = REFUSED[name]
    assert refused(structured(schema)).startswith(AT + words)


@pytest.mark.parametrize("name", REFUSED)
def test_a_strict_tool_has_the_same_rules(name: str) -> None:
    schema, words = REFUSED[name]
    tool = strict_tool(closed({"it": schema}, **{"$defs": schema.get("$defs", {})}))
    assert refused(plain(tools=[tool])).startswith("tools.0.custom: " + words)


TAKEN: dict[str, JSON] = {
    "annotations": one(type="string", title="T", description="d", default="x", examples=["x"]),
    "properties named like keywords": closed({"minimum": TEXT, "oneOf": TEXT, "format": NUMBER}),
    "formats": one(type="string", format="date-time"),
    "a plain pattern": one(type="string", pattern=r"^[a-z]+\d{2,3}$"),
    "one item at least": one(type="array", items=TEXT, minItems=1),
    "choices": one(anyOf=[{"type": "string", "enum": ["a", None]}, {"type": "null"}]),
    "a definition used twice": closed(
        {"a": {"$ref": "#/$defs/A"}, "b": {"$ref": "#/$defs/A"}}, **{"$defs": {"A": TEXT}}
    ),
    "a list at the root": {"type": "array", "items": TEXT},
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_schema_with_a_grammar_is_accepted(name: str) -> None:
    strict.check(structured(TAKEN[name]), frozenset(), SEAL)


def test_a_tool_that_is_not_strict_has_no_such_rules() -> None:
    strict.check(plain(tools=[WEATHER]), frozenset(), SEAL)


@pytest.mark.parametrize("tools", [False, True])
def test_the_size_of_a_grammar_is_limited(tools: bool) -> None:
    def request_with(schema: JSON) -> JSON:
        return plain(tools=[strict_tool(schema)]) if tools else structured(schema)

    many = {f"p{number}": TEXT for number in range(25)}
    strict.check(request_with(closed(many, required=["p0"])), frozenset(), SEAL)
    assert "too many optional parameters (25)" in refused(request_with(closed(many, required=[])))
    unions = {f"p{number}": {"type": ["string", "null"]} for number in range(17)}
    assert "(17 parameters with type arrays or anyOf)" in refused(request_with(closed(unions)))


def test_twenty_tools_may_be_strict() -> None:
    tools = [strict_tool(closed({}), f"x{number}") for number in range(21)]
    strict.check(plain(tools=tools[1:]), frozenset(), SEAL)
    assert refused(plain(tools=tools)).startswith("Too many strict tools (21).")


def test_definitions_that_fan_out_are_checked_once() -> None:
    leaf = {"D0": TEXT}
    fan = {
        f"D{number}": {"anyOf": [{"$ref": f"#/$defs/D{number - 1}"}] * 2} for number in range(1, 17)
    }
    start = time.process_time()
    strict.check(
        structured(one(**{"$ref": "#/$defs/D16"}) | {"$defs": leaf | fan}), frozenset(), SEAL
    )
    assert time.process_time() - start < 1

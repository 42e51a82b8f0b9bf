"""A JSON schema is written as the API accepts it, or not at all."""

import json
from typing import Any

import pytest

from relay.translate.request.json_schema import constrain

Schema = dict[str, Any]
CLOSED: Schema = {"type": "object", "properties": {}, "additionalProperties": False}
STRING: Schema = {"type": "string"}


def constrained(schema: Schema) -> Schema | None:
    octets = constrain(json.dumps(schema).encode())
    if octets is None:
        return None
    document: Schema = json.loads(octets)
    return document


def nested(depth: int) -> Schema:
    schema: Schema = dict(STRING)
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def test_a_schema_that_the_api_accepts_stays_as_it_came() -> None:
    octets = b'{ "type":"object", "additionalProperties" : false,"properties":{"a":{"enum":[1.0]}}}'
    assert constrain(octets) is octets


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        pytest.param({"properties": {}}, CLOSED | {"type": None}, id="no type"),
        pytest.param({"type": ["object", "null"]}, {"type": ["object", "null"]}, id="a list"),
    ],
)
def test_an_object_is_closed(schema: Schema, expected: Schema) -> None:
    closed = {name: value for name, value in expected.items() if value is not None}
    assert constrained(schema) == closed | {"additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        pytest.param(
            {"oneOf": [STRING, {"type": "null"}]},
            {"anyOf": [STRING, {"type": "null"}]},
            id="oneOf",
        ),
        pytest.param(
            {"description": "D", "allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": STRING}},
            {"description": "D", "$ref": "#/$defs/a", "$defs": {"a": STRING}},
            id="an allOf of one",
        ),
        pytest.param(
            {"items": [STRING, {"properties": {}}]},
            {"items": [STRING, {"properties": {}, "additionalProperties": False}]},
            id="items that are a list",
        ),
    ],
)
def test_a_keyword_is_replaced_by_one_of_the_same_meaning(schema: Schema, expected: Schema) -> None:
    assert constrained(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"items": True}, id="a boolean schema"),
        pytest.param({"allOf": [STRING, True]}, id="an allOf of two"),
        pytest.param({"allOf": {}}, id="an allOf that is no list"),
        pytest.param({"enum": "no list"}, id="an enum that is no list"),
        pytest.param({"minItems": 1}, id="minItems of one"),
        pytest.param({"format": "date"}, id="a known format"),
        pytest.param({"pattern": "^a+$"}, id="a plain pattern"),
        pytest.param({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": STRING}}, id="a chain"),
        pytest.param({"$defs": [], "a": {"$ref": "#/x"}}, id="definitions that are no object"),
    ],
)
def test_other_keywords_stay(schema: Schema) -> None:
    assert constrained(schema) == schema


@pytest.mark.parametrize(
    ("member", "constraint"),
    [
        pytest.param({"minimum": 1}, "minimum: 1", id="inexpressible"),
        pytest.param({"minItems": 2}, "minItems: 2", id="minItems of two"),
        pytest.param({"enum": [{}]}, "enum: [{}]", id="an enum of objects"),
        pytest.param({"format": "phone"}, 'format: "phone"', id="an unknown format"),
        pytest.param({"format": 7}, "format: 7", id="a format that is no text"),
        pytest.param({"pattern": "a(?=b)"}, 'pattern: "a(?=b)"', id="look-ahead"),
        pytest.param({"pattern": 7}, "pattern: 7", id="a pattern that is no text"),
        pytest.param(
            {"anyOf": [STRING], "oneOf": [STRING]}, 'oneOf: [{"type": "string"}]', id="oneOf"
        ),
        pytest.param({"anyOf": [], "oneOf": 7}, "oneOf: 7", id="a oneOf that is no list"),
    ],
)
@pytest.mark.parametrize("description", [None, "D", 7, ""])
def test_what_a_grammar_cannot_express_goes_into_the_description(
    member: Schema, constraint: str, description: object
) -> None:
    schema = member if description is None else {"description": description, **member}
    document = constrained(schema)
    assert document is not None
    before = "D\n\n" if description == "D" else ""
    assert document["description"] == f"{before}Must hold: {constraint}"


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"additionalProperties": True}, id="any members"),
        pytest.param({"additionalProperties": STRING}, id="members of a type"),
        pytest.param({"properties": {"a": {"$ref": "#"}}}, id="within itself"),
        pytest.param({"$ref": "https://example.com/a"}, id="a schema elsewhere"),
        pytest.param({"$ref": 7}, id="a reference that is no text"),
        pytest.param(
            {"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}},
            id="a circle of definitions",
        ),
        pytest.param({"allOf": [STRING, {"$ref": "#/$defs/a"}]}, id="a reference among several"),
        pytest.param({"type": "string", "allOf": [STRING]}, id="a member that is given twice"),
        pytest.param(nested(61), id="too deep"),
        pytest.param({"description": "x" * 70_000}, id="too long"),
    ],
)
def test_a_schema_without_a_grammar_is_not_used(schema: Schema) -> None:
    assert constrained(schema) is None


@pytest.mark.parametrize("octets", [b"{", b'{"type":"\xff"}', b'{"properties":{"a":}}'])
def test_octets_that_are_no_schema_are_not_used(octets: bytes) -> None:
    assert constrain(octets) is None


def test_a_schema_may_be_as_deep_as_real_ones() -> None:
    assert constrained(nested(60)) == nested(60)

"""The Open Responses schema (2026-04-24), from a package on PyPI.

It covers functions, messages, reasoning and compaction. Everything else is held to the types of
the OpenAI SDK.
"""

import functools
import importlib.resources
import json
from typing import Any

from jsonschema import Draft202012Validator

_ITEMS = {"message", "function_call", "function_call_output", "reasoning", "compaction"}


@functools.cache
def _document() -> dict[str, Any]:
    text = importlib.resources.files("llm_comply").joinpath("specs/openresponses.json").read_text()
    document: dict[str, Any] = json.loads(text)
    assert document["info"]["version"] == "2026-04-24"
    return document


@functools.cache
def _validator(name: str) -> Draft202012Validator:
    components = _document()["components"]
    schema = {"$ref": f"#/components/schemas/{name}", "components": components}
    return Draft202012Validator(schema)


@functools.cache
def _events() -> dict[str, str]:
    """The schema of each type of event."""
    names = {}
    for name, schema in _document()["components"]["schemas"].items():
        if name.endswith("StreamingEvent"):
            (event_type,) = schema["properties"]["type"]["enum"]
            names[event_type] = name
    return names


def validate(name: str, document: Any) -> None:
    """Hold a document to the schema of this name."""
    errors = sorted(_validator(name).iter_errors(document), key=str)
    assert not errors, f"{errors[0].json_path}: {errors[0].message}"


def validate_event(event: dict[str, Any]) -> bool:
    """Hold an event to its schema, if the schema covers it and its items; whether it does."""
    name = _events().get(event["type"])
    if name is None or not _known(event.get("item")):
        return False
    if "response" in event and not all(map(_known, event["response"]["output"])):
        return False
    validate(name, event)
    return True


def _known(item: dict[str, Any] | None) -> bool:
    return item is None or item["type"] in _ITEMS

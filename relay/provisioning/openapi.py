"""The description of the API: OpenAPI 3.1, written from the table of routes.

The paths under /v1 that callers use are described, too; their bodies are those of the vendors'
APIs, so their description is loose. Must not know requests.
"""

import re
from functools import lru_cache
from typing import Any, Final

import msgspec

from relay import __version__
from relay.accounts.admin_keys import SCOPES
from relay.provisioning.call import Nothing
from relay.provisioning.routes import ROUTES, Route

_PARTS: Final = re.compile(r"\{(\w+)\}")
_REF: Final = "#/components/schemas/{name}"
_OBJECT: Final = {"type": "object", "additionalProperties": True}
# Octets that are no HTTP request are refused before a path is known, in the shape of /v1.
_PROBLEMS: Final = {
    "description": "An error",
    "content": {
        "application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}},
        "application/json": {"schema": _OBJECT},
    },
}
_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, and what to do."},
        "request_id": {"type": "string"},
    },
}
# The paths that callers use: method, path, what it does, and whether it is a stream if asked for.
_PUBLIC: Final = (
    ("post", "/v1/messages", "Create a message (Messages API).", True),
    ("post", "/v1/messages/count_tokens", "Count the tokens of a message.", False),
    ("post", "/v1/chat/completions", "Create a chat completion.", True),
    ("post", "/v1/responses", "Create a response (Responses API).", True),
    ("post", "/v1/responses/compact", "Compact a conversation.", False),
    ("post", "/v1/responses/input_tokens", "Count the tokens of a response's input.", False),
    ("get", "/v1/responses/{id}", "Show a stored response.", False),
    ("delete", "/v1/responses/{id}", "Delete a stored response.", False),
    ("get", "/v1/models", "List the models.", False),
    ("get", "/v1/models/{id}", "Show a model.", False),
)


@lru_cache(maxsize=4)
def document(public_url: str) -> bytes:
    """The description of a relay that people reach at `public_url`."""
    types = [
        one
        for route in ROUTES
        for one in (route.answer, route.query, route.body)
        if one is not None
    ]
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, components)
    for method, path, summary, streams in _PUBLIC:
        paths.setdefault(path, {})[method] = _public_operation(method, path, summary, streams)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Relay",
                "version": __version__,
                "description": "The API for callers (/v1), and for provisioning (/api/v1).",
            },
            "servers": [{"url": public_url}],
            "paths": paths,
            "components": {
                "schemas": {**components, "Problem": _PROBLEM},
                "securitySchemes": {
                    "admin_key": {
                        "type": "http",
                        "scheme": "bearer",
                        "description": "`relay admin-key create`; scopes: " + ", ".join(SCOPES),
                    },
                    "key": {"type": "http", "scheme": "bearer", "description": "A caller's key."},
                },
            },
        }
    )


def _operation(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    summary = (route.endpoint.__doc__ or "").splitlines()[0]
    operation: dict[str, Any] = {
        "operationId": route.endpoint.__module__.rpartition(".")[2] + "_" + route.endpoint.__name__,
        "summary": summary,
        "description": f"Scope: {route.scope}.",
        "tags": [route.scope.partition(":")[0]],
        "security": [{"admin_key": []}],
        "parameters": [*_path_parameters(route.path), *_query_parameters(route, components)],
        "responses": {
            str(route.status): _content("application/json", _schema(route.answer)),
            "default": _PROBLEMS,
        },
    }
    if route.method == "POST":
        operation["parameters"].append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
            }
        )
    if route.body is not None:
        content = {"application/json": {"schema": _schema(route.body)}}
        operation["requestBody"] = {"required": route.body is not Nothing, "content": content}
    return operation


def _schema(type: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([type], ref_template=_REF)
    return schema


def _content(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "", "content": {kind: {"schema": schema}}}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": 200},
        }
        for name in _PARTS.findall(path)
    ]


def _query_parameters(route: Route, components: dict[str, Any]) -> list[dict[str, Any]]:
    schema = components[route.query.__name__]
    return [
        {"name": name, "in": "query", "required": False, "schema": one}
        for name, one in schema["properties"].items()
    ]


def _public_operation(method: str, path: str, summary: str, streams: bool) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _OBJECT}}
    if streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    operation: dict[str, Any] = {
        "operationId": f"{method}_{path.strip('/').replace('/', '_')}",
        "summary": summary,
        "tags": ["callers"],
        "security": [{"key": []}],
        "parameters": _path_parameters(path),
        "responses": {
            "200": {"description": "", "content": content},
            "default": _content("application/json", _OBJECT),
        },
    }
    if method == "post":
        operation["requestBody"] = {
            "required": True, "content": {"application/json": {"schema": _OBJECT}}
        }  # fmt: skip
    return operation

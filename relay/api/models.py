"""`GET /v1/models` and `/v1/models/{id}`, from relay.toml, in the shape of the caller's API.

Only `anthropic-version` distinguishes the SDKs: both send a Bearer key. Codex sends a
`client_version` and gets its catalogue. Anthropic's shape alone has the twins with the suffix
[1m]: Claude Code and Claude Desktop take a context of a million tokens for granted only by it.

Decides the lists' content and paging. Must not know upstreams or keys.
"""

import re
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import orjson

from relay import config
from relay.api.codex_catalogue import catalogue
from relay.api.model_capabilities import capabilities_of, line_of
from relay.errors import INVALID_REQUEST, MODEL_NOT_FOUND, RelayError

_MAX_PAGE_SIZE: Final = 1000  # models in one answer


class Models:
    """The models of relay.toml, in their order."""

    def __init__(self, models: list[config.ModelSettings]) -> None:
        self._models = models
        self._codex = orjson.dumps(catalogue(models))
        self._names = config.ModelNames(models)
        self._by_id = {model.id: model for model in models}
        self._entries = {entry["id"]: entry for model in models for entry in _anthropic(model)}

    def list(self, query: bytes, anthropic: bool) -> bytes:
        """All models; `limit`, `after_id` and `before_id` page through the Anthropic shape.

        Raises:
            RelayError: 400 for a parameter that cannot be used.
        """
        parameters = parse_qs(query.decode("latin-1"))
        if not anthropic:
            if "client_version" in parameters:
                return self._codex
            return orjson.dumps(
                {"object": "list", "data": [_openai(model) for model in self._models]}
            )
        every = page = list(self._entries.values())
        if after := parameters.get("after_id"):
            page = page[self._index(after[0], "after_id") + 1 :]
        if before := parameters.get("before_id"):
            page = page[: max(0, self._index(before[0], "before_id") - len(every) + len(page))]
        text = parameters.get("limit", ["20"])[0]
        if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= _MAX_PAGE_SIZE:
            raise RelayError(
                INVALID_REQUEST, f"limit: a whole number from 1 to {_MAX_PAGE_SIZE}.", param="limit"
            )
        limit = int(text)
        shown = page[-limit:] if before and not after else page[:limit]
        return orjson.dumps(
            {
                "data": shown,
                "has_more": len(page) > limit,
                "first_id": shown[0]["id"] if shown else None,
                "last_id": shown[-1]["id"] if shown else None,
            }
        )

    def show(self, name: bytes, anthropic: bool) -> bytes:
        """One model, by any name that a request may have; a listed twin as it is listed.

        Raises:
            RelayError: 404 for an unknown model.
        """
        wanted = unquote(name.decode("latin-1"))
        model = self._by_id.get(self._names.model_id(wanted))
        if model is None:
            raise RelayError(
                MODEL_NOT_FOUND,
                f"model: {wanted[:128]!r} is not served here. GET /v1/models lists what is.",
                param="model",
            )
        if not anthropic:
            return orjson.dumps(_openai(model))
        return orjson.dumps(self._entries.get(wanted) or self._entries[model.id])

    def _index(self, name: str, param: str) -> int:
        for index, id in enumerate(self._entries):
            if id == name:
                return index
        raise RelayError(
            INVALID_REQUEST, f"{param}: no model has the id {name[:128]!r}.", param=param
        )


def _served_as(model: config.ModelSettings) -> list[str]:
    """The upstreams' names for the model, so a caller sees which model answers."""
    routes = model.routes or [config.RouteSettings(upstream="")]
    return sorted({route.model or model.id for route in routes})


def _anthropic(model: config.ModelSettings) -> list[dict[str, Any]]:
    """The model, and its twin if there is one."""
    name = model.display_name or model.id
    entry = {
        "type": "model",
        "id": model.id,
        "display_name": name,
        "created_at": f"{model.created}T00:00:00Z",
        "max_input_tokens": model.context_window,
        "max_tokens": model.max_output_tokens,
        "capabilities": capabilities_of(model),
        "line": line_of(model),
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "served_as": _served_as(model),
    }
    if not model.list_1m:
        return [entry]
    twin = {"id": model.id + config.SUFFIX_1M, "display_name": f"{name} (1M context)"}
    return [entry, {**entry, **twin}]


def _openai(model: config.ModelSettings) -> dict[str, Any]:
    created = datetime.fromisoformat(model.created).replace(tzinfo=UTC)
    return {
        "id": model.id,
        "object": "model",
        "created": int(created.timestamp()),
        "owned_by": "relay",
        "context_window": model.context_window,
        "max_output_tokens": model.max_output_tokens,
        "served_as": _served_as(model),
    }

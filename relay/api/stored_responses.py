"""The endpoints of stored responses: show, list the input, delete, cancel.

Decides the answer for a stored response and for a missing one. Whether and where responses are
stored is the operator's choice (`[responses]` in relay.toml). Must not know connections or keys.
"""

import json
import re
from time import time
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from relay.errors import INVALID_REQUEST, OVERLOADED, RESPONSE_NOT_FOUND, RelayError
from relay.gateway.history import BUSY, NOTHING_KEPT
from relay.store.database import StoreError
from relay.store.responses import ResponseStore, StoredResponse

_MAX_PAGE_SIZE: Final = 100  # items in one answer


class _Identified(msgspec.Struct, frozen=True, gc=False):
    id: str | None = None


_decode_id: Final = msgspec.json.Decoder(_Identified).decode


class StoredResponses:
    """Answers from the store; without one, every response is missing."""

    def __init__(self, store: ResponseStore | None) -> None:
        self._store = store

    async def show(self, owner: str, id: str, query: bytes) -> bytes:
        """`GET /v1/responses/{id}`.

        Raises:
            RelayError: 404 for a missing response, 400 for a stream of it, 503 without the
                database.
        """
        if parse_qs(query.decode("latin-1")).get("stream") == ["true"]:
            raise RelayError(
                INVALID_REQUEST, "stream: stored responses cannot be streamed; omit it.",
                param="stream",
            )  # fmt: skip
        return (await self._find(owner, id)).answer

    async def delete(self, owner: str, id: str) -> bytes:
        """`DELETE /v1/responses/{id}`.

        Raises:
            RelayError: 404 for a missing response, 503 without the database.
        """
        if self._store is None:
            raise self._not_found_error(id)
        try:
            deleted = await self._store.delete(owner, id)
        except StoreError:
            raise RelayError(OVERLOADED, BUSY) from None
        if not deleted:
            raise self._not_found_error(id)
        return msgspec.json.encode({"id": id, "object": "response", "deleted": True})

    async def cancel(self, owner: str, id: str) -> bytes:
        """`POST /v1/responses/{id}/cancel`.

        Raises:
            RelayError: always. 404 for a missing response, 400 for a completed one, 503 without
                the database.
        """
        await self._find(owner, id)
        raise RelayError(
            INVALID_REQUEST,
            "Only a response that is made in the background can be cancelled, and none is here: "
            "to end one, close its connection.",
        )

    async def input_items(self, owner: str, id: str, query: bytes) -> bytes:
        """`GET /v1/responses/{id}/input_items`.

        Raises:
            RelayError: 404 for a missing response, 400 for a parameter that cannot be used, 503
                without the database.
        """
        parameters = parse_qs(query.decode("latin-1"))
        order = parameters.get("order", ["desc"])[0]
        if order not in ("asc", "desc"):
            raise RelayError(INVALID_REQUEST, "order: it must be asc or desc.", param="order")
        text = parameters.get("limit", ["20"])[0]
        if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= _MAX_PAGE_SIZE:
            raise RelayError(
                INVALID_REQUEST, f"limit: a whole number from 1 to {_MAX_PAGE_SIZE}.", param="limit"
            )
        limit = int(text)
        stored = await self._find(owner, id)
        indexes = list(range(len(stored.input)))
        if order == "desc":
            indexes.reverse()
        if after := parameters.get("after"):
            place = _place(stored, after[0], indexes)
            if place is None:
                raise RelayError(
                    INVALID_REQUEST, f"after: no item has the id {after[0][:80]!r}.", param="after"
                )
            indexes = indexes[place + 1 :]
        # Only the page is decoded: a response may have very many items.
        shown = [_listed_item(stored.input[at], stored.id, at) for at in indexes[:limit]]
        return _render(
            {
                "object": "list",
                "data": shown,
                "first_id": shown[0]["id"] if shown else None,
                "last_id": shown[-1]["id"] if shown else None,
                "has_more": len(indexes) > limit,
            }
        )

    async def _find(self, owner: str, id: str) -> StoredResponse:
        stored = None
        if self._store is not None:
            try:
                stored = await self._store.get(owner, id, time())
            except StoreError:
                raise RelayError(OVERLOADED, BUSY) from None
        if stored is None:
            raise self._not_found_error(id)
        return stored

    def _not_found_error(self, id: str) -> RelayError:
        message = f"No response with the id {id[:80]!r} is kept here for this account."
        if self._store is None:
            message = f"{NOTHING_KEPT}: a response is there for its one request."
        return RelayError(RESPONSE_NOT_FOUND, message)


def _render(page: dict[str, Any]) -> bytes:
    return json.dumps(page).encode()


def _place(stored: StoredResponse, id: str, indexes: list[int]) -> int | None:
    """Where in `indexes` the first item with an id is; None if there is none."""
    for place, index in enumerate(indexes):
        own = _own_id(stored.input[index])
        if (_default_id(stored.id, index) if own is None else own) == id:
            return place
    return None


def _own_id(octets: bytes) -> str | None:
    if b'id"' not in octets and b"\\u" not in octets:
        return None
    try:
        return _decode_id(octets).id
    except (msgspec.MsgspecError, ValueError):  # no text, or a lone surrogate
        id = json.loads(octets).get("id")
        return id if isinstance(id, str) else None


def _default_id(response: str, index: int) -> str:
    return f"in_{response.removeprefix('resp_')}_{index}"


def _listed_item(octets: bytes, response: str, index: int) -> dict[str, Any]:
    """An input item as a list shows it: with all its members, and with a stable id."""
    item: dict[str, Any] = json.loads(octets)  # unlike orjson, it accepts a lone surrogate
    content = item.get("content")
    if isinstance(content, str):
        kind = "output_text" if item.get("role") == "assistant" else "input_text"
        item["content"] = [{"type": kind, "text": content}]
    if not isinstance(item.get("id"), str):
        item["id"] = _default_id(response, index)
    item.setdefault("type", "message")
    if item["type"] == "message":
        item.setdefault("status", "completed")
    return item

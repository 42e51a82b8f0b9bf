"""The endpoints of kept responses: show, list the input of, delete, cancel.

Decides the answer for a response that is kept and for one that is not. Whether any are kept, and
where, is the operator's choice (`[responses]` in relay.toml).
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

_MAX_ITEMS: Final = 100  # items of a list


class StoredResponses:
    """The kept responses, if any are kept."""

    def __init__(self, store: ResponseStore | None) -> None:
        self._store = store

    async def show(self, owner: str, id: str, query: bytes) -> bytes:
        """`GET /v1/responses/{id}`.

        Raises:
            RelayError: 404, it is not here; 400, it cannot be had like that.
        """
        if parse_qs(query.decode("latin-1")).get("stream") == ["true"]:
            raise RelayError(
                INVALID_REQUEST, "stream: what is kept comes as a whole; leave it out.",
                param="stream",
            )  # fmt: skip
        return (await self._find(owner, id)).answer

    async def delete(self, owner: str, id: str) -> bytes:
        """`DELETE /v1/responses/{id}`.

        Raises:
            RelayError: 404, it is not here.
        """
        if self._store is None:
            raise self._not_found(id)
        try:
            gone = await self._store.delete(owner, id)
        except StoreError:
            raise RelayError(OVERLOADED, BUSY) from None
        if not gone:
            raise self._not_found(id)
        return msgspec.json.encode({"id": id, "object": "response", "deleted": True})

    async def cancel(self, owner: str, id: str) -> bytes:
        """`POST /v1/responses/{id}/cancel`.

        Raises:
            RelayError: always: 404, it is not here; 400, it is over.
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
            RelayError: 404, it is not here; 400, a parameter cannot be used.
        """
        asked = parse_qs(query.decode("latin-1"))
        order = asked.get("order", ["desc"])[0]
        if order not in ("asc", "desc"):
            raise RelayError(INVALID_REQUEST, "order: it must be asc or desc.", param="order")
        text = asked.get("limit", ["20"])[0]
        if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= _MAX_ITEMS:
            raise RelayError(
                INVALID_REQUEST, f"limit: a whole number from 1 to {_MAX_ITEMS}.", param="limit"
            )
        limit = int(text)
        kept = await self._find(owner, id)
        items = [_identified(item, kept.id, number) for number, item in enumerate(kept.input)]
        if order == "desc":
            items.reverse()
        if after := asked.get("after"):
            ids = [item["id"] for item in items]
            if after[0] not in ids:
                raise RelayError(
                    INVALID_REQUEST, f"after: no item has the id {after[0][:80]!r}.", param="after"
                )
            items = items[ids.index(after[0]) + 1 :]
        shown = items[:limit]
        return _listed(
            {
                "object": "list",
                "data": shown,
                "first_id": shown[0]["id"] if shown else None,
                "last_id": shown[-1]["id"] if shown else None,
                "has_more": len(items) > limit,
            }
        )

    async def _find(self, owner: str, id: str) -> StoredResponse:
        kept = None
        if self._store is not None:
            try:
                kept = await self._store.get(owner, id, time())
            except StoreError:
                raise RelayError(OVERLOADED, BUSY) from None
        if kept is None:
            raise self._not_found(id)
        return kept

    def _not_found(self, id: str) -> RelayError:
        why = f"No response with the id {id[:80]!r} is kept here for this account."
        if self._store is None:
            why = f"{NOTHING_KEPT}: a response is there for its one request."
        return RelayError(RESPONSE_NOT_FOUND, why)


def _listed(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode()


def _identified(item: bytes, response: str, number: int) -> dict[str, Any]:
    """An item as a list shows it: whole, and with an id that stays the same."""
    told: dict[str, Any] = json.loads(item)  # which takes half a character, too
    content = told.get("content")
    if isinstance(content, str):
        kind = "output_text" if told.get("role") == "assistant" else "input_text"
        told["content"] = [{"type": kind, "text": content}]
    if not isinstance(told.get("id"), str):
        told["id"] = f"in_{response.removeprefix('resp_')}_{number}"
    told.setdefault("type", "message")
    if told["type"] == "message":
        told.setdefault("status", "completed")
    return told

"""Responses that are kept, as callers ask for them.

Decides what callers are told of those that are there and of those that are not. Whether any are
kept, and where, is the operator's choice (`[responses]` in relay.toml); without it nothing is,
and nobody is left to believe that something were.
"""

import json
import re
from collections.abc import Sequence
from time import time
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from relay.errors import INVALID_REQUEST, OVERLOADED, Kind, RelayError
from relay.store.database import StoreError
from relay.store.responses import ResponseStore, StoredResponse

PREVIOUS_NOT_FOUND: Final = Kind(
    400, "invalid_request_error", "invalid_request_error", "previous_response_not_found"
)
RESPONSE_NOT_FOUND: Final = Kind(
    404, "not_found_error", "invalid_request_error", "response_not_found"
)

_OFF: Final = "This relay keeps no responses"
_WHOLE_INPUT: Final = "Send the whole conversation as input, and store: false."
_BUSY: Final = "Kept responses cannot be used now. Try again in a moment."
_MOST: Final = 100  # items of a list


class StoredResponses:
    """What is kept, if anything is."""

    def __init__(self, shelf: ResponseStore | None) -> None:
        self._shelf = shelf

    @property
    def on(self) -> bool:
        """Whether responses are kept."""
        return self._shelf is not None

    async def before(self, owner: str, id: str) -> list[msgspec.Raw]:
        """The conversation up to a response, the oldest item first.

        Raises:
            RelayError: 400, it is not here, or not all of it.
        """
        items = None
        if self._shelf is not None:
            try:
                items = await self._shelf.conversation(owner, id, time())
            except StoreError:
                raise RelayError(OVERLOADED, _BUSY) from None
        if items is None:
            why = f"no response with the id {id[:80]!r} is kept here any more, or not all before it"
            if self._shelf is None:
                why = f"{_OFF[0].lower()}{_OFF[1:]}, so there is nothing to go on from"
            raise RelayError(
                PREVIOUS_NOT_FOUND,
                f"previous_response_id: {why}. {_WHOLE_INPUT}",
                param="previous_response_id",
            )
        return [msgspec.Raw(item) for item in items]

    async def keep(
        self,
        id: str,
        owner: str,
        previous: str | None,
        answer: bytes,
        given: Sequence[msgspec.Raw],
        output: Sequence[bytes],
    ) -> None:
        """Keep a response, with the items that it answers and its own.

        Raises:
            RelayError: 503, it cannot be kept.
        """
        assert self._shelf is not None
        now = time()
        kept = StoredResponse(
            id, owner, previous, now, answer, [bytes(item) for item in given], [*output]
        )
        try:
            await self._shelf.put(kept, now)
        except StoreError:
            told = "The response cannot be kept now. Try again in a moment, or with store: false."
            raise RelayError(OVERLOADED, told) from None

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
        if self._shelf is None:
            raise self._not_found(id)
        try:
            gone = await self._shelf.delete(owner, id)
        except StoreError:
            raise RelayError(OVERLOADED, _BUSY) from None
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
        if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= _MOST:
            raise RelayError(
                INVALID_REQUEST, f"limit: a whole number from 1 to {_MOST}.", param="limit"
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
        if self._shelf is not None:
            try:
                kept = await self._shelf.get(owner, id, time())
            except StoreError:
                raise RelayError(OVERLOADED, _BUSY) from None
        if kept is None:
            raise self._not_found(id)
        return kept

    def _not_found(self, id: str) -> RelayError:
        why = f"No response with the id {id[:80]!r} is kept here for this account."
        if self._shelf is None:
            why = f"{_OFF}: a response is there for its one request."
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

"""Conversations that go on from a kept response, and the responses that are kept for that.

Whether any are kept, and where, is the operator's choice (`[responses]` in relay.toml). Without
it nothing is kept, and every caller that relies on it gets an error.
"""

from collections.abc import Sequence
from time import time
from typing import Final

import msgspec

from relay.errors import OVERLOADED, PREVIOUS_NOT_FOUND, RelayError
from relay.store.database import StoreError
from relay.store.responses import ResponseStore, StoredResponse
from relay.translate.responses.answer import ItemPlace, item_id, place_of_item

NOTHING_KEPT: Final = "This relay keeps no responses"
BUSY: Final = "Kept responses cannot be used now. Try again in a moment."
_MAX_REFERRED: Final = 256  # responses whose items one request refers to
_WHOLE_INPUT: Final = "Send the whole conversation as input, and store: false."


class ConversationHistory:
    """The kept conversations, if any are kept."""

    def __init__(self, store: ResponseStore | None) -> None:
        self._store = store

    def keeps(self, octets: int) -> bool:
        """Whether a conversation of so many octets is kept."""
        return self._store is not None and octets <= self._store.bounds.conversation

    async def conversation_up_to(self, owner: str, id: str) -> list[msgspec.Raw]:
        """The conversation up to and including a response, the oldest item first.

        Raises:
            RelayError: 400, it is not here, or not all of it.
        """
        items = None
        if self._store is not None:
            try:
                items = await self._store.conversation(owner, id, time())
            except StoreError:
                raise RelayError(OVERLOADED, BUSY) from None
        if items is None:
            reason = (
                f"no response with the id {id[:80]!r} is kept here any more, or not all before it, "
                "or the conversation is too long"
            )
            if self._store is None:
                reason = "this relay keeps no responses, so there is nothing to go on from"
            raise RelayError(
                PREVIOUS_NOT_FOUND,
                f"previous_response_id: {reason}. {_WHOLE_INPUT}",
                param="previous_response_id",
            )
        return [msgspec.Raw(item) for item in items]

    async def items(self, owner: str, ids: Sequence[str]) -> dict[str, msgspec.Raw]:
        """Those of the kept items that these ids name, by id.

        Raises:
            RelayError: 503, they cannot be read now.
        """
        if self._store is None:
            return {}
        places: dict[str, list[tuple[str, ItemPlace]]] = {}
        for id in ids:
            if (place := place_of_item(id)) is not None:
                places.setdefault(place.response, []).append((id, place))
        found: dict[str, msgspec.Raw] = {}
        octets = 0
        for response in list(places)[:_MAX_REFERRED]:
            try:
                turn = await self._store.get(owner, response, time())
            except StoreError:
                raise RelayError(OVERLOADED, BUSY) from None
            for id, place in places[response]:
                item = _item_at(turn, place, id) if turn is not None else None
                if item is not None:
                    octets += len(item)
                    if octets > self._store.bounds.conversation:
                        return found
                    found[id] = msgspec.Raw(item)
        return found

    async def keep(self, response: StoredResponse) -> None:
        """Keep a response, with the items that it answers and its own, unless it is too long.

        Raises:
            RelayError: 503, it cannot be kept.
        """
        assert self._store is not None
        try:
            await self._store.put(response, response.created)
        except StoreError:
            reason = "The response cannot be kept now. Try again in a moment, or with store: false."
            raise RelayError(OVERLOADED, reason) from None


def _item_at(turn: StoredResponse, place: ItemPlace, id: str) -> bytes | None:
    """The item of a turn with this id. Those of its input have the ids that a list of them shows,
    whatever their own."""
    items = turn.input if place.is_input else turn.output
    if place.number >= len(items):
        return None
    item = items[place.number]
    return item if place.is_input or item_id(item) == id else None

"""Responses that the owner keeps in memory, as a worker reads and writes them.

They go over the connections of forwarded requests, not over the link: a conversation may have 32
MB, and admissions would wait behind it.

Decides how they are sent. Must not know what they are kept for.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

import msgspec
from msgspec.msgpack import Decoder

from relay.errors import RelayError
from relay.storage import Storage
from relay.store.database import StoreError
from relay.store.responses import Bounds, MemoryResponseStore, StoredResponse, turn_octets
from relay.workers.inner_server import InnerServer
from relay.workers.owner_connections import OwnerConnections, OwnerGoneError

_PUT: Final = "put response"
_GET: Final = "get response"
_CONVERSATION: Final = "get conversation"
_DELETE: Final = "delete response"
_PRUNE: Final = "prune responses"

T = TypeVar("T")

_encode: Final = msgspec.msgpack.Encoder().encode
_BOOL: Final = Decoder(bool)
_INT: Final = Decoder(int)
_TURN: Final[Decoder[StoredResponse | None]] = Decoder(StoredResponse | None)
_ITEMS: Final[Decoder[list[bytes] | None]] = Decoder(list[bytes] | None)


class RemoteResponseStore:
    """A `ResponseStore`: the owner's. Every method raises StoreError if the owner is gone."""

    def __init__(self, owner: OwnerConnections, bounds: Bounds) -> None:
        self.bounds = bounds
        self._owner = owner

    async def put(self, turn: StoredResponse, now: float) -> bool:
        if turn_octets(turn) > self.bounds.conversation:
            return False
        return await self._ask(_PUT, _BOOL, turn, now)

    async def get(self, owner: str, id: str, now: float) -> StoredResponse | None:
        return await self._ask(_GET, _TURN, owner, id, now)

    async def conversation(self, owner: str, id: str, now: float) -> list[bytes] | None:
        return await self._ask(_CONVERSATION, _ITEMS, owner, id, now)

    async def delete(self, owner: str, id: str) -> bool:
        return await self._ask(_DELETE, _BOOL, owner, id)

    async def prune(self, now: float) -> int:
        return await self._ask(_PRUNE, _INT, now)

    async def _ask(self, name: str, decoder: Decoder[T], *values: object) -> T:
        try:
            result = await self._owner.call(name, _encode(values))
        except OwnerGoneError:
            raise StoreError("responses are kept by a process that is gone") from None
        except RelayError as error:
            raise StoreError(error.message) from None
        return decoder.decode(result)


def share_responses_as_owner(store: MemoryResponseStore, inner: InnerServer) -> None:
    """Let workers use what is kept in this process."""
    _answer(inner, _PUT, store.put, tuple[StoredResponse, float])
    _answer(inner, _GET, store.get, tuple[str, str, float])
    _answer(inner, _CONVERSATION, store.conversation, tuple[str, str, float])
    _answer(inner, _DELETE, store.delete, tuple[str, str])
    _answer(inner, _PRUNE, store.prune, tuple[float])


def share_responses_as_worker(storage: Storage, owner: OwnerConnections) -> Storage:
    """The same storage, with the owner's responses if these are kept in memory."""
    store = storage.responses
    if not isinstance(store, MemoryResponseStore):
        return storage
    return replace(storage, responses=RemoteResponseStore(owner, store.bounds))


def _answer(
    inner: InnerServer, name: str, method: Callable[..., Awaitable[object]], kind: Any
) -> None:
    decode = Decoder(kind).decode

    async def answer(values: bytes) -> bytes:
        return _encode(await method(*decode(values)))

    inner.answer(name, answer)

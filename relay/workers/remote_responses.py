"""Responses that the owner keeps in memory, as a worker reads and writes them.

They go over the connections of forwarded requests, not over the link: a conversation may have 32
MB, and admissions would wait behind it. Its items go one by one, for the same reason: no step of
the loop copies all of it.

Decides how they are sent. Must not know what they are kept for.
"""

from dataclasses import replace
from typing import Final

import msgspec

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

_encode: Final = msgspec.msgpack.Encoder().encode


class _TurnHead(msgspec.Struct, array_like=True, frozen=True):
    """The fields of a turn but its items, which go after it: the answer, the input, the output."""

    id: str
    owner: str
    previous: str | None
    created: float
    inputs: int


_decode_head: Final = msgspec.msgpack.Decoder(_TurnHead).decode
_decode_time: Final = msgspec.msgpack.Decoder(float).decode
_decode_key: Final = msgspec.msgpack.Decoder(tuple[str, str, float]).decode
_decode_flag: Final = msgspec.msgpack.Decoder(bool).decode
_decode_number: Final = msgspec.msgpack.Decoder(int).decode


class RemoteResponseStore:
    """A `ResponseStore`: the owner's. Every method raises StoreError if the owner is gone."""

    def __init__(self, owner: OwnerConnections, bounds: Bounds) -> None:
        self.bounds = bounds
        self._owner = owner

    async def put(self, turn: StoredResponse, now: float) -> bool:
        if turn_octets(turn) > self.bounds.conversation:
            return False
        return _decode_flag((await self._ask(_PUT, _encode(now), *_pieces(turn)))[0])

    async def get(self, owner: str, id: str, now: float) -> StoredResponse | None:
        found = await self._ask(_GET, _encode((owner, id, now)))
        return _turn(found) if found else None

    async def conversation(self, owner: str, id: str, now: float) -> list[bytes] | None:
        is_there, *items = await self._ask(_CONVERSATION, _encode((owner, id, now)))
        return items if _decode_flag(is_there) else None

    async def delete(self, owner: str, id: str) -> bool:
        return _decode_flag((await self._ask(_DELETE, _encode((owner, id, 0.0))))[0])

    async def prune(self, now: float) -> int:
        return _decode_number((await self._ask(_PRUNE, _encode(now)))[0])

    async def _ask(self, name: str, *values: bytes) -> list[bytes]:
        try:
            return await self._owner.call(name, values)
        except OwnerGoneError:
            raise StoreError("responses are kept by a process that is gone") from None
        except RelayError as error:
            raise StoreError(error.message) from None


def share_responses_as_owner(store: MemoryResponseStore, inner: InnerServer) -> None:
    """Let workers use what is kept in this process."""

    async def put(values: list[bytes]) -> list[bytes]:
        return [_encode(await store.put(_turn(values[1:]), _decode_time(values[0])))]

    async def get(values: list[bytes]) -> list[bytes]:
        turn = await store.get(*_decode_key(values[0]))
        return [] if turn is None else _pieces(turn)

    async def conversation(values: list[bytes]) -> list[bytes]:
        items = await store.conversation(*_decode_key(values[0]))
        return [_encode(items is not None), *(items or ())]

    async def delete(values: list[bytes]) -> list[bytes]:
        owner, id, _ = _decode_key(values[0])
        return [_encode(await store.delete(owner, id))]

    async def prune(values: list[bytes]) -> list[bytes]:
        return [_encode(await store.prune(_decode_time(values[0])))]

    inner.answer(_PUT, put)
    inner.answer(_GET, get)
    inner.answer(_CONVERSATION, conversation)
    inner.answer(_DELETE, delete)
    inner.answer(_PRUNE, prune)


def share_responses_as_worker(storage: Storage, owner: OwnerConnections) -> Storage:
    """The same storage, with the owner's responses if these are kept in memory."""
    store = storage.responses
    if not isinstance(store, MemoryResponseStore):
        return storage
    return replace(storage, responses=RemoteResponseStore(owner, store.bounds))


def _pieces(turn: StoredResponse) -> list[bytes]:
    """A turn as values of a call."""
    head = _TurnHead(turn.id, turn.owner, turn.previous, turn.created, len(turn.input))
    return [_encode(head), turn.answer, *turn.input, *turn.output]


def _turn(pieces: list[bytes]) -> StoredResponse:
    """The turn that `_pieces` gave."""
    head, answer, *items = pieces
    of = _decode_head(head)
    fields = (of.id, of.owner, of.previous, of.created)
    return StoredResponse(*fields, answer, items[: of.inputs], items[of.inputs :])

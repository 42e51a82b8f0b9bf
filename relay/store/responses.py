"""Responses kept for later requests of the Responses API: in memory, or encrypted in the database.

Each is one turn of a conversation: its input, its output and the id of the turn before. Both
stores keep the same promises: only the owner can read a turn, no turn outlives its time, and
continuing a conversation renews all its turns. Must not know what the items mean.
"""

import logging
import secrets
import sqlite3
from collections import OrderedDict
from typing import Any, Final, Protocol

import msgspec

from relay.store.database import Database

_MAX_TURNS: Final = 1000  # of a conversation
_NONCE_OCTETS: Final = 12  # random ones have 96 bits (NIST SP 800-38D §8.2.2)
_TURN_OVERHEAD_OCTETS: Final = 1024  # memory for a turn beside its content, about
_ITEM_OVERHEAD_OCTETS: Final = 64

_log = logging.getLogger("relay.store")


class StoredResponse(msgspec.Struct, frozen=True):
    """A turn of a conversation."""

    id: str
    owner: str  # a user's id
    previous: str | None  # the id of the turn before
    created: float  # epoch seconds
    answer: bytes  # JSON
    input: list[bytes]  # JSON of each item
    output: list[bytes]  # JSON of each item


class ResponseStore(Protocol):
    """`now` is in epoch seconds. Every method raises StoreError if a database cannot be used."""

    async def put(self, turn: StoredResponse, now: float) -> None:
        """Keep a turn."""

    async def get(self, owner: str, id: str, now: float) -> StoredResponse | None:
        """The turn; None if this owner has none of that id, or it has expired."""

    async def conversation(self, owner: str, id: str, now: float) -> list[bytes] | None:
        """All items up to this turn's output, oldest first; None if one of its turns is gone."""

    async def delete(self, owner: str, id: str) -> bool:
        """Delete a turn; False if there was none."""

    async def prune(self, now: float) -> int:
        """Delete expired turns; returns how many."""


class MemoryResponseStore:
    """Keeps turns until the process ends, up to `max_octets`: the oldest go first."""

    def __init__(self, lifetime: float, max_octets: int) -> None:
        """`lifetime` is in seconds, counted from a turn's last use."""
        self._lifetime = lifetime
        self._max_octets = max_octets
        self.octets = 0
        # Each turn with the epoch second at which it expires.
        self._turns: OrderedDict[str, tuple[StoredResponse, float]] = OrderedDict()

    async def put(self, turn: StoredResponse, now: float) -> None:
        self._remove(turn.id)
        self._turns[turn.id] = (turn, now + self._lifetime)
        self.octets += _turn_octets(turn)
        while self.octets > self._max_octets:
            self._remove(next(iter(self._turns)))

    async def get(self, owner: str, id: str, now: float) -> StoredResponse | None:
        entry = self._turns.get(id)
        if entry is None or entry[0].owner != owner or entry[1] <= now:
            return None
        return entry[0]

    async def conversation(self, owner: str, id: str, now: float) -> list[bytes] | None:
        turns: list[StoredResponse] = []
        next_id: str | None = id
        while next_id is not None:
            turn = await self.get(owner, next_id, now)
            if turn is None or len(turns) >= _MAX_TURNS:
                return None
            turns.append(turn)
            next_id = turn.previous
        for turn in reversed(turns):
            self._turns[turn.id] = (turn, now + self._lifetime)
            self._turns.move_to_end(turn.id)
        return _items(turns)

    async def delete(self, owner: str, id: str) -> bool:
        entry = self._turns.get(id)
        if entry is None or entry[0].owner != owner:
            return False
        self._remove(id)
        return True

    async def prune(self, now: float) -> int:
        expired = [id for id, (_, expires) in self._turns.items() if expires <= now]
        for id in expired:
            self._remove(id)
        return len(expired)

    def _remove(self, id: str) -> None:
        entry = self._turns.pop(id, None)
        if entry is not None:
            self.octets -= _turn_octets(entry[0])


class DatabaseResponseStore:
    """Keeps turns in the database, each encrypted by itself."""

    def __init__(self, database: Database, key: bytes, lifetime: float) -> None:
        """`key` has 32 octets; `lifetime` is in seconds, counted from a turn's last use."""
        # Imported here: half a megabyte of code that most relays never need.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._database = database
        self._cipher = AESGCM(key)
        self._invalid = InvalidTag
        self._lifetime = lifetime
        self._warned = False

    async def put(self, turn: StoredResponse, now: float) -> None:
        plain = msgspec.msgpack.encode((turn.answer, turn.input, turn.output))

        def work(connection: sqlite3.Connection) -> None:
            nonce = secrets.token_bytes(_NONCE_OCTETS)
            sealed = nonce + self._cipher.encrypt(nonce, plain, _bound_to(turn.owner, turn.id))
            row = (turn.id, turn.owner, turn.previous, turn.created, now + self._lifetime, sealed)
            connection.execute("INSERT OR REPLACE INTO response VALUES (?, ?, ?, ?, ?, ?)", row)

        await self._database.write(work)

    async def get(self, owner: str, id: str, now: float) -> StoredResponse | None:
        # Not a plain `select`: a long turn is decrypted on the thread, too.
        return await self._database.run(lambda connection: self._find(connection, owner, id, now))

    async def conversation(self, owner: str, id: str, now: float) -> list[bytes] | None:
        def work(connection: sqlite3.Connection) -> list[bytes] | None:
            turns: list[StoredResponse] = []
            next_id: str | None = id
            while next_id is not None:
                turn = self._find(connection, owner, next_id, now)
                if turn is None or len(turns) >= _MAX_TURNS:
                    return None
                turns.append(turn)
                next_id = turn.previous
            expires = now + self._lifetime
            connection.executemany(
                "UPDATE response SET expires = ? WHERE id = ?",
                [(expires, turn.id) for turn in turns],
            )
            return _items(turns)

        return await self._database.write(work)

    async def delete(self, owner: str, id: str) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            deleted = connection.execute(
                "DELETE FROM response WHERE id = ? AND owner = ?", (id, owner)
            )
            return deleted.rowcount > 0

        return await self._database.write(work)

    async def prune(self, now: float) -> int:
        def work(connection: sqlite3.Connection) -> int:
            return connection.execute("DELETE FROM response WHERE expires <= ?", (now,)).rowcount

        return await self._database.write(work)

    def _find(
        self, connection: sqlite3.Connection, owner: str, id: str, now: float
    ) -> StoredResponse | None:
        row: tuple[Any, ...] | None = connection.execute(
            "SELECT previous, created, sealed FROM response"
            " WHERE id = ? AND owner = ? AND expires > ?",
            (id, owner, now),
        ).fetchone()
        if row is None:
            return None
        previous, created, sealed = row
        nonce, encrypted = sealed[:_NONCE_OCTETS], sealed[_NONCE_OCTETS:]
        try:
            plain = self._cipher.decrypt(nonce, encrypted, _bound_to(owner, id))
        except self._invalid:
            if not self._warned:
                self._warned = True
                _log.warning(
                    "responses that were kept cannot be decrypted: is responses.key another one?"
                )
            return None
        answer, input_items, output_items = _decode(plain)
        return StoredResponse(id, owner, previous, created, answer, input_items, output_items)


_decode: Final = msgspec.msgpack.Decoder(tuple[bytes, list[bytes], list[bytes]]).decode


def _bound_to(owner: str, id: str) -> bytes:
    """The associated data of a turn's encryption, so that no row can replace another."""
    return f"{owner} {id}".encode()


def _items(turns: list[StoredResponse]) -> list[bytes]:
    """All items in order, of turns that are newest first."""
    return [item for turn in reversed(turns) for item in (*turn.input, *turn.output)]


def _turn_octets(turn: StoredResponse) -> int:
    """The memory that a turn takes, about."""
    parts = (turn.answer, *turn.input, *turn.output)
    return _TURN_OVERHEAD_OCTETS + sum(map(len, parts)) + _ITEM_OVERHEAD_OCTETS * len(parts)

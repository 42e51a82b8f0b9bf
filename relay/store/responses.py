"""Responses that are kept for whoever asked for them: in memory, or encrypted in the database.

Each is one turn: what was asked, what was answered, and the turn that it goes on from. Both
shelves keep the same promises: only its owner finds one, nothing is found past its time, and a
turn that is gone on from lives on with all turns before it. What is in them is not looked at.
"""

import logging
import secrets
import sqlite3
from collections import OrderedDict
from typing import Any, Final, Protocol

import msgspec

from relay.store.database import Database

_LONGEST: Final = 1000  # turns of a conversation
_NONCE: Final = 12  # octets; NIST SP 800-38D §8.2.2: random ones of 96 bits
_OVERHEAD: Final = 1024  # octets that a turn takes beside its content, about

_log = logging.getLogger("relay.store")


class StoredResponse(msgspec.Struct, frozen=True):
    """A turn. `owner` is the id of an account, `created` epoch seconds, the rest JSON."""

    id: str
    owner: str
    previous: str | None
    created: float
    answer: bytes
    input: list[bytes]
    output: list[bytes]


class ResponseStore(Protocol):
    """`now` is in epoch seconds. All raise StoreError where a database cannot be used."""

    async def put(self, kept: StoredResponse, now: float) -> None:
        """Keep a turn."""

    async def get(self, owner: str, id: str, now: float) -> StoredResponse | None:
        """The turn; None: this owner has no such one, or not any more."""

    async def conversation(self, owner: str, id: str, now: float) -> list[bytes] | None:
        """All items up to this turn's output, the oldest first; None: one of its turns is gone."""

    async def delete(self, owner: str, id: str) -> bool:
        """Forget a turn; whether there was one."""

    async def prune(self, now: float) -> int:
        """Forget what is past its time; how many that were."""


class MemoryResponseStore:
    """As long as the process lives, and within so many octets: the oldest turns go first."""

    def __init__(self, life: float, most: int) -> None:
        """`life` in seconds."""
        self._life = life
        self._most = most
        self._size = 0
        self._turns: OrderedDict[str, tuple[StoredResponse, float]] = (
            OrderedDict()
        )  # and until when

    async def put(self, kept: StoredResponse, now: float) -> None:
        self._forget(kept.id)
        self._turns[kept.id] = (kept, now + self._life)
        self._size += _size(kept)
        while self._size > self._most:
            self._forget(next(iter(self._turns)))

    async def get(self, owner: str, id: str, now: float) -> StoredResponse | None:
        found = self._turns.get(id)
        if found is None or found[0].owner != owner or found[1] <= now:
            return None
        return found[0]

    async def conversation(self, owner: str, id: str, now: float) -> list[bytes] | None:
        turns: list[StoredResponse] = []
        wanted: str | None = id
        while wanted is not None:
            kept = await self.get(owner, wanted, now)
            if kept is None or len(turns) >= _LONGEST:
                return None
            turns.append(kept)
            wanted = kept.previous
        for kept in reversed(turns):
            self._turns[kept.id] = (kept, now + self._life)
            self._turns.move_to_end(kept.id)
        return _items(turns)

    async def delete(self, owner: str, id: str) -> bool:
        found = self._turns.get(id)
        if found is None or found[0].owner != owner:
            return False
        self._forget(id)
        return True

    async def prune(self, now: float) -> int:
        over = [id for id, (_, until) in self._turns.items() if until <= now]
        for id in over:
            self._forget(id)
        return len(over)

    def _forget(self, id: str) -> None:
        found = self._turns.pop(id, None)
        if found is not None:
            self._size -= _size(found[0])


class DatabaseResponseStore:
    """In the database, each turn encrypted for itself."""

    def __init__(self, database: Database, key: bytes, life: float) -> None:
        """`key` has 32 octets; `life` in seconds."""
        # Half a megabyte of code that most relays never need.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._database = database
        self._cipher = AESGCM(key)
        self._invalid = InvalidTag
        self._life = life
        self._complained = False

    async def put(self, kept: StoredResponse, now: float) -> None:
        plain = msgspec.msgpack.encode((kept.answer, kept.input, kept.output))

        def work(connection: sqlite3.Connection) -> None:
            nonce = secrets.token_bytes(_NONCE)
            sealed = nonce + self._cipher.encrypt(nonce, plain, _bound_to(kept.owner, kept.id))
            row = (kept.id, kept.owner, kept.previous, kept.created, now + self._life, sealed)
            connection.execute("INSERT OR REPLACE INTO response VALUES (?, ?, ?, ?, ?, ?)", row)

        await self._database.write(work)

    async def get(self, owner: str, id: str, now: float) -> StoredResponse | None:
        return await self._database.read(lambda connection: self._find(connection, owner, id, now))

    async def conversation(self, owner: str, id: str, now: float) -> list[bytes] | None:
        def work(connection: sqlite3.Connection) -> list[bytes] | None:
            turns: list[StoredResponse] = []
            wanted: str | None = id
            while wanted is not None:
                kept = self._find(connection, owner, wanted, now)
                if kept is None or len(turns) >= _LONGEST:
                    return None
                turns.append(kept)
                wanted = kept.previous
            until = now + self._life
            connection.executemany(
                "UPDATE response SET expires = ? WHERE id = ?", [(until, one.id) for one in turns]
            )
            return _items(turns)

        return await self._database.write(work)

    async def delete(self, owner: str, id: str) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            done = connection.execute(
                "DELETE FROM response WHERE id = ? AND owner = ?", (id, owner)
            )
            return done.rowcount > 0

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
        try:
            plain = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound_to(owner, id))
        except self._invalid:
            if not self._complained:
                self._complained = True
                _log.warning(
                    "responses that were kept cannot be decrypted: is responses.key another one?"
                )
            return None
        answer, given, output = _content(plain)
        return StoredResponse(id, owner, previous, created, answer, given, output)


_content = msgspec.msgpack.Decoder(tuple[bytes, list[bytes], list[bytes]]).decode


def _bound_to(owner: str, id: str) -> bytes:
    """What a turn is encrypted together with, so that no row can stand in for another."""
    return f"{owner} {id}".encode()


def _items(turns: list[StoredResponse]) -> list[bytes]:
    """All items of turns that come the newest first."""
    return [item for kept in reversed(turns) for item in (*kept.input, *kept.output)]


def _size(kept: StoredResponse) -> int:
    parts = (kept.answer, *kept.input, *kept.output)
    return _OVERHEAD + sum(map(len, parts)) + 64 * len(parts)

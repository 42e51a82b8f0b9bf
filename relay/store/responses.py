"""Responses kept for later requests of the Responses API: in memory, or encrypted in the database.

Each is one turn of a conversation: its input, its output and the id of the turn before. Both
stores keep the same promises: only the owner can read a turn, no turn outlives its time, and
continuing a conversation renews all its turns. Must not know what the items mean.
"""

import contextlib
import logging
import secrets
import sqlite3
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from sys import getsizeof
from typing import Any, Final, Protocol

import msgspec

from relay.store.database import Database, StoreError

_MAX_TURNS: Final = 1000  # of a conversation
_NONCE_OCTETS: Final = 12  # random ones have 96 bits (NIST SP 800-38D §8.2.2)
_TURN_OVERHEAD_OCTETS: Final = 1024  # memory for a turn beside its content, about
_POINTER_OCTETS: Final = 8  # of a list, for each item
_TAG_OCTETS: Final = 16  # of AES-GCM
_RENEWED: Final = 0.99  # of its lifetime, below which a use renews a turn: not each is a write
_MIN_ACCOUNT_OCTETS: Final = 1024 * 1024  # in a very small memory

_SELECT_CHAIN: Final = """WITH RECURSIVE turn (id, octets, expires, previous, number) AS (
        SELECT id, length(sealed), expires, previous, 1 FROM response
        WHERE id = ? AND owner = ? AND expires > ?
        UNION ALL
        SELECT response.id, length(response.sealed), response.expires, response.previous,
            number + 1
        FROM turn JOIN response ON response.id = turn.previous
        WHERE response.owner = ? AND response.expires > ? AND number < ?
    ) SELECT id, octets, expires, previous FROM turn ORDER BY number"""
# The turns of an account beyond its octets or its number, by their last use.
_SELECT_SURPLUS: Final = """SELECT id FROM (
        SELECT id, sum(length(sealed)) OVER latest AS octets, row_number() OVER latest AS number
        FROM response WHERE owner = ?
        WINDOW latest AS (ORDER BY expires DESC, rowid DESC)
    ) WHERE octets > ? OR number > ?"""

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


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that is kept. All sizes are in octets."""

    account: int = 64 * 1024 * 1024  # of one account
    account_turns: int = 10_000
    conversation: int = 32 * 1024 * 1024  # of all turns of one conversation, answers included


_DEFAULT_BOUNDS: Final = Bounds()


class ResponseStore(Protocol):
    """`now` is in epoch seconds. Every method raises StoreError if a database cannot be used."""

    bounds: Bounds

    async def put(self, turn: StoredResponse, now: float) -> bool:
        """Keep a turn; False: its conversation is too long to be kept."""

    async def get(self, owner: str, id: str, now: float) -> StoredResponse | None:
        """The turn; None if this owner has none of that id, or it has expired."""

    async def conversation(self, owner: str, id: str, now: float) -> list[bytes] | None:
        """All items up to this turn's output, oldest first.

        None if one of its turns is gone, or if it is longer than `bounds.conversation`.
        """

    async def delete(self, owner: str, id: str) -> bool:
        """Delete a turn; False if there was none."""

    async def prune(self, now: float) -> int:
        """Delete expired turns; returns how many."""


class _MemoryTurn:
    """A turn in memory, and the epoch second at which it expires."""

    __slots__ = ("expires", "octets", "turn")

    def __init__(self, turn: StoredResponse, expires: float) -> None:
        self.turn = turn
        self.expires = expires
        self.octets = turn_octets(turn)


class _MemoryAccount:
    """The turns of one account, the one that was used the longest ago first."""

    __slots__ = ("octets", "turns")

    def __init__(self) -> None:
        self.octets = 0
        self.turns: OrderedDict[str, _MemoryTurn] = OrderedDict()

    def remove(self, id: str) -> int:
        """Remove a turn; returns its octets, 0 if there is none."""
        entry = self.turns.pop(id, None)
        if entry is None:
            return 0
        self.octets -= entry.octets
        return entry.octets


class MemoryResponseStore:
    """Keeps turns until the process ends, up to `max_octets` of all accounts.

    The oldest turns go first: those of the same account, and once all have too much, those of the
    account that has the most.
    """

    def __init__(self, lifetime: float, max_octets: int, bounds: Bounds = _DEFAULT_BOUNDS) -> None:
        """`lifetime` is in seconds, counted from a turn's last use."""
        self.bounds = bounds
        self._lifetime = lifetime
        self._max_octets = max_octets
        # Of all memory, one account gets a part only.
        self._account_octets = min(bounds.account, max(max_octets // 4, _MIN_ACCOUNT_OCTETS))
        self.octets = 0
        self._accounts: dict[str, _MemoryAccount] = {}

    async def put(self, turn: StoredResponse, now: float) -> bool:
        before = [] if turn.previous is None else self._turns(turn.owner, turn.previous, now)
        entry = _MemoryTurn(turn, now + self._lifetime)
        length = entry.octets + sum(one.octets for one in before or ())
        if length > min(self.bounds.conversation, self._account_octets, self._max_octets):
            return False
        self._remove(turn.owner, turn.id)
        account = self._accounts.setdefault(turn.owner, _MemoryAccount())
        account.turns[turn.id] = entry
        account.octets += entry.octets
        self.octets += entry.octets
        while (
            account.octets > self._account_octets or len(account.turns) > self.bounds.account_turns
        ):
            self._remove(turn.owner, next(iter(account.turns)))
        while self.octets > self._max_octets:
            largest = max(self._accounts, key=lambda owner: self._accounts[owner].octets)
            self._remove(largest, next(iter(self._accounts[largest].turns)))
        return True

    async def get(self, owner: str, id: str, now: float) -> StoredResponse | None:
        entry = self._find(owner, id, now)
        return None if entry is None else entry.turn

    async def conversation(self, owner: str, id: str, now: float) -> list[bytes] | None:
        turns = self._turns(owner, id, now)
        if turns is None or sum(one.octets for one in turns) > self.bounds.conversation:
            return None
        account = self._accounts[owner]
        for one in reversed(turns):
            one.expires = now + self._lifetime
            account.turns.move_to_end(one.turn.id)
        return _items([one.turn for one in turns])

    async def delete(self, owner: str, id: str) -> bool:
        return self._remove(owner, id)

    async def prune(self, now: float) -> int:
        expired = [
            (owner, id)
            for owner, account in self._accounts.items()
            for id, entry in account.turns.items()
            if entry.expires <= now
        ]
        for owner, id in expired:
            self._remove(owner, id)
        return len(expired)

    def _find(self, owner: str, id: str, now: float) -> _MemoryTurn | None:
        account = self._accounts.get(owner)
        entry = None if account is None else account.turns.get(id)
        return None if entry is None or entry.expires <= now else entry

    def _turns(self, owner: str, id: str, now: float) -> list[_MemoryTurn] | None:
        """The turns of a conversation, the newest first; None if one of them is gone."""
        turns: list[_MemoryTurn] = []
        next_id: str | None = id
        while next_id is not None:
            entry = self._find(owner, next_id, now)
            if entry is None or len(turns) >= _MAX_TURNS:
                return None
            turns.append(entry)
            next_id = entry.turn.previous
        return turns

    def _remove(self, owner: str, id: str) -> bool:
        account = self._accounts.get(owner)
        octets = 0 if account is None else account.remove(id)
        self.octets -= octets
        if account is not None and not account.turns:
            del self._accounts[owner]
        return octets > 0


def _update_expiry(values: tuple[float, str], connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE response SET expires = ? WHERE id = ?", values)


class DatabaseResponseStore:
    """Keeps turns in the database, each encrypted by itself."""

    def __init__(
        self, database: Database, key: bytes, lifetime: float, bounds: Bounds = _DEFAULT_BOUNDS
    ) -> None:
        """`key` has 32 octets; `lifetime` is in seconds, counted from a turn's last use."""
        # Imported here: half a megabyte of code that most relays never need.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self.bounds = bounds
        self._database = database
        self._cipher = AESGCM(key)
        self._invalid = InvalidTag
        self._lifetime = lifetime
        self._warned = False

    async def put(self, turn: StoredResponse, now: float) -> bool:
        plain = msgspec.msgpack.encode((turn.answer, turn.input, turn.output))
        length = own = len(plain) + _NONCE_OCTETS + _TAG_OCTETS
        if turn.previous is not None:
            chain = await self._chain(turn.owner, turn.previous, now)
            length += sum(octets for _, octets, _ in chain or ())
        if length > min(self.bounds.conversation, self.bounds.account):
            return False

        # Found by the reader: no writer waits for it.
        surplus = await self._database.select(
            _SELECT_SURPLUS,
            (turn.owner, self.bounds.account - own, self.bounds.account_turns - 1),
            latest=False,
        )
        sealed = await self._database.run(lambda _: self._sealed(turn, plain))
        row = (turn.id, turn.owner, turn.previous, turn.created, now + self._lifetime, sealed)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO response VALUES (?, ?, ?, ?, ?, ?)", row)
            connection.executemany("DELETE FROM response WHERE id = ?", surplus)

        await self._database.write(work)
        return True

    async def get(self, owner: str, id: str, now: float) -> StoredResponse | None:
        # Not a plain `select`: a long turn is decrypted on the thread, too.
        return await self._database.run(lambda connection: self._find(connection, owner, id, now))

    async def conversation(self, owner: str, id: str, now: float) -> list[bytes] | None:
        chain = await self._chain(owner, id, now)
        if chain is None or sum(octets for _, octets, _ in chain) > self.bounds.conversation:
            return None
        ids = [one for one, _, _ in chain]

        def read(connection: sqlite3.Connection) -> list[bytes] | None:
            items: list[bytes] = []
            for one in reversed(ids):
                turn = self._find(connection, owner, one, now)
                if turn is None:
                    return None
                items += turn.input
                items += turn.output
            return items

        items = await self._database.run(read)  # takes no lock that a writer waits for
        if items is not None:
            due = [one for one, _, expires in chain if expires < now + self._lifetime * _RENEWED]
            with contextlib.suppress(StoreError):  # the next use renews them as well
                await self._renew(due, now)
        return items

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

    async def _chain(self, owner: str, id: str, now: float) -> list[tuple[str, int, float]] | None:
        """Id, octets and expiry of the turns of a conversation, newest first, without reading them.

        None if one of them is gone.
        """
        values = (id, owner, now, owner, now, _MAX_TURNS)
        rows = await self._database.select(_SELECT_CHAIN, values, latest=False)
        if not rows or rows[-1][3] is not None:
            return None
        return [(one, octets, expires) for one, octets, expires, _ in rows]

    async def _renew(self, ids: list[str], now: float) -> None:
        """Let turns live from now on. One at a time: SQLite reads a row again to change it, and a
        long conversation would keep other writers waiting."""
        for one in ids:
            values = (now + self._lifetime, one)
            await self._database.write(partial(_update_expiry, values))

    def _sealed(self, turn: StoredResponse, plain: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_OCTETS)
        return nonce + self._cipher.encrypt(nonce, plain, _bound_to(turn.owner, turn.id))

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


def turn_octets(turn: StoredResponse) -> int:
    """The memory that a turn takes."""
    parts = (turn.answer, *turn.input, *turn.output)
    return _TURN_OVERHEAD_OCTETS + sum(map(getsizeof, parts)) + _POINTER_OCTETS * len(parts)

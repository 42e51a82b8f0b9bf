"""The moves of conversations in PostgreSQL: reads those of other nodes, and sends this node's.

Decides which moves are new. Must not know what a move does.
"""

import json
from typing import Final

import psycopg

from relay.cluster.link import Connection, is_refused_for_good
from relay.cluster.states import Move, Sessions

_PAGE: Final = 2000
_READ: Final = (
    "SELECT s.seq, s.caller, s.key, s.upstream, s.family, s.mixed, s.moved,"
    " s.until - relay.now_ms(), relay.now_ms() - s.since FROM relay.session_move s"
    " WHERE s.seq > %s::bigint AND s.until > relay.now_ms() AND s.origin <> %s"
    " ORDER BY s.seq LIMIT %s"
)
_SEND: Final = "SELECT relay.move_sessions(%s, %s::jsonb)"


class SessionMovesPart:
    """See the module, and `state_sync.Part`."""

    kind = "session"

    def __init__(self, origin: str, sessions: Sessions) -> None:
        """`origin`: this process."""
        self._origin = origin
        self._sessions = sessions
        self._seen = 0
        self._reads_all = False

    def read_all(self) -> None:
        """See `state_sync.Part`."""
        self._reads_all = True  # `_seen` may be set by a read that is under way

    async def sync(self, connection: Connection) -> None:
        """See `state_sync.Part`."""
        while await self._read(connection):
            pass
        while moves := self._sessions.take_moves():
            text = json.dumps([{**one._asdict(), "key": one.key.hex()} for one in moves])
            try:
                await connection.execute(_SEND, [self._origin, text])
            except psycopg.Error as error:
                if not is_refused_for_good(error, connection):
                    self._sessions.put_back(moves)
                raise

    async def _read(self, connection: Connection) -> bool:
        """Read a page; whether there may be more."""
        if self._reads_all:
            self._reads_all, self._seen = False, 0
        cursor = await connection.execute(_READ, [self._seen, self._origin, _PAGE])
        rows = await cursor.fetchall()
        self._sessions.take([Move(*one[1:]) for one in rows])
        is_full = len(rows) == _PAGE
        if rows:  # the last number may have more rows: a batch is smaller than a page
            self._seen = rows[-1][0] - is_full
        return is_full

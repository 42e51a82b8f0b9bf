"""The states of upstreams in PostgreSQL: reads those of other nodes, and sends this node's.

PostgreSQL decides which outages hold for all: those that an upstream has stated, and guesses of two
nodes at the same time. Times travel as milliseconds that are left, by its clock.

Decides which states are new. Must not know what a state does.
"""

import json
import time
from typing import Final

import psycopg

from relay.cluster.link import Connection, is_refused_for_good
from relay.cluster.states import CLEAR, Report, State, UpstreamStates

_READ: Final = (
    "SELECT s.seq, s.upstream, s.origin, s.scope, s.about, s.caller, s.until - relay.now_ms(),"
    " s.stated, s.quota, s.failing, s.model, s.reason, relay.now_ms() - s.since"
    " FROM relay.upstream_state s"
    " WHERE (s.seq > %s::bigint OR s.upstream = ANY (%s::text[])) AND s.until > relay.now_ms()"
    " ORDER BY s.seq"
)
_REPORT: Final = "SELECT relay.report_upstreams(%s, %s, %s::jsonb)"
_TIDY_SECONDS: Final = 600.0


class UpstreamStatesPart:
    """See the module, and `state_sync.Part`."""

    kind = "upstream"

    def __init__(self, node: str, origin: str, states: UpstreamStates) -> None:
        """`node`: guesses of one node are one guess; `origin`: its present process."""
        self._node = node
        self._origin = origin
        self._states = states
        self._seen = 0
        self._losses = 0  # times that any change may have been missed
        self._made_up_for = 0  # of these
        self._tidied = time.monotonic()

    def read_all(self) -> None:
        """See `state_sync.Part`."""
        self._losses += 1

    async def sync(self, connection: Connection) -> None:
        """See `state_sync.Part`."""
        await self._read(connection)
        while reports := self._states.take_reports():
            await self._send(connection, reports)
        if time.monotonic() - self._tidied > _TIDY_SECONDS:
            self._tidied = time.monotonic()
            await connection.execute("SELECT relay.tidy_upstreams()")

    async def _send(self, connection: Connection, reports: list[Report]) -> None:
        text = json.dumps([report._asdict() for report in reports])
        try:
            await connection.execute(_REPORT, [self._node, self._origin, text])
        except psycopg.Error as error:
            if not is_refused_for_good(error, connection):
                self._states.put_back(reports)
            raise

    async def _read(self, connection: Connection) -> None:
        new, losses = self._states.unread(), self._losses
        reads_all = losses > self._made_up_for
        after = 0 if reads_all else self._seen
        cursor = await connection.execute(_READ, [after, new])
        found = [State(*row) for row in await cursor.fetchall()]
        self._states.take([one for one in found if self._concerns(one, new)], new)
        if reads_all:  # the database may have been put back to an earlier state
            self._made_up_for, self._seen = losses, 0
        self._seen = max([self._seen, *[one.seq for one in found]])

    def _concerns(self, state: State, new: list[str]) -> bool:
        """Whether a state may change anything here. A clear concerns outages before it."""
        if state.upstream in new:
            return state.scope != CLEAR
        if state.origin == self._origin:
            return False
        return state.scope != CLEAR or state.seq > self._seen

"""One connection to PostgreSQL, opened again whenever it was lost.

Decides how long a call and an attempt to connect may take, and how long to wait before the next
attempt, unless the server refuses the relay: then all connections wait (`attempts`). Must not know
what the calls do.
"""

import asyncio
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar

import psycopg

from relay.cluster.attempts import attempts_at, first_line
from relay.cluster.schema import SchemaError, check, known_migrations

T = TypeVar("T")
Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]

ANSWER_SECONDS: Final = 1.0  # for one call: then the connection counts as broken
_LATE_SECONDS: Final = 0.1  # a timer that is later belongs to a process that has not run
_STATEMENT_SHARE: Final = 800  # in 1,000: the server gives up first, so that it can say why
_CONNECT_SECONDS: Final = 2  # the least that libpq takes
_FIRST_PAUSE: Final = 0.05  # seconds between attempts to connect, doubled each time
_LONGEST_PAUSE: Final = 2.0


class EngineAwayError(Exception):
    """The database cannot be reached, gave no answer in time, or refuses to write."""


class EngineRefusalError(Exception):
    """The database answered with an error; the connection goes on."""


class Link:
    """See the module. One call at a time."""

    def __init__(
        self, url: str, name: str, answer_seconds: float = ANSWER_SECONDS, *,
        notices_restarts: bool = False,
    ) -> None:  # fmt: skip
        """`name`: as the server's list of connections shows it. `notices_restarts`: a call fails,
        too, if the connection was lost while nobody called, since the server may have lost rows.
        """
        self.down_since: float | None = None  # monotonic seconds; None: the last call was answered
        self.reason = ""  # why it is down
        self._url = url
        self._answer_seconds = answer_seconds
        self._name = name
        self._notices_restarts = notices_restarts
        self._connection: Connection | None = None
        self._attempts = attempts_at(url)
        self._pause = 0.0
        self._next_attempt = 0.0

    async def call(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work` on the connection, which is opened if need be.

        Raises:
            EngineAwayError: there is no connection, or it was lost meanwhile.
            EngineRefusalError: the database refused a statement.
            SchemaError: this program cannot use the database.
        """
        connection = await self._opened()
        timer = _Deadline(connection, self._answer_seconds)
        try:
            result = await work(connection)
        except psycopg.Error as error:
            if connection.broken or isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                await self._lost(error)
                raise EngineAwayError(self.reason) from None
            raise EngineRefusalError(first_line(error)) from error
        finally:
            timer.cancel()
        self.down_since = None
        return result

    def away_for(self) -> float:
        """Seconds that it has been down; 0: the last call was answered."""
        return 0.0 if self.down_since is None else time.monotonic() - self.down_since

    async def wait_for_turn(self) -> None:
        """Wait until the next attempt to connect is due; returns at once if there is a connection
        or none was lost."""
        if self._connection is None:
            await asyncio.sleep(max(0.0, self._next_attempt - time.monotonic()))
            await self._attempts.wait()

    def abort(self) -> None:
        """End the connection at once; a call that waits for it fails."""
        if self._connection is not None:
            _break(self._connection)

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _opened(self) -> Connection:
        if self._connection is not None:
            if self._notices_restarts or not _was_closed(self._connection):
                return self._connection
            await self.close()  # an outage that is over may have come while nobody called
        if not self._attempts.begin():
            self._is_down(self._attempts.reason)
            raise EngineAwayError(self.reason)
        began = time.monotonic()
        connection: Connection | None = None
        timer: _Deadline | None = None
        statement_milliseconds = int(self._answer_seconds * _STATEMENT_SHARE)
        try:
            connection = await psycopg.AsyncConnection.connect(
                self._url,
                autocommit=True,
                prepare_threshold=1,
                connect_timeout=_CONNECT_SECONDS,
                application_name=f"relay {self._name}",
                options=f"-c statement_timeout={statement_milliseconds} -c timezone=UTC",
            )
            timer = _Deadline(connection, ANSWER_SECONDS)
            await check(connection, known_migrations())
            await _check_writable(connection)
            self._connection = connection
        except (psycopg.Error, SchemaError) as error:
            if self._attempts.end(error, began):
                self._is_down(self._attempts.reason)
            else:
                await self._lost(error)
            if isinstance(error, SchemaError):
                raise
            raise EngineAwayError(self.reason) from None
        finally:
            if timer is not None:
                timer.cancel()
            if connection is not None and connection is not self._connection:
                connection.pgconn.finish()  # it failed, or nobody waits for it any more
        self._attempts.end(None, began)
        self._pause = 0.0
        return connection

    def _is_down(self, reason: str) -> None:
        self.reason = reason
        if self.down_since is None:
            self.down_since = time.monotonic()

    async def _lost(self, error: Exception) -> None:
        now = time.monotonic()
        self._is_down(first_line(error))
        self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, self._pause * 2))
        # Nodes that lost the server at once do not come back at once.
        self._next_attempt = now + self._pause * random.uniform(0.5, 1.0)  # noqa: S311
        await self.close()


class Overtime:
    """The time that a deadline is put off, since this process did not run: the answer may have
    come, and is read after timers that have become due. It is bounded in all, or a process that
    is always short of time would never see that a connection is dead."""

    def __init__(self) -> None:
        self._left = ANSWER_SECONDS

    def after(self, late: float) -> float:
        """Seconds more for a deadline that was seen so late; 0: it has passed."""
        more = min(late, self._left) if late > _LATE_SECONDS else 0.0
        self._left -= more
        return more


class _Deadline:
    """Breaks a connection that gives no answer in time. See `Overtime`."""

    def __init__(self, connection: Connection, seconds: float) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._overtime = Overtime()
        self._set(seconds)

    def cancel(self) -> None:
        self._timer.cancel()

    def _set(self, seconds: float) -> None:
        self._due = time.monotonic() + seconds
        self._timer = self._loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        more = self._overtime.after(time.monotonic() - self._due)
        if more:
            self._set(more)
        else:
            _break(self._connection)


def is_refused_for_good(error: psycopg.Error, connection: Connection) -> bool:
    """Whether the database would refuse the same values again. A lost connection, a timeout, a
    deadlock, a lack of resources and a server that can only be read say nothing of the values."""
    return not (
        connection.broken
        or isinstance(error, (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction))
    )


async def _check_writable(connection: Connection) -> None:
    """Check that this is no replica that has yet to take over.

    Raises:
        psycopg.errors.ReadOnlySqlTransaction: it is one.
    """
    cursor = await connection.execute("SELECT current_setting('transaction_read_only') = 'on'")
    row = await cursor.fetchone()
    if row and row[0]:
        raise psycopg.errors.ReadOnlySqlTransaction("the database can only be read")


def _break(connection: Connection) -> None:
    """Let a call that waits for the server's answer see the end of the connection. Cancelling it
    would ask the server first, over a network that may be gone."""
    if connection.closed:
        return
    with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        try:
            duplicate.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is not connected any more
            pass


def _was_closed(connection: Connection) -> bool:
    """Whether the server has ended an idle connection, as far as this side has heard of it."""
    try:
        for _ in range(2):  # the first may read the server's reason, and not the end
            connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return True
    return connection.closed

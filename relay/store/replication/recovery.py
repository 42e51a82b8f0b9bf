"""A node and PostgreSQL meet after either may have been put back to an earlier state.

Decides which of them lacks changes, by how far each has the node's outbox. Must not know how they
meet.
"""

import sqlite3
from typing import Final, Literal, Protocol

from relay.store.replication import outbox
from relay.store.replication.shape import Table

State = Literal["same", "restored", "lost"]
_SET_LAST: Final = "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'outbox'"
_ADD_LAST: Final = """INSERT INTO sqlite_sequence (name, seq) SELECT 'outbox', ?1
    WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'outbox')"""


class Mark(Protocol):
    """How far PostgreSQL has the outbox, and the number of the last row that came with it."""

    @property
    def entry(self) -> int: ...

    @property
    def seq(self) -> int: ...


def meet(connection: sqlite3.Connection, tables: dict[str, Table], node: str, mark: Mark) -> State:
    """Note which changes PostgreSQL has, within a transaction.

    `restored`: it has changes of this node that are not here any more; they are to be read before
    `go_on_after`. `lost`: it lacks changes that it once had.
    """
    last = outbox.last_entry(connection)
    waiting = connection.execute("SELECT min(id) FROM outbox WHERE sent IS NULL").fetchone()[0]
    shared = last if waiting is None else waiting - 1
    outbox.note_sent(connection, tables, mark.entry, mark.seq)
    if last < mark.entry:
        # The requests up to this one are here.
        connection.execute("INSERT OR IGNORE INTO usage_received VALUES (?, ?)", (node, last))
        return "restored"
    return "lost" if mark.entry < shared else "same"


def go_on_after(connection: sqlite3.Connection, entry: int) -> None:
    """Let the outbox go on after an entry, within a transaction."""
    connection.execute(_SET_LAST, (entry,))
    connection.execute(_ADD_LAST, (entry,))


def read_all_again(connection: sqlite3.Connection) -> None:
    """Forget how far this node has read, within a transaction."""
    connection.execute("UPDATE replica SET seen = 0")
    connection.execute("UPDATE outbox SET sent = NULL")

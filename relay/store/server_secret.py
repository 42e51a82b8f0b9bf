"""The key that seals what callers carry for the relay from turn to turn.

It is made once and stays: with another one nothing that was sealed before could be opened.
"""

import secrets
import sqlite3
from typing import Final

from relay.store.database import Database

_NAME: Final = "sealing key"
_LENGTH: Final = 32


async def sealing_key(database: Database) -> bytes:
    """32 octets, the same whenever they are asked for.

    Raises:
        StoreError: the database cannot be used.
    """

    def work(connection: sqlite3.Connection) -> bytes:
        fresh = secrets.token_bytes(_LENGTH)
        connection.execute("INSERT OR IGNORE INTO value VALUES (?, ?)", (_NAME, fresh))
        row = connection.execute("SELECT octets FROM value WHERE name = ?", (_NAME,)).fetchone()
        return bytes(row[0])

    return await database.write(work)

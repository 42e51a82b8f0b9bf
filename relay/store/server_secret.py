"""The server's random key. It seals the data that callers carry from turn to turn.

Created once and kept for good: data sealed with another key could not be opened.
"""

import secrets
import sqlite3
from typing import Final

from relay.store.database import Database

_NAME: Final = "sealing key"
_KEY_OCTETS: Final = 32


async def sealing_key(database: Database) -> bytes:
    """32 octets, the same at every call.

    Raises:
        StoreError: the database cannot be used.
    """

    found = await database.select("SELECT octets FROM value WHERE name = ?", (_NAME,))
    if found:
        return bytes(found[0][0])

    def work(connection: sqlite3.Connection) -> bytes:
        new_key = secrets.token_bytes(_KEY_OCTETS)
        connection.execute("INSERT OR IGNORE INTO value VALUES (?, ?)", (_NAME, new_key))
        row = connection.execute("SELECT octets FROM value WHERE name = ?", (_NAME,)).fetchone()
        return bytes(row[0])

    async with database.claims.alone("secret"):
        return await database.write(work)

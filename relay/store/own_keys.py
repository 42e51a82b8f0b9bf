"""Keys as their owner changes them: each statement names the account, too, so nobody reaches
another one's. Must not know any policy.
"""

import sqlite3

from relay.store.database import Database


async def rename_own_key(database: Database, user_id: str, key_id: str, name: str) -> bool:
    """Give a key another name; False if the account has no such key."""

    def work(connection: sqlite3.Connection) -> bool:
        statement = "UPDATE keys SET name = ? WHERE id = ? AND user_id = ?"
        return connection.execute(statement, (name, key_id, user_id)).rowcount > 0

    return await database.write(work)


async def revoke_own_key(database: Database, user_id: str, key_id: str, now: float) -> bool:
    """Revoke a key for good; False if the account has no such key that is not revoked."""

    def work(connection: sqlite3.Connection) -> bool:
        statement = (
            "UPDATE keys SET revoked_at = ? WHERE id = ? AND user_id = ? AND revoked_at IS NULL"
        )
        return connection.execute(statement, (now, key_id, user_id)).rowcount > 0

    return await database.write(work)

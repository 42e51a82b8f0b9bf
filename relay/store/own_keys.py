"""Keys as their owner changes them: each change is of one account's key alone, so nobody reaches
another one's. Must not know any policy.
"""

import sqlite3

from relay.store.audit import Change, record
from relay.store.database import Database
from relay.store.keys import select_key


async def rename_own_key(
    database: Database, user_id: str, key_id: str, name: str, now: float
) -> bool:
    """Give a key another name; False if the account has no such key."""
    statement = "UPDATE keys SET name = ? WHERE id = ? AND user_id = ?"
    return await _change(database, "key.rename", (statement, name, key_id, user_id), now)


async def revoke_own_key(database: Database, user_id: str, key_id: str, now: float) -> bool:
    """Revoke a key for good; False if the account has no such key that is not revoked."""
    statement = "UPDATE keys SET revoked_at = ? WHERE id = ? AND user_id = ? AND revoked_at IS NULL"
    return await _change(database, "key.revoke", (statement, now, key_id, user_id), now)


async def _change(
    database: Database, action: str, update: tuple[str, object, str, str], now: float
) -> bool:
    """Change a key with its entry in the audit log. `update`: a statement, and its values, of
    which the second is the key's id."""
    statement, *values = update
    key_id = update[2]

    def work(connection: sqlite3.Connection) -> bool:
        before = select_key(connection, key_id)
        if not connection.execute(statement, values).rowcount:
            return False
        after = select_key(connection, key_id)
        assert before is not None
        assert after is not None
        change = Change(action, key_id, before.audited(), after.audited())
        record(connection, database.actor, now, change)
        return True

    return await database.write(work)

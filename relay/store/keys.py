"""API keys in the database: added, listed, changed, rotated, deleted.

Knows the table `keys` and makes the ids. Must not know any policy: `relay.accounts` decides
what is allowed and passes plain values. Every function raises `StoreError` when SQLite fails.
"""

import sqlite3
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
from msgspec import structs

from relay.store.audit import Change, State, record
from relay.store.database import Database
from relay.store.users import User, new_id


class OwnLimit(msgspec.Struct, frozen=True):
    """A limit of one key, beside those of its plan: so much in `per` seconds."""

    counts: Literal["requests", "tokens", "money"]
    amount: int  # of money: micro-dollars
    per: int


class KeyRules(msgspec.Struct, frozen=True):
    """The rules that an owner sets for one key. None or 0: nothing."""

    models: tuple[str, ...] | None = None  # `*` at the end matches the rest of a name
    addresses: tuple[str, ...] | None = None  # addresses and networks
    limits: tuple[OwnLimit, ...] | None = None
    max_concurrency: int = 0

    @property
    def any(self) -> bool:
        """Whether anything is set."""
        return self != _NO_RULES


_NO_RULES: Final = KeyRules()


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be added. The key itself is not in it."""

    user: User
    name: str
    digest: bytes
    hint: str  # a few of its characters, to recognise it by
    expires_at: float | None = None
    cache_breakpoints: bool = True
    rules: KeyRules = _NO_RULES


class Key(msgspec.Struct, frozen=True):
    """A key as it is listed; times are epoch seconds."""

    id: str
    email: str
    name: str
    hint: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    cache_breakpoints: bool
    disabled_at: float | None = None
    rules: KeyRules = _NO_RULES
    old_until: float | None = None  # until when the key before the last rotation works

    def state(self, now: float) -> Literal["live", "expired", "disabled", "revoked"]:
        """Whether it is accepted; if not, the reason."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "live" if self.disabled_at is None else "disabled"

    def audited(self) -> State:
        """As the audit log has it."""
        state = structs.asdict(self)
        state |= msgspec.to_builtins(state.pop("rules"))
        del state["id"], state["created_at"]
        return state


# Not frozen, since that makes 10,000 of them cost 12 ms more at each change of a key.
@dataclass(slots=True)
class LiveKey:
    """A key that is not revoked, for a server to authenticate. It may have expired."""

    digest: bytes
    key_id: str
    user_id: str
    email: str
    plan: str
    suspended: bool
    expires_at: float | None
    credited: int = 0  # sum of the user's credits, in micro-dollars
    cache_breakpoints: bool = True  # whether its requests get cache breakpoints
    suspended_reason: str = ""
    plan_until: float | None = None  # the end of the plan's period; None: it has none
    plan_then: str = ""  # the plan after it
    disabled: bool = False
    rules: KeyRules | None = None  # None: nothing is set

    def plan_at(self, now: float) -> str:
        """The plan that is in force at a moment."""
        if self.plan_until is None or now < self.plan_until:
            return self.plan
        return self.plan_then


_SELECT: Final = """SELECT keys.id, email, name, hint, keys.created_at, expires_at, revoked_at,
        cache_breakpoints, disabled_at, models, addresses, limits, max_concurrency, old_until
    FROM keys JOIN users ON users.id = keys.user_id"""
# A key from before a rotation is one more, which expires with the time that it was given.
_SELECT_LIVE: Final = """WITH valid AS (
        SELECT digest, expires_at, id FROM keys WHERE revoked_at IS NULL {of}
        UNION ALL
        SELECT old_digest, min(old_until, coalesce(expires_at, old_until)), id FROM keys
        WHERE revoked_at IS NULL AND old_digest IS NOT NULL {of})
    SELECT valid.digest, keys.id, keys.user_id, email, plan, suspended_at IS NOT NULL,
        valid.expires_at, coalesce(credited, 0), cache_breakpoints, suspended_reason, plan_until,
        plan_then, disabled_at IS NOT NULL, models, addresses, limits, max_concurrency
    FROM valid JOIN keys ON keys.id = valid.id JOIN users ON users.id = keys.user_id
    LEFT JOIN balance ON balance.user_id = users.id"""


def _key(row: tuple[Any, ...]) -> Key:
    values = [*row[:9], _rules(*row[9:13]) or _NO_RULES, row[13]]
    values[7] = bool(row[7])
    return Key(*values)


def _rules(
    models: str | None, addresses: str | None, limits: str | None, max_concurrency: int
) -> KeyRules | None:
    if models is None and addresses is None and limits is None and not max_concurrency:
        return None
    decode = msgspec.json.decode
    return KeyRules(
        None if models is None else decode(models, type=tuple[str, ...]),
        None if addresses is None else decode(addresses, type=tuple[str, ...]),
        None if limits is None else decode(limits, type=tuple[OwnLimit, ...]),
        max_concurrency,
    )


def _rule_values(rules: KeyRules) -> tuple[object, ...]:
    values = (rules.models, rules.addresses, rules.limits)
    texts = [None if one is None else msgspec.json.encode(one).decode() for one in values]
    return (*texts, rules.max_concurrency)


async def create_key(database: Database, new: NewKey, *, max_keys: int, now: float) -> Key | None:
    """Add a key; None if the user has `max_keys` live ones already.

    One transaction counts and adds, so two processes cannot both add the last one.
    """
    user_id = new.user.id
    key_id = new_id("key")

    def work(connection: sqlite3.Connection) -> Key | None:
        live = connection.execute(
            """SELECT count(*) FROM keys WHERE user_id = ? AND revoked_at IS NULL
               AND (expires_at IS NULL OR expires_at > ?)""",
            (user_id, now),
        ).fetchone()[0]
        if live >= max_keys:
            return None
        connection.execute(
            """INSERT INTO keys (id, user_id, name, digest, hint, created_at, expires_at,
                   cache_breakpoints, models, addresses, limits, max_concurrency)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (
                key_id, user_id, new.name, new.digest, new.hint, now, new.expires_at,
                new.cache_breakpoints, *_rule_values(new.rules),
            ),
        )  # fmt: skip
        key = select_key(connection, key_id)
        assert key is not None
        record(connection, database.actor, now, Change("key.create", key_id, None, key.audited()))
        return key

    return await database.write(work)


async def list_keys(database: Database, email: str | None = None) -> list[Key]:
    """The keys of one user, or of all, oldest first."""
    rows = await database.select(
        f"{_SELECT} WHERE ?1 IS NULL OR email = ?1 ORDER BY email, keys.created_at", (email,)
    )
    return [_key(row) for row in rows]


async def list_own_keys(database: Database, user_id: str) -> list[Key]:
    """The keys of one user, oldest first; quick, however many users there are."""
    rows = await database.select(
        f"{_SELECT} WHERE keys.user_id = ? ORDER BY keys.created_at", (user_id,)
    )
    return [_key(row) for row in rows]


async def find_keys(database: Database, id_prefix: str) -> list[Key]:
    """The keys whose id starts with `id_prefix`."""
    rows = await database.select(
        f"{_SELECT} WHERE substr(keys.id, 1, length(?1)) = ?1 ORDER BY keys.id", (id_prefix,)
    )
    return [_key(row) for row in rows]


def select_key(connection: sqlite3.Connection, key_id: str) -> Key | None:
    """A key by its id, within a transaction; None if there is none."""
    row = connection.execute(f"{_SELECT} WHERE keys.id = ?", (key_id,)).fetchone()
    return None if row is None else _key(row)


async def revoke_key(database: Database, key_id: str, now: float) -> Key | None:
    """Revoke a key for good. A second call keeps the first time. None if there is no such key."""
    assignment = "revoked_at = coalesce(revoked_at, ?)"
    return await _update(database, key_id, KeyUpdate("key.revoke", assignment, (now,)), now)


async def delete_key(database: Database, key_id: str, now: float) -> Key | None:
    """Delete a key; its usage stays. Returns it as it was; None if there is no such key."""

    def work(connection: sqlite3.Connection) -> Key | None:
        key = select_key(connection, key_id)
        if key is not None:
            connection.execute("DELETE FROM keys WHERE id = ?", (key_id,))
            change = Change("key.delete", key_id, key.audited(), None)
            record(connection, database.actor, now, change)
        return key

    return await database.write(work)


async def rename_key(database: Database, key_id: str, name: str, now: float) -> Key | None:
    """Give a key another name; None if there is no such key."""
    return await _update(database, key_id, KeyUpdate("key.rename", "name = ?", (name,)), now)


async def disable_key(database: Database, key_id: str, now: float) -> Key | None:
    """Refuse a key until it is enabled; None if there is no such key."""
    assignment = "disabled_at = coalesce(disabled_at, ?)"
    return await _update(database, key_id, KeyUpdate("key.disable", assignment, (now,)), now)


async def enable_key(database: Database, key_id: str, now: float) -> Key | None:
    """Accept a key again; None if there is no such key."""
    return await _update(database, key_id, KeyUpdate("key.enable", "disabled_at = NULL", ()), now)


async def set_rules(database: Database, key_id: str, rules: KeyRules, now: float) -> Key | None:
    """Replace what is set for a key; None if there is no such key."""
    assignment = "models = ?, addresses = ?, limits = ?, max_concurrency = ?"
    update = KeyUpdate("key.rules", assignment, _rule_values(rules))
    return await _update(database, key_id, update, now)


class NewSecret(msgspec.Struct, frozen=True):
    """The replacement of a key in a rotation. The key itself is not in it."""

    digest: bytes
    hint: str
    old_until: float  # until when the key before works, too


async def rotate_key(database: Database, key_id: str, new: NewSecret, now: float) -> Key | None:
    """Replace a key; its id, limits and usage stay. A key from before an earlier rotation ends at
    once. None if there is no such key."""
    assignment = "old_digest = digest, old_until = ?, digest = ?, hint = ?"
    values = (new.old_until, new.digest, new.hint)
    return await _update(database, key_id, KeyUpdate("key.rotate", assignment, values), now)


class KeyUpdate(msgspec.Struct, frozen=True):
    """A change of one key's row: the action's name, and what is assigned."""

    action: str
    assignment: str
    values: tuple[object, ...]


async def _update(database: Database, key_id: str, update: KeyUpdate, now: float) -> Key | None:
    def work(connection: sqlite3.Connection) -> Key | None:
        before = select_key(connection, key_id)
        if before is None:
            return None
        connection.execute(
            f"UPDATE keys SET {update.assignment} WHERE id = ?",  # noqa: S608
            (*update.values, key_id),
        )
        after = select_key(connection, key_id)
        assert after is not None
        change = Change(update.action, key_id, before.audited(), after.audited())
        record(connection, database.actor, now, change)
        return after

    return await database.write(work)


async def revision(database: Database) -> int:
    """A number that grows with every change to users, keys or credits, by any process."""
    return int((await database.select("SELECT number FROM revision"))[0][0])


async def changed_since(database: Database, number: int) -> list[str]:
    """The accounts that have changed since a revision: themselves, their keys, credits or limits on
    spending."""
    rows = await database.select("SELECT user_id FROM changed WHERE number > ?", (number,))
    return [user_id for (user_id,) in rows]


async def live_keys(database: Database, accounts: list[str] | None = None) -> list[LiveKey]:
    """All keys that are not revoked, with those that a rotation has left valid; or those of some
    accounts."""
    of = "" if accounts is None else "AND user_id IN (SELECT value FROM json_each(?1))"
    values = () if accounts is None else (msgspec.json.encode(accounts).decode(),)
    return [
        LiveKey(
            digest=row[0],
            key_id=row[1],
            user_id=row[2],
            email=row[3],
            plan=row[4],
            suspended=bool(row[5]),
            expires_at=row[6],
            credited=row[7],
            cache_breakpoints=bool(row[8]),
            suspended_reason=row[9],
            plan_until=row[10],
            plan_then=row[11] or "",
            disabled=bool(row[12]),
            rules=_rules(*row[13:]),
        )
        for row in await database.select(_SELECT_LIVE.format(of=of), values)
    ]

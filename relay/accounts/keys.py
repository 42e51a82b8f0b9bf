"""API keys: issuing, changing, rotating and deleting them.

Decides how many keys a plan allows, how long a key may last and what it may be called. Must not
know SQL. The key itself leaves here once, in `Issued`; only its digest and hint are kept.
"""

import re
from dataclasses import dataclass
from typing import Final

from relay import clock, secret
from relay.accounts import AccountError, InvalidError, users
from relay.config import Settings
from relay.secret import Secret
from relay.store import keys as stored
from relay.store.database import Database
from relay.store.keys import Key, KeyRules, NewKey, create_key, find_keys
from relay.store.users import User

_MAX_LIFETIME_SECONDS: Final = 36_500 * 86_400  # a hundred years; more is a typing error
_MAX_NAME_LENGTH: Final = 100
_KEY_ID: Final = re.compile(r"key_[0-9a-f]{1,16}")
_NO_RULES: Final = KeyRules()
_MAX_GRACE_SECONDS: Final = 90 * 86_400
DEFAULT_GRACE: Final = "24h"


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """The choices of a new key's owner."""

    name: str = ""
    lifetime: str | None = None  # a duration such as `30d`; None: it does not expire
    cache_breakpoints: bool = True
    rules: KeyRules = _NO_RULES


@dataclass(frozen=True, slots=True)
class Issued:
    """A new key with its record and its user. Nothing else has the key itself."""

    key: Secret
    record: Key
    user: User


async def create(
    database: Database, settings: Settings, email: str, options: KeyOptions, *, now: float
) -> Issued:
    """Create a key for the account of `email`.

    Raises:
        InvalidError: a name or lifetime that is not allowed.
        AccountError: no such account, or too many keys.
    """
    _check_name(options.name)
    expires_at = None if options.lifetime is None else now + _lifetime_seconds(options.lifetime)
    user = await users.find(database, email)
    max_keys = _max_keys(settings, user, now)
    key = secret.new_key(settings.server.key_prefix)
    new = NewKey(
        user=user,
        name=options.name,
        digest=secret.digest(key.encode()),
        hint=secret.hint(key, settings.server.key_prefix),
        expires_at=expires_at,
        cache_breakpoints=options.cache_breakpoints,
        rules=options.rules,
    )
    record = await create_key(database, new, max_keys=max_keys, now=now)
    if record is None:
        raise AccountError(
            f"{user.email} has {max_keys} live {'key' if max_keys == 1 else 'keys'}, all that "
            f"plan {user.plan_at(now)!r} allows; `relay key revoke KEY_ID` withdraws one, "
            f"`relay key list --user {user.email}` shows them"
        )
    return Issued(Secret(key), record, user)


async def find(database: Database, key_id: str) -> Key:
    """A key by its id, or by a prefix that no other id shares.

    Raises:
        InvalidError: not a key id.
        AccountError: no id starts with it, or several do.
    """
    if not _KEY_ID.fullmatch(key_id):  # not repeated: it may be a key, pasted by mistake
        raise InvalidError(
            "that is no key id; one looks like key_0123456789abcdef, `relay key list` shows them"
        )
    found = await find_keys(database, key_id)
    if len(found) > 1:
        raise AccountError(f"{len(found)} keys have ids that begin with {key_id}; write more of it")
    return _existing(found[0] if found else None, key_id)


async def revoke(database: Database, key_id: str, now: float) -> Key:
    """Revoke a key. Raises as `find`."""
    key = await find(database, key_id)
    return _existing(await stored.revoke_key(database, key.id, now), key_id)


async def delete(database: Database, key_id: str, now: float) -> Key:
    """Delete a key; its usage stays. Returns it as it was. Raises as `find`."""
    key = await find(database, key_id)
    return _existing(await stored.delete_key(database, key.id, now), key_id)


async def rename(database: Database, key_id: str, name: str, now: float) -> Key:
    """Give a key another name. Raises as `find`; InvalidError: a name that is not allowed."""
    _check_name(name)
    key = await find(database, key_id)
    return _existing(await stored.rename_key(database, key.id, name, now), key_id)


async def disable(database: Database, key_id: str, now: float) -> Key:
    """Refuse a key until it is enabled. Raises as `find`."""
    key = await find(database, key_id)
    return _existing(await stored.disable_key(database, key.id, now), key_id)


async def enable(database: Database, key_id: str, now: float) -> Key:
    """Accept a key again. Raises as `find`."""
    key = await find(database, key_id)
    return _existing(await stored.enable_key(database, key.id, now), key_id)


async def set_rules(database: Database, key_id: str, rules: KeyRules, now: float) -> Key:
    """Replace what is set for a key. Raises as `find`."""
    key = await find(database, key_id)
    return _existing(await stored.set_rules(database, key.id, rules, now), key_id)


async def rotate(
    database: Database, settings: Settings, key_id: str, *, grace: str, now: float
) -> Issued:
    """Put a new key in the place of one; both work for `grace`, a duration, or "0" for none.

    The id, what is set for the key and its usage stay. Raises as `find`; InvalidError: a wrong
    grace; AccountError: the key is revoked or has expired.
    """
    seconds = 0 if grace == "0" else _duration("the grace of a rotation", grace)
    if seconds > _MAX_GRACE_SECONDS:
        raise InvalidError("the grace of a rotation: at most 90d")
    key = await find(database, key_id)
    if key.state(now) in ("revoked", "expired"):
        raise AccountError(f"{key.id} is {key.state(now)}; `relay key create` makes another key")
    text = secret.new_key(settings.server.key_prefix)
    new = stored.NewSecret(
        secret.digest(text.encode()),
        secret.hint(text, settings.server.key_prefix),
        now + seconds,
    )
    record = _existing(await stored.rotate_key(database, key.id, new, now), key_id)
    return Issued(Secret(text), record, await users.find(database, record.email))


def _existing(key: Key | None, key_id: str) -> Key:
    if key is None:
        raise AccountError(f"no key has the id {key_id}; `relay key list` shows them")
    return key


def _check_name(name: str) -> None:
    if len(name) > _MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidError(f"a key's name has up to {_MAX_NAME_LENGTH} printable characters")


def _duration(name: str, text: str) -> int:
    try:
        return clock.seconds(text)
    except ValueError as error:
        raise InvalidError(f"{name}: {error}") from None


def _lifetime_seconds(lifetime: str) -> int:
    seconds = _duration("a key's lifetime", lifetime)
    if seconds > _MAX_LIFETIME_SECONDS:
        raise InvalidError("a key's lifetime: at most 36500d, or none at all for one that stays")
    return seconds


def _max_keys(settings: Settings, user: User, now: float) -> int:
    try:
        return users.plan_of(settings, user.plan_at(now)).max_keys
    except InvalidError as error:
        raise AccountError(
            f"{user.email} is on a plan that is gone: {error}; "
            f"`relay user set-plan {user.email} PLAN` moves them"
        ) from None

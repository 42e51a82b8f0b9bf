"""API keys: issuing and revoking them.

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
from relay.store.database import Database
from relay.store.keys import Key, NewKey, create_key, find_keys, revoke_key
from relay.store.users import User

_MAX_LIFETIME_SECONDS: Final = 36_500 * 86_400  # a hundred years; more is a typing error
_MAX_NAME_LENGTH: Final = 100
_KEY_ID: Final = re.compile(r"key_[0-9a-f]{1,16}")


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """The choices of a new key's owner."""

    name: str = ""
    lifetime: str | None = None  # a duration such as `30d`; None: it does not expire
    cache_breakpoints: bool = True


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
    if len(options.name) > _MAX_NAME_LENGTH or not options.name.isprintable():
        raise InvalidError(f"a key's name has up to {_MAX_NAME_LENGTH} printable characters")
    expires_at = None if options.lifetime is None else now + _lifetime_seconds(options.lifetime)
    user = await users.find(database, email)
    max_keys = _max_keys(settings, user)
    key = secret.new_key(settings.server.key_prefix)
    new = NewKey(
        user=user,
        name=options.name,
        digest=secret.digest(key.encode()),
        hint=secret.hint(key, settings.server.key_prefix),
        expires_at=expires_at,
        cache_breakpoints=options.cache_breakpoints,
    )
    record = await create_key(database, new, max_keys=max_keys, now=now)
    if record is None:
        raise AccountError(
            f"{user.email} has {max_keys} live {'key' if max_keys == 1 else 'keys'}, all that "
            f"plan {user.plan!r} allows; `relay key revoke KEY_ID` withdraws one, "
            f"`relay key list --user {user.email}` shows them"
        )
    return Issued(Secret(key), record, user)


async def revoke(database: Database, key_id: str, now: float) -> Key:
    """Revoke a key by its id, or by a prefix that no other id shares.

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
    record = await revoke_key(database, found[0].id, now) if found else None
    if record is None:
        raise AccountError(f"no key has the id {key_id}; `relay key list` shows them")
    return record


def _lifetime_seconds(lifetime: str) -> int:
    try:
        seconds = clock.seconds(lifetime)
    except ValueError as error:
        raise InvalidError(f"a key's lifetime: {error}") from None
    if seconds > _MAX_LIFETIME_SECONDS:
        raise InvalidError("a key's lifetime: at most 36500d, or none at all for one that stays")
    return seconds


def _max_keys(settings: Settings, user: User) -> int:
    try:
        return users.plan_of(settings, user.plan).max_keys
    except InvalidError as error:
        raise AccountError(
            f"{user.email} is on a plan that is gone: {error}; "
            f"`relay user set-plan {user.email} PLAN` moves them"
        ) from None

"""Keys given out and withdrawn.

Decides how many keys a plan allows, how long one may last and what it may be called.
The key itself leaves here once, in `Issued`; only its digest and hint are kept.
"""

import re
from dataclasses import dataclass

from relay import clock, secret
from relay.accounts import AccountError, InvalidError
from relay.accounts import users as people
from relay.config import Settings
from relay.secret import Secret
from relay.store import keys
from relay.store.database import Database
from relay.store.keys import Key, User

_LONGEST = 36_500 * 86_400  # a hundred years: what is longer is a slip
_NAME_LENGTH = 100
_KEY_ID = re.compile(r"key_[0-9a-f]{1,16}")


@dataclass(frozen=True, slots=True)
class Issued:
    """A new key, its record and its user; nowhere else is the key itself."""

    key: Secret
    record: Key
    user: User


async def create(
    database: Database,
    settings: Settings,
    email: str,
    *,
    name: str,
    expires: str | None,
    now: float,
    cache_breakpoints: bool = True,
) -> Issued:
    """Make a key for the account of `email`; `expires` is a duration such as `30d`.

    Raises:
        AccountError: no such account, too many keys, or a name or duration that cannot be.
    """
    if len(name) > _NAME_LENGTH or not name.isprintable():
        raise InvalidError(f"a key's name has up to {_NAME_LENGTH} printable characters")
    expires_at = None if expires is None else now + _lifetime(expires)
    user = await people.find(database, email)
    most = _most_keys(settings, user)
    key = secret.new_key(settings.server.key_prefix)
    record = await keys.create_key(
        database,
        user=user,
        name=name,
        digest=secret.digest(key.encode()),
        hint=secret.hint(key, settings.server.key_prefix),
        now=now,
        expires_at=expires_at,
        most=most,
        cache_breakpoints=cache_breakpoints,
    )
    if record is None:
        raise AccountError(
            f"{user.email} has {most} live {'key' if most == 1 else 'keys'}, all that plan "
            f"{user.plan!r} allows; `relay key revoke KEY_ID` withdraws one, "
            f"`relay key list --user {user.email}` shows them"
        )
    return Issued(Secret(key), record, user)


async def revoke(database: Database, key_id: str, now: float) -> Key:
    """Withdraw the key of an id, or of the beginning of one that no other id shares.

    Raises:
        AccountError: no key has that id, or several begin so.
    """
    if not _KEY_ID.fullmatch(key_id):  # not repeated: it may be a key, pasted by mistake
        raise InvalidError(
            "that is no key id; one looks like key_0123456789abcdef, `relay key list` shows them"
        )
    found = await keys.find_keys(database, key_id)
    if len(found) > 1:
        raise AccountError(f"{len(found)} keys have ids that begin with {key_id}; write more of it")
    record = await keys.revoke_key(database, found[0].id, now) if found else None
    if record is None:
        raise AccountError(f"no key has the id {key_id}; `relay key list` shows them")
    return record


def _lifetime(expires: str) -> int:
    try:
        lifetime = clock.seconds(expires)
    except ValueError as error:
        raise InvalidError(f"a key's lifetime: {error}") from None
    if lifetime > _LONGEST:
        raise InvalidError("a key's lifetime: at most 36500d, or none at all for one that stays")
    return lifetime


def _most_keys(settings: Settings, user: User) -> int:
    try:
        return people.plan_of(settings, user.plan).max_keys
    except InvalidError as error:
        raise AccountError(
            f"{user.email} is on a plan that is gone: {error}; "
            f"`relay user set-plan {user.email} PLAN` moves them"
        ) from None

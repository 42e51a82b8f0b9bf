"""Keys of the provisioning API, each with the scopes that it was given.

Decides which scopes there are, and how a key looks. The key itself leaves here once.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from relay import clock, secret
from relay.accounts import AccountError, InvalidError
from relay.config import Settings
from relay.secret import Secret
from relay.store import admin_keys as stored
from relay.store.admin_keys import AdminKey
from relay.store.database import Database

_THINGS: Final = ("people", "keys", "plans", "credit", "usage", "upstreams", "spend_limits")
SCOPES: Final = tuple(
    [f"{thing}:{right}" for thing in _THINGS for right in ("read", "write")
     if f"{thing}:{right}" not in ("plans:write", "usage:write")]
)  # fmt: skip
PREFIX: Final = "admin-"  # after that of all keys
_NAME: Final = re.compile(r"[\x20-\x7e]{0,100}")


@dataclass(frozen=True, slots=True)
class IssuedAdminKey:
    """A new key with its record. Nothing else has the key itself."""

    key: Secret
    record: AdminKey


def prefix_of(settings: Settings) -> str:
    """The beginning of every key of the provisioning API."""
    return settings.server.key_prefix + PREFIX


async def create(
    database: Database,
    settings: Settings,
    scopes: Sequence[str],
    *,
    name: str = "",
    lifetime: str | None = None,
    now: float,
) -> IssuedAdminKey:
    """Make a key.

    Raises:
        InvalidError: no scope, a scope that is not there, a wrong name or lifetime.
    """
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        what = f"{unknown[0]!r} is no scope" if unknown else "a key needs at least one scope"
        raise InvalidError(f"{what}; there are: {', '.join(SCOPES)}")
    if not _NAME.fullmatch(name):
        raise InvalidError("a key's name has up to 100 printable ASCII characters")
    try:
        expires_at = None if lifetime is None else now + clock.seconds(lifetime)
    except ValueError as error:
        raise InvalidError(f"a key's lifetime: {error}") from None
    prefix = prefix_of(settings)
    text = secret.new_key(prefix)
    hint = secret.hint(text, prefix)
    new = AdminKey("", name, hint, tuple(dict.fromkeys(scopes)), now, expires_at, None)
    record = await stored.create_admin_key(database, new, secret.digest(text.encode()))
    return IssuedAdminKey(Secret(text), record)


async def revoke(database: Database, key_id: str, now: float) -> None:
    """Revoke a key. Raises AccountError: no live key has this id."""
    if not await stored.revoke_admin_key(database, key_id, now):
        raise AccountError(
            f"no live admin key has the id {key_id!r}; `relay admin-key list` shows them"
        )

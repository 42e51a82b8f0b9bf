"""Checks the admin keys of calls: their validity, their scopes and their rate.

A wrong key counts against the network that it comes from, so that nobody tries keys at a rate.
Decides which calls are let in. Must not know what they do.
"""

from typing import Final

from relay.accounts.throttle import Throttle, address_name
from relay.provisioning.problems import Problem
from relay.secret import digest
from relay.store.admin_keys import AdminKey, find_admin_key
from relay.store.database import Database

_CALLS_PER_MINUTE: Final = 600  # of one key
_FAILURES_PER_MINUTE: Final = 30  # of one network
_MAX_KNOWN: Final = 4096
_HOW_TO: Final = "Send an admin key as `Authorization: Bearer KEY` or `x-api-key: KEY`."
_CHALLENGE: Final = ((b"www-authenticate", b"Bearer"),)


class KeyCheck:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._calls = Throttle(_CALLS_PER_MINUTE)
        self._failures = Throttle(_FAILURES_PER_MINUTE)
        # Digests of keys that were good lately, in the order of their last use.
        self._known: dict[bytes, None] = {}

    async def admit(
        self, headers: dict[bytes, bytes], peer: str, prefix: str, now: float
    ) -> AdminKey:
        """The admin key of a call; `prefix` begins every one.

        Raises:
            Problem: 401 without a live key, 429 too many calls.
            StoreError: SQLite failed.
        """
        network = address_name(peer)
        text = _key_of(headers)
        known_as = digest(text)
        # A key that was good is not kept out by wrong ones from the same network.
        if known_as not in self._known and (seconds := self._failures.blocked(network, now)):
            raise _too_many("wrong keys", self._failures.allowed, seconds)
        key = None
        if text.startswith(prefix.encode()):
            key = await find_admin_key(self._database, known_as)
        if key is None or not key.is_live(now):
            self._failures.wait(network, now)
            self._known.pop(known_as, None)
            raise Problem(401, f"{_fault(text, prefix)} {_HOW_TO}", headers=_CHALLENGE)
        if seconds := self._calls.wait(key.id, now):
            raise _too_many("calls", self._calls.allowed, seconds)
        self._known.pop(known_as, None)
        if len(self._known) >= _MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[known_as] = None
        return key


def check_scope(key: AdminKey, scope: str) -> None:
    """Raises Problem: 403, the key has not this scope."""
    if scope not in key.scopes:
        raise Problem(
            403,
            f"This key has not the scope {scope}; it has {', '.join(key.scopes)}. Make another "
            f"one: `relay admin-key create --scope {scope}`.",
        )


def _fault(text: bytes, prefix: str) -> str:
    """Why a key is not accepted."""
    if not text:
        return "There is no key in this call."
    if not text.startswith(prefix.encode()):
        return f"This is no admin key: those begin with {prefix}."
    return "This admin key is not known here, or is revoked or expired."


def _key_of(headers: dict[bytes, bytes]) -> bytes:
    bearer = headers.get(b"authorization", b"")
    if bearer[:7].lower() == b"bearer ":
        return bearer[7:].strip()
    return headers.get(b"x-api-key", b"")


def _too_many(things: str, allowed: int, seconds: int) -> Problem:
    return Problem(
        429,
        f"Too many {things}: {allowed} a minute are allowed. Try again in {seconds} s.",
        headers=((b"retry-after", b"%d" % seconds),),
    )

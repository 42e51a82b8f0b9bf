"""Who may call: admin keys, their scopes, and how often.

A wrong key costs a token of its caller's address, so that nobody tries keys at a rate. Decides
which calls are let in. Must not know what they do.
"""

from typing import Final

from relay.provisioning.problems import Problem
from relay.quota.bucket import TokenBucket
from relay.secret import digest
from relay.store.admin_keys import AdminKey, find_admin_key
from relay.store.database import Database

_CALLS_PER_MINUTE: Final = 600  # of one key
_FAILURES_PER_MINUTE: Final = 30  # of one address
_MAX_KNOWN: Final = 4096
_MINUTE_MS: Final = 60_000
_HOW_TO: Final = "Send an admin key as `Authorization: Bearer KEY` or `x-api-key: KEY`."
_CHALLENGE: Final = ((b"www-authenticate", b"Bearer"),)


class Access:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._calls: dict[str, TokenBucket] = {}
        self._failures: dict[str, TokenBucket] = {}
        self._known: set[bytes] = set()  # digests of keys that were good lately

    async def admit(
        self, headers: dict[bytes, bytes], peer: str, prefix: str, now: float
    ) -> AdminKey:
        """The admin key of a call; `prefix` begins every one.

        Raises:
            Problem: 401 without a live key, 429 too many calls.
            StoreError: SQLite failed.
        """
        moment = int(now * 1000)
        failures = _bucket(self._failures, peer, _FAILURES_PER_MINUTE)
        text = _key_of(headers)
        known_as = digest(text)
        # Who has a key is not kept out by others at the same address.
        if not failures.has_room(1, moment) and known_as not in self._known:
            raise _too_many(failures, moment)
        key = None
        if text.startswith(prefix.encode()):
            key = await find_admin_key(self._database, known_as)
        if key is None or not key.is_live(now):
            failures.take(1, moment)
            self._known.discard(known_as)
            raise Problem(401, f"{_fault(text, prefix)} {_HOW_TO}", headers=_CHALLENGE)
        calls = _bucket(self._calls, key.id, _CALLS_PER_MINUTE)
        if not calls.take(1, moment):
            raise _too_many(calls, moment)
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known.add(known_as)
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


def _bucket(known: dict[str, TokenBucket], name: str, size: int) -> TokenBucket:
    bucket = known.get(name)
    if bucket is None:
        if len(known) >= _MAX_KNOWN:
            known.clear()
        bucket = known[name] = TokenBucket(size, _MINUTE_MS)
    return bucket


def _too_many(bucket: TokenBucket, now: int) -> Problem:
    seconds = max(1, -((now - bucket.ready_at(1, now)) // 1000))
    return Problem(
        429,
        f"Too many calls: {bucket.size} a minute are allowed. Try again in {seconds} s.",
        headers=((b"retry-after", b"%d" % seconds),),
    )

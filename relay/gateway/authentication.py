"""Finds the caller of a key, with one dict look-up."""

import time
from collections.abc import Iterable
from typing import Final

from relay.errors import FORBIDDEN, UNAUTHENTICATED, RelayError
from relay.gateway.key_advice import missing_key_words, unknown_key_words
from relay.gateway.key_rules import refuse_disabled
from relay.secret import digest
from relay.store.keys import LiveKey

_MAX_CACHED_KEYS: Final = 1024  # the cache is cleared whenever a key is made or revoked
_INCORRECT_KEY: Final = "Incorrect API key provided"  # LiteLLM takes a 401 for a 400 without it


class KeyIndex:
    """The live keys, by digest. `replace` and `update` put those of the database into force."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, LiveKey] = {}
        self._by_account: dict[str, list[LiveKey]] = {}
        self._by_key: dict[bytes, LiveKey] = {}  # a cache, which saves hashing the key again

    def replace(self, keys: Iterable[LiveKey]) -> None:
        """Replace all live keys."""
        self._by_digest.clear()
        self._by_account.clear()
        self.update((), keys)

    def update(self, accounts: Iterable[str], keys: Iterable[LiveKey]) -> None:
        """Replace the live keys of some accounts."""
        for account in accounts:
            for key in self._by_account.pop(account, ()):
                del self._by_digest[key.digest]
        for key in keys:
            self._by_digest[key.digest] = key
            self._by_account.setdefault(key.user_id, []).append(key)
        self._by_key.clear()

    def all(self) -> Iterable[LiveKey]:
        """All live keys."""
        return self._by_digest.values()

    def emails(self, key_ids: set[str]) -> dict[str, str]:
        """The accounts' addresses of some keys, for the operator."""
        return {key.key_id: key.email for key in self._by_digest.values() if key.key_id in key_ids}

    def of_account(self, user_id: str) -> list[str]:
        """The ids of an account's keys."""
        return [key.key_id for key in self._by_account.get(user_id, ())]

    def identify(self, headers: dict[bytes, bytes], target: bytes = b"") -> LiveKey:
        """The caller whose key a request carries. `target` has no key, but a caller may think so.

        Claude Code may send both fields with different values: either may be the key.

        Raises:
            RelayError: 401 without a live key, 403 for a suspended account.
        """
        caller = self._by_key.get(headers.get(b"x-api-key", b"")) or self.find(headers)
        if caller is None:
            key, bearer = headers.get(b"x-api-key", b""), _bearer(headers)
            words = unknown_key_words(key, bearer) if key or bearer else ""
            raise RelayError(UNAUTHENTICATED, words or missing_key_words(headers, target))
        if caller.expires_at is not None and caller.expires_at <= time.time():
            raise RelayError(
                UNAUTHENTICATED, f"{_INCORRECT_KEY}: it has expired. Ask for a new one."
            )
        if caller.suspended:
            reason = f": {caller.suspended_reason}" if caller.suspended_reason else ""
            reason += "" if reason.endswith((".", "!", "?")) else "."
            raise RelayError(
                FORBIDDEN,
                f"This account is suspended{reason} Ask the operator of this relay to resume it.",
            )
        if caller.disabled:
            raise refuse_disabled()
        return caller

    def find(self, headers: dict[bytes, bytes]) -> LiveKey | None:
        """The caller whose key a request carries, even if expired or suspended; None if unknown."""
        key = headers.get(b"x-api-key")
        caller = self._look_up(key) if key else None
        if caller is None and (bearer := _bearer(headers)):
            caller = self._look_up(bearer)
        return caller

    def _look_up(self, key: bytes) -> LiveKey | None:
        caller = self._by_key.get(key)
        if caller is None:
            caller = self._by_digest.get(digest(key))
            if caller is not None:
                if len(self._by_key) >= _MAX_CACHED_KEYS:
                    self._by_key.clear()
                self._by_key[key] = caller
        return caller


def _bearer(headers: dict[bytes, bytes]) -> bytes:
    value = headers.get(b"authorization", b"")
    return value[7:].strip() if value[:7].lower() == b"bearer " else b""

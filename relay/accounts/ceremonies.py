"""Unfinished steps between two requests of one browser: a log-in that lacks its second step, a
challenge for a passkey, a visit to another provider.

Decides how long each may take, and that each is finished once. Kept in memory, bounded for each
name and in all. Must not know what the steps are.
"""

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from relay.accounts.tokens import new_token, token_digest

T = TypeVar("T")

LIFETIME_SECONDS: Final = 300
_MAX_IN_ALL: Final = 5_000
_MAX_OF_NAME: Final = 10


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    name: str
    expires_at: float
    value: T


class Ceremonies(Generic[T]):
    """Those of one kind; the oldest go first."""

    def __init__(self, seconds: float = LIFETIME_SECONDS) -> None:
        self._seconds = seconds
        self._entries: dict[bytes, _Entry[T]] = {}  # by the digest of their token
        self._of_name: dict[str, list[bytes]] = {}

    def start(self, name: str, value: T, now: float) -> str:
        """The token of a new one, which its browser brings back. `name`: whose it is."""
        while self._entries:
            oldest = next(iter(self._entries))
            if self._entries[oldest].expires_at > now and len(self._entries) < _MAX_IN_ALL:
                break
            self._drop(oldest)
        own = self._of_name.get(name, [])
        if len(own) >= _MAX_OF_NAME:
            self._drop(own[0])
        token = new_token()
        digest = token_digest(token)
        self._entries[digest] = _Entry(name, now + self._seconds, value)
        self._of_name.setdefault(name, []).append(digest)
        return token

    def find(self, token: str, now: float) -> T | None:
        """The unfinished step of a token; None if it is finished, too old, or never was."""
        entry = self._entries.get(token_digest(token))
        return None if entry is None or entry.expires_at <= now else entry.value

    def take(self, token: str, now: float) -> T | None:
        """The same, and finish it."""
        value = self.find(token, now)
        digest = token_digest(token)
        if digest in self._entries:
            self._drop(digest)
        return value

    def drop(self, name: str) -> None:
        """Finish all of a name."""
        for digest in list(self._of_name.get(name, ())):
            self._drop(digest)

    def __len__(self) -> int:
        return len(self._entries)

    def _drop(self, digest: bytes) -> None:
        name = self._entries.pop(digest).name
        own = self._of_name[name]
        own.remove(digest)
        if not own:
            del self._of_name[name]

"""Reads credentials, makes keys, and keeps both out of logs.

An upstream credential is a `Secret`, which prints as dots. A caller's key is made here,
shown once, and stored only as its SHA-256: a key has 256 random bits, so a slow hash would
protect nothing.
"""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

_HINT_CHARACTERS: Final = 4


class Secret:
    """A string that is hidden in a repr, a log or a traceback."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The plain string, for the one place that sends it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(•••)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and secrets.compare_digest(
            self._value.encode(), other._value.encode()
        )

    def __hash__(self) -> int:
        return hash(self._value)


def resolve(reference: str) -> Secret:
    """Read a secret that is given literally, as `env:NAME` or as `file:/path`.

    Raises:
        ValueError: the variable or file is missing, or its content is no header value.
    """
    if reference.startswith("env:"):
        name = reference[4:]
        value = os.environ.get(name, "")
        if not value:
            raise ValueError(f"the environment variable {name} is not set")
    elif reference.startswith("file:"):
        path = Path(reference[5:])
        try:
            value = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            raise ValueError(f"cannot read {path}: {reason}") from None
        if not value:
            raise ValueError(f"{path} is empty")
    else:
        value = reference
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("a secret is one word of printable ASCII characters")
    return Secret(value)


def derived(secret: Secret, purpose: bytes) -> bytes:
    """A key of 32 octets for one purpose (up to 16 octets), independent of other purposes."""
    return hashlib.blake2b(secret.reveal().encode(), digest_size=32, person=purpose).digest()


def new_key(prefix: str) -> str:
    """Make a caller's key: the prefix and 43 URL-safe characters (256 random bits)."""
    return prefix + secrets.token_urlsafe(32)


def digest(key: bytes) -> bytes:
    """A key's SHA-256, 32 octets, which is stored and looked up in place of the key."""
    return hashlib.sha256(key).digest()


def hint(key: str, prefix: str) -> str:
    """The short form of a key for display: `sk-llmapi-…x4Tq`."""
    return f"{prefix}…{key[-_HINT_CHARACTERS:]}"


def same(stated: str, expected: str) -> bool:
    """Whether two secrets are equal; takes as long whatever differs."""
    return secrets.compare_digest(stated.encode(), expected.encode())

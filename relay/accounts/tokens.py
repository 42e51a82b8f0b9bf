"""Tokens of sessions and one-time links: 256 random bits, of which only the SHA-256 is stored."""

import hashlib
import hmac
import secrets
from typing import Final

_OCTETS: Final = 32
_MAX_CHARACTERS: Final = 64


def new_token() -> str:
    """A token of 43 URL-safe characters."""
    return secrets.token_urlsafe(_OCTETS)


def token_digest(token: str) -> bytes:
    """The stored digest of a token; empty for a text that cannot be one."""
    if len(token) > _MAX_CHARACTERS:
        return b""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def form_token(session_token: str) -> str:
    """The secret in the forms of a session, so that no other site can send them."""
    return hmac.new(session_token.encode(), b"relay form", hashlib.sha256).hexdigest()

"""Seals secrets of accounts for the database: AES-GCM, bound to the account.

The key is derived from the relay's own, which is in the same database: a copy of single tables, or
a query that leaks, shows no secret. Must not know what is sealed.
"""

import hashlib
import os
from typing import Final

from relay.net.off_loop import off_loop
from relay.store.database import Database
from relay.store.server_secret import sealing_key

_NONCE_OCTETS: Final = 12
_PURPOSE: Final = b"account secrets"


class UnsealableError(Exception):
    """The secret was sealed with another key, or for another account."""


class Sealing:
    """Seals and opens. Its key is read at the first use."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._key = b""

    async def seal(self, secret: bytes, user_id: str) -> bytes:
        """A secret as it may be stored."""
        key = await self._read_key()

        def work() -> bytes:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            nonce = os.urandom(_NONCE_OCTETS)
            return nonce + AESGCM(key).encrypt(nonce, secret, user_id.encode())

        return await off_loop("sealing", work)

    async def open(self, sealed: bytes, user_id: str) -> bytes:
        """The secret itself.

        Raises:
            UnsealableError: it was sealed with another key, or for another account.
        """
        key = await self._read_key()

        def work() -> bytes:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            nonce, text = sealed[:_NONCE_OCTETS], sealed[_NONCE_OCTETS:]
            try:
                return AESGCM(key).decrypt(nonce, text, user_id.encode())
            except (InvalidTag, ValueError):
                raise UnsealableError("sealed with another key, or for another account") from None

        return await off_loop("sealing", work)

    async def _read_key(self) -> bytes:
        if not self._key:
            key = await sealing_key(self._database)
            self._key = hashlib.blake2b(key, digest_size=32, person=_PURPOSE).digest()
        return self._key

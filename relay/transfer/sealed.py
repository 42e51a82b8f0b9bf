"""A stream of octets, encrypted and authenticated with a passphrase.

Decides the format: a magic line, a salt, a nonce's prefix, then blocks of AES-256-GCM, each bound
to its place and the last one marked as such (the STREAM construction of Hoang, Reyhanitabar,
Rogaway and Vizár, 2015), so that a block that is missing, repeated or cut is noticed. The key is
derived by scrypt (RFC 7914). Must not know the stream's contents.
"""

import hashlib
import secrets
from typing import BinaryIO, Final

from relay.transfer import TransferError

MAGIC: Final = b"RELAY-MOVE-1\n"
_SALT_OCTETS: Final = 16
_PREFIX_OCTETS: Final = 7
_BLOCK_OCTETS: Final = 1024 * 1024
_TAG_OCTETS: Final = 16
_SCRYPT: Final = {"n": 2**15, "r": 8, "p": 1, "maxmem": 64 * 1024 * 1024, "dklen": 32}
_WRONG: Final = "the passphrase is wrong, or the file is damaged"


def _key(passphrase: str, salt: bytes) -> bytes:
    return hashlib.scrypt(passphrase.encode(), salt=salt, **_SCRYPT)


def _nonce(prefix: bytes, number: int, last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + bytes([last])


class SealedWriter:
    """Encrypts its input. `close` writes the last block, not the file's end."""

    def __init__(self, file: BinaryIO, passphrase: str) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        salt = secrets.token_bytes(_SALT_OCTETS)
        self._prefix = secrets.token_bytes(_PREFIX_OCTETS)
        self._cipher = AESGCM(_key(passphrase, salt))
        self._file = file
        self._pending = bytearray()
        self._number = 0
        file.write(MAGIC + salt + self._prefix)

    def write(self, octets: bytes) -> int:
        self._pending += octets
        while len(self._pending) > _BLOCK_OCTETS:  # one more follows, so this is not the last
            self._write_block(bytes(self._pending[:_BLOCK_OCTETS]), last=False)
            del self._pending[:_BLOCK_OCTETS]
        return len(octets)

    def close(self) -> None:
        self._write_block(bytes(self._pending), last=True)
        self._pending.clear()

    def _write_block(self, plain: bytes, *, last: bool) -> None:
        nonce = _nonce(self._prefix, self._number, last)
        self._file.write(self._cipher.encrypt(nonce, plain, MAGIC))
        self._number += 1


class SealedReader:
    """Decrypts a file whose magic line has been read."""

    def __init__(self, file: BinaryIO, passphrase: str) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        salt = file.read(_SALT_OCTETS)
        self._prefix = file.read(_PREFIX_OCTETS)
        if len(self._prefix) < _PREFIX_OCTETS:
            raise TransferError(_WRONG)
        self._cipher = AESGCM(_key(passphrase, salt))
        self._invalid = InvalidTag
        self._file = file
        self._ahead = file.read(_BLOCK_OCTETS + _TAG_OCTETS)
        self._plain = b""
        self._number = 0
        self._ended = False

    def read(self, size: int = -1) -> bytes:
        """Up to `size` octets; fewer at the end only.

        Raises:
            TransferError: the passphrase is wrong, or the file is damaged or cut.
        """
        parts = bytearray()
        while size < 0 or len(parts) < size:
            if not self._plain:
                if self._ended:
                    break
                self._read_block()
                continue
            wanted = len(self._plain) if size < 0 else size - len(parts)
            parts += self._plain[:wanted]
            self._plain = self._plain[wanted:]
        return bytes(parts)

    def _read_block(self) -> None:
        block, self._ahead = self._ahead, self._file.read(_BLOCK_OCTETS + _TAG_OCTETS)
        self._ended = not self._ahead
        try:
            nonce = _nonce(self._prefix, self._number, self._ended)
            self._plain = self._cipher.decrypt(nonce, block, MAGIC)
        except (self._invalid, ValueError):
            raise TransferError(_WRONG) from None
        self._number += 1

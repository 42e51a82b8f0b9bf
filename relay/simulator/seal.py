"""The signatures of thinking blocks.

Pure. Decides whether a block comes back unmodified: the signature is an HMAC over the text of
the block as the client got it. A block with omitted text has an empty one; its signature stands
for the hidden text.
"""

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode
from typing import Final

_SALT_OCTETS: Final = 16
_CODE_OCTETS: Final = 180  # real signatures are a few hundred characters long


class Seal:
    """Signs and verifies with one secret, which is the same after a restart with one seed."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        self._secret = hashlib.sha256(b"thinking\0" + secret.encode()).digest()

    def sign(self, visible: str, hidden: str) -> str:
        """The signature of a block that shows `visible` and stands for `hidden`."""
        salt = hashlib.sha256(hidden.encode()).digest()[:_SALT_OCTETS]
        return b64encode(salt + self._code(salt, visible)).decode()

    def verify(self, visible: str, signature: str) -> bool:
        """Whether this simulator made `signature` for a block that shows `visible`."""
        try:
            raw = b64decode(signature, validate=True)
        except (binascii.Error, ValueError):
            return False
        salt, code = raw[:_SALT_OCTETS], raw[_SALT_OCTETS:]
        return hmac.compare_digest(code, self._code(salt, visible))

    def _code(self, salt: bytes, visible: str) -> bytes:
        mac = hmac.digest(self._secret, salt + visible.encode("utf-8", "surrogatepass"), "sha256")
        return hashlib.shake_256(mac).digest(_CODE_OCTETS)

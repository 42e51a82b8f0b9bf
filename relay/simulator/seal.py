"""The signatures of thinking blocks.

A block comes back unmodified or not at all: the signature is an HMAC over the thinking
text as the client saw it. A block whose text is omitted carries an empty text, and its
signature stands for what was hidden.
"""

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode

_SALT = 16
_LENGTH = 180  # real signatures are a few hundred characters long


class Seal:
    """Signs and verifies with one secret, so that a restart with the same seed still verifies."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        self._secret = hashlib.sha256(b"thinking\0" + secret.encode()).digest()

    def sign(self, visible: str, hidden: str) -> str:
        """The signature of a block that shows `visible` and stands for `hidden`."""
        salt = hashlib.sha256(hidden.encode()).digest()[:_SALT]
        return b64encode(salt + self._code(salt, visible)).decode()

    def verify(self, visible: str, signature: str) -> bool:
        """Whether this simulator made `signature` for a block that shows `visible`."""
        try:
            raw = b64decode(signature, validate=True)
        except (binascii.Error, ValueError):
            return False
        salt, code = raw[:_SALT], raw[_SALT:]
        return hmac.compare_digest(code, self._code(salt, visible))

    def _code(self, salt: bytes, visible: str) -> bytes:
        mac = hmac.digest(self._secret, salt + visible.encode("utf-8", "surrogatepass"), "sha256")
        return hashlib.shake_256(mac).digest(_LENGTH)

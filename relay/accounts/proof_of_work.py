"""A puzzle that costs a browser half a second, and a flood of sign-ups a great deal.

The browser finds a number for which SHA-256 of `challenge:number` begins with so many zero bits.
Decides whether an answer is right, in time, and was never given before. Must not know who asks.
"""

import hashlib
import hmac
import os
from typing import Final

_LIFETIME_SECONDS: Final = 1800
_MAX_USED: Final = 20_000
_MAX_ANSWER_CHARACTERS: Final = 20


class ProofOfWork:
    """Challenges are signed, so those that nobody solves take no memory."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._used: dict[str, float] = {}  # until when it would be good, oldest first

    def challenge(self, bits: int, now: float) -> str:
        """A new challenge: `bits.expiry.nonce.signature`."""
        text = f"{bits}.{int(now) + _LIFETIME_SECONDS}.{os.urandom(12).hex()}"
        return f"{text}.{self._sign(text)}"

    def accept(self, challenge: str, answer: str, bits: int, now: float) -> bool:
        """Whether an answer solves a challenge of ours of so many bits, for the first time."""
        text, _, signature = challenge.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(text).encode()):
            return False
        stated, expiry, _ = text.split(".")
        if int(stated) < bits or int(expiry) < now or challenge in self._used:
            return False
        if not answer.isdecimal() or len(answer) > _MAX_ANSWER_CHARACTERS:
            return False
        digest = hashlib.sha256(f"{challenge}:{answer}".encode()).digest()
        if int.from_bytes(digest, "big") >> (256 - bits):
            return False
        self._forget(now)
        self._used[challenge] = int(expiry)
        return True

    def _forget(self, now: float) -> None:
        while self._used:
            oldest = next(iter(self._used))
            if self._used[oldest] > now and len(self._used) < _MAX_USED:
                break
            del self._used[oldest]

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]

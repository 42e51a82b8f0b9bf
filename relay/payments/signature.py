"""Whether an event is Stripe's: its scheme v1, an HMAC of the moment and the octets.

Decides which signatures are believed. Must not know what is signed.
"""

import hashlib
import hmac
from typing import Final

from relay.secret import Secret

_TOLERANCE_SECONDS: Final = 300.0
_MAX_SIGNATURES: Final = 16  # Stripe sends two while a secret is rolled


class SignatureError(Exception):
    """The event is not believed; the message is for the operator."""


def verify(header: str, body: bytes, secret: Secret, now: float) -> None:
    """Check the Stripe-Signature field of an event, before anything reads the event.

    Raises:
        SignatureError: it is not Stripe's, or too old.
    """
    moment, signatures = _read(header)
    if abs(now - int(moment)) > _TOLERANCE_SECONDS:
        raise SignatureError("the event was signed more than five minutes ago, or the clock is off")
    signed = moment.encode() + b"." + body
    expected = hmac.new(secret.reveal().encode(), signed, hashlib.sha256).hexdigest().encode()
    # All are compared, so that the time does not tell which one fits.
    matches = [hmac.compare_digest(expected, one) for one in signatures]
    if not any(matches):
        raise SignatureError("no signature fits payments.webhook_secret")


def _read(header: str) -> tuple[str, list[bytes]]:
    """The moment and the signatures of the field: `t=1700000000,v1=0f…,v1=…,v0=…`."""
    moment, signatures = "", []
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        if name == "t":
            moment = value
        elif name == "v1":
            signatures.append(value.encode("utf-8", "replace"))
    if not (moment.isascii() and moment.isdecimal() and len(moment) <= 12):
        raise SignatureError("Stripe-Signature has no moment")
    if not 0 < len(signatures) <= _MAX_SIGNATURES:
        raise SignatureError("Stripe-Signature has no signature of scheme v1, or too many")
    return moment, signatures

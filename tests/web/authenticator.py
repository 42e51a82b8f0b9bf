"""A device with passkeys, in Python: answers challenges as a browser does."""

import hashlib
import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

_PRESENT, _VERIFIED, _HAS_KEY = 1, 4, 64


def encoded(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Authenticator:
    """One passkey; its fields may be changed to make wrong answers."""

    origin: str
    rp_id: str = "localhost"
    count: int = 0
    flags: int = _PRESENT | _VERIFIED
    id: bytes = field(default_factory=lambda: os.urandom(32))
    user: str = ""
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def _data(self, extra: bytes = b"", flags: int = 0) -> bytes:
        head = hashlib.sha256(self.rp_id.encode()).digest()
        return head + bytes([self.flags | flags]) + self.count.to_bytes(4, "big") + extra

    def _client_data(self, kind: str, challenge: str) -> bytes:
        return json.dumps(
            {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}
        ).encode()

    def _credential(self, response: dict[str, Any]) -> str:
        return json.dumps(
            {
                "id": encoded(self.id),
                "rawId": encoded(self.id),
                "type": "public-key",
                "clientExtensionResults": {},
                "response": response,
            }
        )

    def make(self, options: dict[str, Any]) -> str:
        """A new passkey for the challenge of `options`."""
        self.user = options["user"]["id"]
        point = self.key.public_key().public_numbers()
        x, y = point.x.to_bytes(32, "big"), point.y.to_bytes(32, "big")
        cose = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: x, -3: y})
        extra = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + cose
        attestation = {"fmt": "none", "attStmt": {}, "authData": self._data(extra, _HAS_KEY)}
        client_data = self._client_data("webauthn.create", options["challenge"])
        return self._credential(
            {
                "clientDataJSON": encoded(client_data),
                "attestationObject": encoded(cbor2.dumps(attestation)),
                "transports": ["internal"],
            }
        )

    def answer(self, options: dict[str, Any]) -> str:
        """The answer to the challenge of `options`."""
        data = self._data()
        client_data = self._client_data("webauthn.get", options["challenge"])
        signed = data + hashlib.sha256(client_data).digest()
        return self._credential(
            {
                "clientDataJSON": encoded(client_data),
                "authenticatorData": encoded(data),
                "signature": encoded(self.key.sign(signed, ec.ECDSA(hashes.SHA256()))),
                "userHandle": self.user,
            }
        )

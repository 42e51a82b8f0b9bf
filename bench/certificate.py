"""The certificate of the rivals that speak TLS, and the clients' trust in it.

Decides its names and its kind of key. Must not know a rival.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import trustme

from bench.dialects import HOST


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM: a chain, and its private key."""

    chain: Path
    key: Path

    @classmethod
    def issue(cls, folder: Path) -> Self:
        """A new certificate (P-256) for 127.0.0.1, whose files are in `folder`."""
        issued = trustme.CA().issue_cert(HOST, key_type=trustme.KeyType.ECDSA)
        found = cls(folder / "bench.pem", folder / "bench.key")
        found.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(found.key)
        found.key.chmod(0o600)
        return found


def trusting(protocol: str) -> ssl.SSLContext:
    """The clients' side of TLS: any certificate will do, on loopback."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context

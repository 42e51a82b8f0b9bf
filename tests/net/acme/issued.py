"""A relay whose certificates come from Pebble, and a look at what it serves."""

import asyncio
import ssl
import time
from typing import Any

from cryptography import x509

from relay.net.certificate_source import CertificateSource
from tests.fakes.live import Live
from tests.net.acme.pebble import Pebble


def server_of(pebble: Pebble, *domains: str, **more: Any) -> dict[str, Any]:
    return {
        "tls": "auto",
        "domains": list(domains),
        "listen": [f"127.0.0.1:{pebble.tls_port}"],
        "redirect_listen": [f"127.0.0.1:{pebble.http_port}"],
        "public_url": f"https://{domains[0]}",
        **more,
    }


async def certificate_of(port: int, name: str) -> tuple[str, str]:
    """Issuer and serial number of the certificate that `name` gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    certificate = x509.load_der_x509_certificate(der)
    return certificate.issuer.rfc4514_string(), str(certificate.serial_number)


def source_of(relay: Live) -> CertificateSource:
    assert relay.app.certificates is not None
    return relay.app.certificates


def is_issued(relay: Live, *names: str) -> bool:
    """Whether all have a certificate of Pebble's, which is valid for years, not for 7 days."""
    dates = source_of(relay).dates()
    return sorted(one.name for one in dates) == sorted(names) and all(
        one.not_after > time.time() + 8 * 86_400 for one in dates
    )

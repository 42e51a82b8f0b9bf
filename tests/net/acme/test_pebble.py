"""Certificates from a real ACME server: ordered, kept, renewed, behind real clients."""

import asyncio
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from relay.net.acme import schedule
from relay.net.certificate_source import CertificateSource
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until
from tests.net.acme.pebble import Pebble, needs_pebble, running_pebble

pytestmark = needs_pebble


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    with running_pebble(tmp_path_factory.mktemp("pebble")) as running:
        yield running


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


@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01"])
async def test_a_domain_gets_a_certificate_that_outlives_a_restart(
    relay_with: RelayWith, pebble: Pebble, tmp_path: Path, challenge: str
) -> None:
    name = f"a.{challenge}.example"
    relay = await relay_with(
        server=server_of(pebble, name), acme=pebble.settings(challenge=challenge, email="a@b.c")
    )
    issuer, _ = await certificate_of(pebble.tls_port, name)
    assert "relay has no certificate yet" in issuer  # served at once
    await until(lambda: is_issued(relay, name), within=20)
    assert source_of(relay).faults() == {}
    issuer, _ = await certificate_of(pebble.tls_port, name)
    assert "Pebble Intermediate" in issuer

    (folder,) = (tmp_path / "relay.db.acme").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    kept = sorted(os.listdir(folder))
    assert kept == [f"{name}.pem", "account.key", "account.url"]
    assert all((folder / file).stat().st_mode & 0o777 == 0o600 for file in kept)

    again = CertificateSource(relay.settings)  # as after a restart
    assert again.dates() == source_of(relay).dates()
    task = asyncio.get_running_loop().create_task(again.run())
    await asyncio.sleep(0.1)
    assert not task.done()  # nothing is due
    task.cancel()


async def test_other_callers_are_served_during_a_tls_challenge(
    relay_with: RelayWith, pebble: Pebble
) -> None:
    """Their handshakes go on while the authority's are told apart, on both sides of the switch."""
    relay = await relay_with(
        server=server_of(pebble, *[f"n{number}.example" for number in range(2)]),
        acme=pebble.settings(challenge="tls-alpn-01"),
    )
    served = 0
    names = [f"n{number}.example" for number in range(2)]
    async with asyncio.timeout(30):
        while not is_issued(relay, *names):
            issuer, _ = await certificate_of(pebble.tls_port, "n0.example")
            assert "Pebble" in issuer or "no certificate yet" in issuer
            served += 1
    assert served > 5


async def test_a_failed_challenge_is_explained_and_the_other_tried(
    relay_with: RelayWith, pebble: Pebble, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(schedule, "_RETRY_DELAYS", (0.05,))
    server = server_of(pebble, "auto.example", redirect_listen=["127.0.0.1:0"])  # not port 80
    relay = await relay_with(server=server, acme=pebble.settings())
    await until(lambda: is_issued(relay, "auto.example"), within=20)
    (line,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert line.startswith("no certificate for auto.example from https://localhost:")
    assert "could not connect to auto.example on port 80: open the port in every firewall" in line

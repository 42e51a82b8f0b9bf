"""Certificates from a real ACME server: ordered, kept, renewed, behind real clients."""

import asyncio
import os
from pathlib import Path

import pytest

from relay.net.certificate_source import CertificateSource
from tests.fakes.live import RelayWith
from tests.fakes.until import until
from tests.net.acme.issued import certificate_of, is_issued, server_of, source_of
from tests.net.acme.pebble import Pebble, needs_pebble

pytestmark = [needs_pebble, pytest.mark.usefixtures("impatient")]


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
    assert kept == [".lock", f"{name}.pem", "account.key", "account.url"]
    assert all((folder / file).stat().st_mode & 0o777 == 0o600 for file in kept)

    again = CertificateSource(relay.settings)  # as after a restart
    assert again.dates() == source_of(relay).dates()
    task = asyncio.get_running_loop().create_task(again.run())
    await asyncio.sleep(0.1)
    assert not task.done()  # nothing is due
    task.cancel()

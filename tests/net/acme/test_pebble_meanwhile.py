"""Certificates from a real ACME server: meanwhile, and after a failure."""

import asyncio

import pytest

from relay.net.acme import schedule
from tests.fakes.live import RelayWith
from tests.fakes.until import until
from tests.net.acme.issued import certificate_of, is_issued, server_of
from tests.net.acme.pebble import Pebble, needs_pebble

pytestmark = [needs_pebble, pytest.mark.usefixtures("impatient")]


async def test_other_callers_are_served_during_a_tls_challenge(
    relay_with: RelayWith, pebble: Pebble
) -> None:
    """Their handshakes go on while the authority's are told apart, on both sides of the switch."""
    relay = await relay_with(
        server=server_of(pebble, *[f"n{number}.example" for number in range(1)]),
        acme=pebble.settings(challenge="tls-alpn-01"),
    )
    served = 0
    names = [f"n{number}.example" for number in range(1)]
    async with asyncio.timeout(20):
        while not is_issued(relay, *names):
            issuer, _ = await certificate_of(pebble.tls_port, "n0.example")
            assert "Pebble" in issuer or "no certificate yet" in issuer
            served += 1
    assert served > 3


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

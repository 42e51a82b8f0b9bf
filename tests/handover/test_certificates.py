"""Certificates of an authority across a hand-over: served at once, and never ordered twice."""

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.net.prelude import ACME_PROTOCOL
from tests.fakes.ports import free_port
from tests.fakes.until import until
from tests.net.acme.authority import Authority, running_authority
from tests.net.acme.issued import certificate_of

from .relays import Relays

NAME = "handed.example"
SETTINGS = """
[server]
listen = ["127.0.0.1:{tls}"]
redirect_listen = ["127.0.0.1:{http}"]
public_url = "https://handed.example"
admin_listen = ""
tls = "auto"
domains = ["handed.example"]

[acme]
directory = "{directory}"
ca = "{ca}"
challenge = "{challenge}"

[[upstream]]
name = "a"
base_url = "http://127.0.0.1:9"
api_key = "k"
"""


TOKEN = "dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHQ"  # of the authority's challenges


class Ports:
    """Where a relay listens."""

    def __init__(self) -> None:
        self.tls = free_port()
        self.http = free_port()


@contextlib.contextmanager
def relays_with(
    folder: Path, authority: Authority, ports: Ports, challenge: str
) -> Iterator[Relays]:
    text = SETTINGS.format(
        tls=ports.tls, http=ports.http, directory=f"{authority.url}/directory",
        ca=folder / "authority.pem", challenge=challenge,
    )  # fmt: skip
    (folder / "relay.toml").write_text(text)
    relays = Relays(folder)
    try:
        yield relays
    finally:
        relays.kill()


async def started(relays: Relays) -> None:
    """Start a relay that takes over from the last, and wait until it serves."""
    relays.spawn()
    await until(lambda: "listens on" in relays.said(), within=30)


async def get(port: int, path: str) -> bytes:
    """An answer in plain HTTP, to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: {NAME}\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


async def is_answered(ports: Ports, challenge: str) -> bool:
    """Whether the authority would find the answer that it looks for."""
    if challenge == "http-01":
        answer = await get(ports.http, f"/.well-known/acme-challenge/{TOKEN}")
        return f"\r\n\r\n{TOKEN}.".encode() in answer
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([ACME_PROTOCOL])
    try:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", ports.tls, ssl=context, server_hostname=NAME
        )
    except OSError:
        return False
    chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.transport.abort()
    return bool(chosen == ACME_PROTOCOL)


@pytest.mark.parametrize(
    "challenge", ["http-01", pytest.param("tls-alpn-01", marks=pytest.mark.long)]
)
async def test_an_order_goes_on_across_a_hand_over(tmp_path: Path, challenge: str) -> None:
    """The authority comes to the new process, which answers for the order of the old one, and
    uses its certificate; as does the next one."""
    ports = Ports()
    with (
        running_authority(tmp_path, "held") as authority,
        relays_with(tmp_path, authority, ports, challenge) as relays,
    ):
        await started(relays)
        await until(lambda: "/challenge" in authority.requests, within=10)
        await started(relays)
        assert await is_answered(ports, challenge)
        assert (await certificate_of(ports.tls, NAME))[0] != "CN=middle"
        assert (await get(ports.http, "/")).startswith(b"HTTP/1.1 308 ")
        authority.released.set()
        await until(lambda: "has a new certificate" in relays.said(), within=10)
        assert not await is_answered(ports, challenge)
        first = await certificate_of(ports.tls, NAME)
        assert first[0] == "CN=middle"
        await started(relays)
        assert await certificate_of(ports.tls, NAME) == first
        assert (await get(ports.http, "/")).startswith(b"HTTP/1.1 308 ")
        assert await relays.ended(0) == 0
    assert authority.requests.count("/new-order") == 1
    assert "no certificate for" not in "".join(map(relays.said, range(3)))


@pytest.mark.long
async def test_an_order_of_a_process_that_is_killed_is_placed_anew(tmp_path: Path) -> None:
    ports = Ports()
    with (
        running_authority(tmp_path, "held") as authority,
        relays_with(tmp_path, authority, ports, "http-01") as relays,
    ):
        await started(relays)
        await until(lambda: "/challenge" in authority.requests, within=10)
        await started(relays)
        relays.processes[0].kill()
        await until(lambda: authority.requests.count("/new-order") == 2, within=10)
        authority.released.set()
        await until(lambda: "has a new certificate" in relays.said(), within=10)

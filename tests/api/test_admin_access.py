"""The admin listener's address, and the token that it asks for on TCP."""

import socket
import stat
from pathlib import Path

import httpx
import pytest

from relay import config
from relay.api.admin import proof
from relay.api.admin_token import read_token, token_path, write_token
from relay.store.database import StoreError
from tests.api.admin_listener import admin, admin_relay, served_by
from tests.fakes.live import Live, RelayWith

# --- the address ---


async def test_the_admin_listener_may_be_a_unix_socket(
    admin_relay_with: RelayWith, tmp_path: Path
) -> None:
    path = tmp_path / "admin.sock"
    relay = await admin_relay_with(server={"admin_listen": f"unix:{path}"})
    assert relay.app.admin_address == f"unix:{path}"
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with httpx.AsyncClient(transport=transport) as client:
        assert (await client.get("http://localhost/upstreams")).status_code == 200


async def test_without_an_address_nothing_listens(live: Live) -> None:
    assert live.app.admin_address == ""
    assert live.app.without_admin == ""
    assert live.app.admin.connections == set()


async def test_the_default_is_a_private_socket_beside_the_database(tmp_path: Path) -> None:
    async with admin_relay(tmp_path, server={"admin_listen": "unix"}) as relay:
        path = tmp_path / "relay.db.admin"
        assert relay.app.admin_address == f"unix:{path}"
        assert config.ServerSettings().admin_listen == "unix"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert read_token(relay.settings.database.path) is None
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get("http://localhost/upstreams")).status_code == 200
            refused = await client.get("http://rebound.example/upstreams")
            assert refused.status_code == 403
    assert not path.exists()


async def test_a_socket_that_a_killed_relay_left_is_replaced(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "relay.db.admin"))
    left.close()
    async with admin_relay(tmp_path, server={"admin_listen": "unix"}) as relay:
        assert stat.S_IMODE((tmp_path / "relay.db.admin").stat().st_mode) == 0o600
        assert relay.app.without_admin == ""


async def test_a_default_that_cannot_be_used_is_no_error(tmp_path: Path) -> None:
    """The path of a Unix socket has 107 octets at most."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    async with admin_relay(folder, server={"admin_listen": "unix"}) as relay:
        assert relay.app.admin_address == ""
        assert "too long" in relay.app.without_admin
        assert await served_by(relay) in ("one", "two")


# --- the token ---


TOKENLESS: list[dict[str, str]] = [
    {},
    {"authorization": "Bearer"},
    {"authorization": "Bearer wrong"},
    {"authorization": "Basic d3Jvbmc6"},
    {"x-relay-admin": "PROOF"},
]


@pytest.mark.matrix(share=2)
@pytest.mark.parametrize("fields", TOKENLESS, ids=range(len(TOKENLESS)))
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/upstreams"),
        ("HEAD", "/upstreams"),
        ("GET", "/healthz"),
        ("GET", "/nothing"),
        ("POST", "/upstreams/one/pause"),
        ("POST", "/upstreams/three/pause"),
    ],
)
async def test_without_the_token_tcp_reveals_nothing(
    admin_relay_with: RelayWith, tmp_path: Path, method: str, path: str, fields: dict[str, str]
) -> None:
    relay = await admin_relay_with()
    if "x-relay-admin" in fields:
        fields = {"x-relay-admin": proof(relay.settings.database.path)}
    async with httpx.AsyncClient() as client:
        url = f"http://{relay.app.admin_address}{path}"
        answer = await client.request(method, url, headers=fields)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    for secret in (str(tmp_path), "relay.db", "one", "simulated"):
        assert secret not in answer.text.replace("Bearer with the token", "")
    assert not relay.app.upstreams[0].health.paused


async def test_a_relays_token_is_the_one_in_its_file(admin_relay_with: RelayWith) -> None:
    relay = await admin_relay_with()
    assert read_token(relay.settings.database.path)
    assert (await admin(relay, "GET", "/upstreams")).status_code == 200
    write_token(relay.settings.database.path)  # not this relay's
    assert (await admin(relay, "GET", "/upstreams")).status_code == 401


def test_the_token_is_a_private_file_and_new_each_time(tmp_path: Path) -> None:
    database = str(tmp_path / "relay.db")
    path = Path(token_path(database))
    assert read_token(database) is None
    assert path == tmp_path / "relay.db.admin-token"
    tokens = set()
    for _ in range(3):
        tokens.add(write_token(database))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)  # the next one is private again
        assert read_token(database) in tokens
    assert len(tokens) == 3


def test_a_token_never_follows_a_link_in_its_place(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("kept")
    for name in ("relay.db.admin-token", "relay.db.admin-token.new"):
        (tmp_path / name).symlink_to(target)
    write_token(str(tmp_path / "relay.db"))
    assert target.read_text() == "kept"
    with pytest.raises(StoreError, match="cannot be written"):
        write_token(str(tmp_path / "no" / "relay.db"))


# --- a taken address ---


async def test_a_taken_configured_address_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with admin_relay(tmp_path / "a") as first:
        server = {"admin_listen": first.app.admin_address}
        with pytest.raises(OSError, match=f"cannot listen on {first.app.admin_address}"):
            async with admin_relay(tmp_path / "b", server=server):
                pass

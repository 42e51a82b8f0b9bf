"""The operator's listener: access, pauses, and its address."""

import asyncio
import os
import socket
import sqlite3
import struct
import time
from pathlib import Path

import httpx
import pytest

from relay import config
from relay.api.admin import identity, proof
from relay.app import App
from relay.pool.vendor_errors import Scope, Verdict
from tests.api.admin_listener import (
    admin,
    admin_fields,
    admin_relay,
    served_by,
    token_fields,
)
from tests.fakes.live import UPSTREAM_KEY, RelayWith
from tests.fakes.until import until


def stored_pauses(folder: Path) -> list[str]:
    connection = sqlite3.connect(folder / "relay.db")
    try:
        return [row[0] for row in connection.execute("SELECT upstream FROM pause ORDER BY 1")]
    finally:
        connection.close()


# --- the listing ---


async def test_the_list_names_every_upstream_and_the_relay(
    admin_relay_with: RelayWith, tmp_path: Path
) -> None:
    relay = await admin_relay_with()
    await served_by(relay)
    answer = await admin(relay, "GET", "/upstreams")
    document = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert (document["database"], document["waiting"]) == (str(tmp_path / "relay.db"), 0)
    assert [one["name"] for one in document["upstreams"]] == ["one", "two"]
    for one in document["upstreams"]:
        assert (one["state"], one["in_flight"], one["sessions"]) == ("ok", 0, one["requests"])
    assert sum(one["requests"] for one in document["upstreams"]) == 1
    assert UPSTREAM_KEY not in answer.text


async def test_a_relay_is_identified_by_its_resolved_database(tmp_path: Path) -> None:
    path = tmp_path / "ein Ordner ä%41"
    path.mkdir()
    (tmp_path / "link").symlink_to(path)
    assert identity(tmp_path / "link" / "relay.db") == str(path / "relay.db")
    async with admin_relay(path) as relay:
        elsewhere = {"x-relay-admin": proof(tmp_path / "link" / "relay.db")}
        assert (await admin(relay, "POST", "/upstreams/one/clear", elsewhere)).status_code == 200


async def test_a_path_that_is_not_utf_8_has_an_identity() -> None:
    odd = os.fsdecode(b"/\xff/relay.db")
    identity(odd).encode()
    assert proof(odd).isascii()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("HEAD", "/upstreams", 200),
        ("POST", "/upstreams", 405),
        ("GET", "/upstreams/one/pause", 405),
        ("POST", "/upstreams/three/pause", 404),
        ("POST", "/upstreams/%00/pause", 404),
        ("POST", "/upstreams/one/stop", 404),
        ("POST", "/upstreams/one/pause/", 404),
        ("POST", "/upstreams//pause", 404),
        ("GET", "/", 404),
        ("POST", "/v1/messages", 404),
    ],
)
async def test_other_admin_paths_are_not_served(
    admin_relay_with: RelayWith, method: str, path: str, status: int
) -> None:
    relay = await admin_relay_with()
    assert (await admin(relay, method, path)).status_code == status
    assert not any(one.health.paused for one in relay.app.upstreams)


async def test_an_unknown_names_error_lists_the_known_names(admin_relay_with: RelayWith) -> None:
    relay = await admin_relay_with()
    document = (await admin(relay, "POST", "/upstreams/three/pause")).json()
    assert "there are: one, two" in document["error"]["message"]
    wrong = await admin(relay, "GET", "/upstreams/one/pause")
    assert wrong.headers["allow"] == "POST"


# --- access ---


@pytest.mark.parametrize("path", ["/upstreams", "/upstreams/one/pause", "/healthz"])
async def test_the_public_listener_serves_no_admin_path(
    admin_relay_with: RelayWith, path: str
) -> None:
    """The public listener has a `/healthz` of its own."""
    relay = await admin_relay_with()
    async with httpx.AsyncClient() as client:
        for headers in (relay.headers, admin_fields(relay)):
            if path != "/healthz":
                assert (await client.get(relay.url + path, headers=headers)).status_code == 404
            assert (await client.post(relay.url + path, headers=headers)).status_code in (404, 405)
        assert not any(one.health.paused for one in relay.app.upstreams)


@pytest.mark.matrix(share=3)
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "LOCALHOST:8081"}, 200),
        ({"host": "192.0.2.7:1"}, 200),
        ({"host": "[::1]:8081"}, 200),
        ({"host": "[2001:db8::7]"}, 200),
        ({"host": "rebound.example"}, 403),
        ({"host": "rebound.example:8081"}, 403),
        ({"host": "127.0.0.1.rebound.example"}, 403),
        ({"host": "localhost.rebound.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:8081"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ],
)
async def test_requests_from_a_web_page_are_refused(
    admin_relay_with: RelayWith, fields: dict[str, str], status: int
) -> None:
    relay = await admin_relay_with()
    assert (await admin(relay, "GET", "/upstreams", fields)).status_code == status
    paused = await admin(relay, "POST", "/upstreams/one/pause", fields)
    assert paused.status_code == status
    assert relay.app.upstreams[0].health.paused is (status == 200)


async def test_the_configured_host_name_is_accepted(admin_relay_with: RelayWith) -> None:
    """Host names are refused, except for the configured one (here localhost)."""
    server = {"admin_listen": "localhost:0"}
    relay = await admin_relay_with(server=server)
    assert (await admin(relay, "GET", "/upstreams")).status_code == 200


async def test_a_command_for_another_relay_is_refused(
    admin_relay_with: RelayWith, tmp_path: Path
) -> None:
    relay = await admin_relay_with()
    url = f"http://{relay.app.admin_address}/upstreams/one/pause"
    other = await admin(relay, "POST", "/upstreams/one/pause", {"x-relay-admin": "/other.db"})
    assert other.status_code == 409
    assert str(tmp_path / "relay.db") in other.json()["error"]["message"]
    async with httpx.AsyncClient() as client:
        assert (await client.post(url, headers=token_fields(relay))).status_code == 403
    assert not relay.app.upstreams[0].health.paused
    assert stored_pauses(tmp_path) == []


# --- actions ---


async def test_a_paused_upstream_gets_no_request_until_it_is_resumed(
    admin_relay_with: RelayWith,
) -> None:
    first = [{"name": "one"}, {"name": "two", "priority": 1}]
    relay = await admin_relay_with(first, pool={"wait": 0, "sticky": "off"})
    assert await served_by(relay) == "one"
    paused = (await admin(relay, "POST", "/upstreams/one/pause")).json()
    assert (paused["name"], paused["state"], paused["sessions"]) == ("one", "paused", 0)
    assert await served_by(relay) == "two"
    await admin(relay, "POST", "/upstreams/two/pause")
    assert await served_by(relay) == "503"
    resumed = (await admin(relay, "POST", "/upstreams/one/resume")).json()
    assert resumed["state"] == "ok"
    assert await served_by(relay) == "one"


async def test_a_pause_moves_the_upstreams_sessions(admin_relay_with: RelayWith) -> None:
    relay = await admin_relay_with()
    home = await served_by(relay)
    assert await served_by(relay) == home
    await admin(relay, "POST", f"/upstreams/{home}/pause")
    assert await served_by(relay) != home


async def test_a_pause_is_written_first_and_outlives_the_process(tmp_path: Path) -> None:
    async with admin_relay(tmp_path) as relay:
        for _ in range(2):
            await admin(relay, "POST", "/upstreams/one/pause")
            assert stored_pauses(tmp_path) == ["one"]
    for names, states in [(["two", "one"], [False, True]), (["two"], [False]), (["one"], [True])]:
        rows = [{"name": name, "base_url": "http://h", "api_key": "k"} for name in names]
        server = {"listen": ["127.0.0.1:0"], "admin_listen": ""}
        database = {"path": str(tmp_path / "relay.db")}
        tree = {"upstream": rows, "server": server, "database": database, "log": {"access": False}}
        app = await App.start(config.parse(tree))
        try:
            assert [one.health.paused for one in app.upstreams] == states
        finally:
            await app.stop(0)


async def test_a_caller_that_leaves_does_not_cancel_a_pause(
    admin_relay_with: RelayWith, tmp_path: Path
) -> None:
    relay = await admin_relay_with()
    host, _, port = relay.app.admin_address.rpartition(":")
    lines = "".join(f"{name}: {value}\r\n" for name, value in admin_fields(relay).items())
    head = f"POST /upstreams/one/pause HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n"
    with socket.create_connection((host, int(port))) as caller:
        caller.sendall(head.encode())
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await until(lambda: relay.app.upstreams[0].health.paused and stored_pauses(tmp_path) == ["one"])


async def test_an_unwritten_pause_is_in_force_and_reported(admin_relay_with: RelayWith) -> None:
    relay = await admin_relay_with()
    await relay.app.database.write(lambda c: c.execute("ALTER TABLE pause RENAME TO other"))
    answer = await admin(relay, "POST", "/upstreams/one/pause")
    await relay.app.database.write(lambda c: c.execute("ALTER TABLE other RENAME TO pause"))
    assert answer.status_code == 500
    assert "one is paused, but only until" in answer.json()["error"]["message"]
    assert await served_by(relay) == "two"


@pytest.mark.parametrize("action", ["resume", "clear"])
async def test_waiting_requests_are_served_immediately(
    admin_relay_with: RelayWith, action: str
) -> None:
    """Neither at the next tick nor only after the upstream's retry-after."""
    relay = await admin_relay_with([{"name": "one", "max_concurrency": 1}])
    one = relay.app.upstreams[0]
    outage = Verdict(Scope.ACCOUNT, time.time() + 4, True, "a limit")
    one.health.failed(outage, "claude-sonnet-4-7", time.time())
    waiting = asyncio.create_task(served_by(relay))
    await until(lambda: relay.app.upstreams.waiting == 1)
    assert (await admin(relay, "GET", "/upstreams")).json()["waiting"] == 1
    if action == "resume":
        await admin(relay, "POST", "/upstreams/one/pause")
        one.health.clear()
    relay.app.deadlines.stop()  # no tick wakes the waiting request
    document = (await admin(relay, "POST", f"/upstreams/one/{action}")).json()
    assert document["state"] == "ok"
    async with asyncio.timeout(3):
        assert await waiting == "one"


async def test_clearing_keeps_pauses_and_sessions(
    admin_relay_with: RelayWith, tmp_path: Path
) -> None:
    relay = await admin_relay_with()
    home = await served_by(relay)
    upstream = relay.app.upstreams.named(home)
    assert upstream is not None
    outage = Verdict(Scope.ACCOUNT, time.time() + 999, True, "a limit")
    upstream.health.failed(outage, "claude-sonnet-4-7", time.time())
    document = (await admin(relay, "POST", f"/upstreams/{home}/clear")).json()
    assert (document["state"], document["sessions"]) == ("ok", 1)
    await admin(relay, "POST", f"/upstreams/{home}/pause")
    document = (await admin(relay, "POST", f"/upstreams/{home}/clear")).json()
    assert document["state"] == "paused"
    assert stored_pauses(tmp_path) == [home]

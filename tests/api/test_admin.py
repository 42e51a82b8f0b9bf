"""The operator's own listener: who is answered, and what a pause does."""

import asyncio
import contextlib
import os
import socket
import sqlite3
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay import config
from relay.api.admin import identity, proof
from relay.app import App
from relay.pool.vendor_errors import Scope, Verdict
from tests.fakes.caller import BODY
from tests.fakes.live import UPSTREAM_KEY, Live, running_relay, running_simulator
from tests.fakes.until import until

LISTEN = {"admin_listen": "127.0.0.1:0"}
TWO: list[dict[str, Any]] = [{"name": "one"}, {"name": "two"}]


@contextlib.asynccontextmanager
async def pooled(
    folder: Path, upstream: list[dict[str, Any]] = TWO, **sections: Any
) -> AsyncIterator[Live]:
    """A relay in front of some upstreams that work, with an admin listener."""
    async with running_simulator() as (_, url):
        rows = [{"base_url": url, "api_key": UPSTREAM_KEY, **one} for one in upstream]
        sections = {"server": LISTEN, "pool": {"wait": 5}, **sections}
        async with running_relay(folder, url, upstream=rows, **sections) as relay:
            yield relay


def meant(relay: Live) -> dict[str, str]:
    return {"x-relay-admin": proof(relay.app._settings.database.path)}


async def admin(
    relay: Live, method: str, path: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    """What the admin listener answers to one who means this relay."""
    async with httpx.AsyncClient() as client:
        url = f"http://{relay.app.admin_address}{path}"
        return await client.request(method, url, headers={**meant(relay), **(headers or {})})


async def served_by(relay: Live) -> str:
    """The upstream that a request went to, or the status that it got instead."""
    async with httpx.AsyncClient() as client:
        url = f"{relay.url}/v1/messages"
        answer = await client.post(url, headers=relay.headers, json=BODY)
    if answer.status_code != 200:
        return str(answer.status_code)
    return str(relay.log()[-1]["upstream"])


def written(folder: Path) -> list[str]:
    connection = sqlite3.connect(folder / "relay.db")
    try:
        return [row[0] for row in connection.execute("SELECT upstream FROM pause ORDER BY 1")]
    finally:
        connection.close()


# what it tells


async def test_it_lists_every_upstream_and_which_relay_it_is(tmp_path: Path) -> None:
    async with pooled(tmp_path) as relay:
        await served_by(relay)
        answer = await admin(relay, "GET", "/upstreams")
        told = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert (told["database"], told["waiting"]) == (str(tmp_path / "relay.db"), 0)
    assert [one["name"] for one in told["upstreams"]] == ["one", "two"]
    for one in told["upstreams"]:
        assert (one["state"], one["in_flight"], one["sessions"]) == ("ok", 0, one["requests"])
    assert sum(one["requests"] for one in told["upstreams"]) == 1
    assert UPSTREAM_KEY not in answer.text


async def test_the_relay_is_known_by_its_database_whatever_links_lead_there(tmp_path: Path) -> None:
    path = tmp_path / "ein Ordner ä%41"
    path.mkdir()
    (tmp_path / "link").symlink_to(path)
    assert identity(tmp_path / "link" / "relay.db") == str(path / "relay.db")
    async with pooled(path) as relay:
        elsewhere = {"x-relay-admin": proof(tmp_path / "link" / "relay.db")}
        assert (await admin(relay, "POST", "/upstreams/one/clear", elsewhere)).status_code == 200


async def test_a_name_that_is_not_utf_8_can_be_told_all_the_same() -> None:
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
async def test_nothing_else_is_served(tmp_path: Path, method: str, path: str, status: int) -> None:
    async with pooled(tmp_path) as relay:
        assert (await admin(relay, method, path)).status_code == status
        assert not any(one.health.paused for one in relay.app.upstreams)


async def test_an_unknown_name_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    async with pooled(tmp_path) as relay:
        told = (await admin(relay, "POST", "/upstreams/three/pause")).json()
        assert "there are: one, two" in told["error"]["message"]
        wrong = await admin(relay, "GET", "/upstreams/one/pause")
        assert wrong.headers["allow"] == "POST"


# who is answered


@pytest.mark.parametrize("path", ["/upstreams", "/upstreams/one/pause", "/healthz"])
async def test_where_callers_are_nothing_of_it_is_served(tmp_path: Path, path: str) -> None:
    """`/healthz` is there, too, but is another one."""
    async with pooled(tmp_path) as relay, httpx.AsyncClient() as client:
        for headers in (relay.headers, meant(relay)):
            if path != "/healthz":
                assert (await client.get(relay.url + path, headers=headers)).status_code == 404
            assert (await client.post(relay.url + path, headers=headers)).status_code in (404, 405)
        assert not any(one.health.paused for one in relay.app.upstreams)


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
async def test_a_web_page_is_refused_however_it_came_here(
    tmp_path: Path, fields: dict[str, str], status: int
) -> None:
    async with pooled(tmp_path) as relay:
        assert (await admin(relay, "GET", "/upstreams", fields)).status_code == status
        done = await admin(relay, "POST", "/upstreams/one/pause", fields)
        assert done.status_code == status
        assert relay.app.upstreams[0].health.paused is (status == 200)


async def test_the_host_that_it_was_told_to_listen_on_may_be_asked_for(tmp_path: Path) -> None:
    """Names are refused but for this one; localhost stands for it here."""
    server = {"admin_listen": "localhost:0"}
    async with pooled(tmp_path, server=server) as relay:
        assert (await admin(relay, "GET", "/upstreams")).status_code == 200


async def test_what_is_meant_for_another_relay_is_refused(tmp_path: Path) -> None:
    async with pooled(tmp_path) as relay:
        url = f"http://{relay.app.admin_address}/upstreams/one/pause"
        other = await admin(relay, "POST", "/upstreams/one/pause", {"x-relay-admin": "/other.db"})
        assert other.status_code == 409
        assert str(tmp_path / "relay.db") in other.json()["error"]["message"]
        async with httpx.AsyncClient() as client:
            assert (await client.post(url)).status_code == 403
        assert not relay.app.upstreams[0].health.paused
        assert written(tmp_path) == []


# what it does


async def test_a_paused_upstream_gets_no_further_request_and_a_resumed_one_does(
    tmp_path: Path,
) -> None:
    first = [{"name": "one"}, {"name": "two", "priority": 1}]
    async with pooled(tmp_path, first, pool={"wait": 0, "sticky": "off"}) as relay:
        assert await served_by(relay) == "one"
        paused = (await admin(relay, "POST", "/upstreams/one/pause")).json()
        assert (paused["name"], paused["state"], paused["sessions"]) == ("one", "paused", 0)
        assert await served_by(relay) == "two"
        await admin(relay, "POST", "/upstreams/two/pause")
        assert await served_by(relay) == "503"
        resumed = (await admin(relay, "POST", "/upstreams/one/resume")).json()
        assert resumed["state"] == "ok"
        assert await served_by(relay) == "one"


async def test_a_pause_moves_the_sessions_that_were_there(tmp_path: Path) -> None:
    async with pooled(tmp_path) as relay:
        home = await served_by(relay)
        assert await served_by(relay) == home
        await admin(relay, "POST", f"/upstreams/{home}/pause")
        assert await served_by(relay) != home


async def test_a_pause_is_written_before_it_is_told_and_outlasts_the_process(
    tmp_path: Path,
) -> None:
    async with pooled(tmp_path) as relay:
        for _ in range(2):
            await admin(relay, "POST", "/upstreams/one/pause")
            assert written(tmp_path) == ["one"]
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


async def test_a_caller_that_leaves_meanwhile_changes_nothing_of_a_pause(tmp_path: Path) -> None:
    async with pooled(tmp_path) as relay:
        host, _, port = relay.app.admin_address.rpartition(":")
        lines = "".join(f"{name}: {value}\r\n" for name, value in meant(relay).items())
        head = f"POST /upstreams/one/pause HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n"
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall(head.encode())
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: relay.app.upstreams[0].health.paused and written(tmp_path) == ["one"])


async def test_what_cannot_be_written_is_in_force_and_told(tmp_path: Path) -> None:
    async with pooled(tmp_path) as relay:
        await relay.app.database.write(lambda c: c.execute("ALTER TABLE pause RENAME TO other"))
        answer = await admin(relay, "POST", "/upstreams/one/pause")
        await relay.app.database.write(lambda c: c.execute("ALTER TABLE other RENAME TO pause"))
        assert answer.status_code == 500
        assert "one is paused, but only until" in answer.json()["error"]["message"]
        assert await served_by(relay) == "two"


@pytest.mark.parametrize("action", ["resume", "clear"])
async def test_those_who_wait_are_served_at_once(tmp_path: Path, action: str) -> None:
    """Not at the next tick, and not when the upstream had said that it is back."""
    async with pooled(tmp_path, [{"name": "one", "max_concurrency": 1}]) as relay:
        one = relay.app.upstreams[0]
        outage = Verdict(Scope.ACCOUNT, time.time() + 4, True, "a limit")
        one.health.failed(outage, "claude-sonnet-4-7", time.time())
        asking = asyncio.create_task(served_by(relay))
        await until(lambda: "1 wait>" in repr(relay.app.upstreams))
        assert (await admin(relay, "GET", "/upstreams")).json()["waiting"] == 1
        if action == "resume":
            await admin(relay, "POST", "/upstreams/one/pause")
            one.health.clear()
        relay.app.timers.stop()  # nothing else wakes them now
        told = (await admin(relay, "POST", f"/upstreams/one/{action}")).json()
        assert told["state"] == "ok"
        async with asyncio.timeout(3):
            assert await asking == "one"


async def test_clearing_forgets_trouble_but_neither_a_pause_nor_a_session(tmp_path: Path) -> None:
    async with pooled(tmp_path) as relay:
        home = await served_by(relay)
        upstream = relay.app.upstreams.named(home)
        assert upstream is not None
        outage = Verdict(Scope.ACCOUNT, time.time() + 999, True, "a limit")
        upstream.health.failed(outage, "claude-sonnet-4-7", time.time())
        told = (await admin(relay, "POST", f"/upstreams/{home}/clear")).json()
        assert (told["state"], told["sessions"]) == ("ok", 1)
        await admin(relay, "POST", f"/upstreams/{home}/pause")
        told = (await admin(relay, "POST", f"/upstreams/{home}/clear")).json()
        assert told["state"] == "paused"
        assert written(tmp_path) == [home]


# where it listens


async def test_it_listens_on_a_unix_socket_too(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with pooled(tmp_path, server={"admin_listen": f"unix:{path}"}) as relay:
        assert relay.app.admin_address == f"unix:{path}"
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get("http://localhost/upstreams")).status_code == 200


async def test_without_an_address_nothing_listens(live: Live) -> None:
    assert live.app.admin_address == ""
    assert live.app.without_admin == ""
    assert live.app.admin.connections == set()


async def test_a_relay_does_without_where_the_default_is_taken(tmp_path: Path) -> None:
    """Whoever has it: this test, or somebody else on the machine."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    server = {"admin_listen": "127.0.0.1:8081"}
    async with pooled(tmp_path / "a", server=server), pooled(tmp_path / "b", server=server) as two:
        assert two.app.admin_address == ""
        assert "cannot listen on 127.0.0.1:8081" in two.app.without_admin
        assert await served_by(two) in ("one", "two")


async def test_an_address_of_the_operators_choice_that_is_taken_is_an_error(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with pooled(tmp_path / "a") as first:
        server = {"admin_listen": first.app.admin_address}
        with pytest.raises(OSError, match=f"cannot listen on {first.app.admin_address}"):
            async with pooled(tmp_path / "b", server=server):
                pass

"""`relay upstreams`: the state of a running relay, and changes of it."""

import asyncio
import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.two_upstreams import ROUTES, SETTINGS, configure, error_of
from tests.durability.process import Running, data, relay, serving
from tests.fakes.live import running_relay, running_simulator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return configure(tmp_path)


@pytest.fixture
def running(folder: Path) -> Iterator[Running]:
    with serving(folder) as server:
        assert "listens on" in server.said
        yield server


def output_of(folder: Path, *arguments: str) -> str:
    """The output of `relay upstreams`, which succeeds."""
    done = relay(folder, "upstreams", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def states(folder: Path) -> dict[str, str]:
    return {one["name"]: one["state"] for one in data(folder, "upstreams")["upstreams"]}


def test_upstreams_are_listed_with_their_vendors_terms(running: Running) -> None:
    out = output_of(running.folder)
    heading, _, one, two, *rest = [line for line in out.splitlines() if line.strip()]
    assert re.split(r"\s{2,}", heading.strip()) == [
        "name", "state", "in flight", "requests", "priority", "weight", "sessions", "limits",
        "vendor",
    ]  # fmt: skip
    assert re.split(r"\s{2,}", one.strip()) == [
        "one", "ok", "0/8", "0", "0", "1", "0", "600 left of 600 requests per 5 hours", "generic",
    ]  # fmt: skip
    assert re.split(r"\s{2,}", two.strip()) == ["two", "ok", "0", "0", "1", "1", "0", "-", "glm"]
    assert [line.split(":")[0] for line in rest] == ["Terms of glm"]
    assert "canary" not in out


def test_json_is_the_admin_listeners_whole_answer(running: Running) -> None:
    found = data(running.folder, "upstreams")
    assert found["database"] == str(running.folder / "relay.db")
    assert found["waiting"] == 0
    assert [one["vendor"] for one in found["upstreams"]] == ["generic", "glm"]
    assert found["upstreams"][1]["terms"]


def test_a_pause_acts_at_once_and_outlasts_a_restart(folder: Path) -> None:
    with serving(folder) as first:
        assert "one is paused." in output_of(folder, "pause", "one")
        assert data(folder, "upstreams", "pause", "two")["state"] == "paused"
        assert output_of(folder, "resume", "two") == "two is resumed.\n"
        assert states(folder) == {"one": "paused", "two": "ok"}
        first.signal()
        assert first.process.wait(10) == 0
    with serving(folder) as second:
        assert states(folder) == {"one": "paused", "two": "ok"}
        assert "It stays paused." in output_of(folder, "clear", "one")
        before = json.loads(output_of(folder, "--json", "resume", "one"))
        assert before["state"] == "ok"
        assert states(folder) == {"one": "ok", "two": "ok"}
        second.signal()
        assert second.process.wait(10) == 0
        assert second.process.stderr is not None
        assert b"upstream one is still paused" in second.process.stderr.read()


def test_an_unknown_upstream_is_answered_with_the_known_names(running: Running) -> None:
    assert "there are: one, two" in error_of(running.folder, "pause", "three")
    assert "there are: one, two" in error_of(running.folder, "pause", "a/b?c")


@pytest.mark.matrix(share=2)
@pytest.mark.parametrize("command", [(), ("pause", "one")])
def test_without_a_running_relay_one_line_says_what_to_do(folder: Path, command: list[str]) -> None:
    assert "start it with `relay serve`" in error_of(folder, *command)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    configure(folder, f"127.0.0.1:{port}")
    assert f"127.0.0.1:{port} (Connection refused)" in error_of(folder, *command)


def test_a_relay_without_an_admin_listener_cannot_be_asked(folder: Path) -> None:
    text = (folder / "relay.toml").read_text()
    (folder / "relay.toml").write_text(re.sub("admin_listen = .*", 'admin_listen = ""', text))
    assert "server.admin_listen is empty" in error_of(folder)


@contextlib.contextmanager
def answering(octets: bytes) -> Iterator[int]:
    """A server that is no relay; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(octets)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


@pytest.mark.matrix(share=3)
@pytest.mark.parametrize(
    "octets",
    [
        b"SSH-2.0-x\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
def test_a_server_that_is_no_relay_is_recognised(folder: Path, octets: bytes) -> None:
    with answering(octets) as port:
        configure(folder, f"127.0.0.1:{port}")
        line = error_of(folder)
    assert f"127.0.0.1:{port}" in line
    assert "internal error" not in line


def test_another_relay_is_recognised_and_left_alone(running: Running) -> None:
    folder = running.folder
    (folder / "relay.toml").write_text(
        SETTINGS.format(admin=f"unix:{folder}/admin.sock", database="other.db", routes=ROUTES)
    )
    for command in ((), ("pause", "one")):
        line = error_of(folder, *command)
        assert "is another one" in line
        assert str(folder / "relay.db") in line
    configure(folder)
    assert states(folder)["one"] == "ok"


def test_another_relay_on_tcp_does_not_take_this_ones_token(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    first, second = (configure(tmp_path / name, f"127.0.0.1:{port}") for name in ("a", "b"))
    with serving(first):
        assert states(first)["one"] == "ok"
        for command in ((), ("pause", "one")):
            line = error_of(second, *command)
            assert "is another one" in line
            assert str(second / "relay.db.admin-token") in line
            assert str(first) not in line
        assert states(first)["one"] == "ok"


@pytest.mark.matrix(share=2)
@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"])
async def test_a_wildcard_or_loopback_address_is_reached(tmp_path: Path, bound: str) -> None:
    async with (
        running_simulator() as (_, url),
        running_relay(tmp_path, url, server={"admin_listen": f"{bound}:0"}) as live,
    ):
        configure(tmp_path, live.app.admin_address)
        found: dict[str, Any] = await asyncio.to_thread(data, tmp_path, "upstreams")
    assert [one["name"] for one in found["upstreams"]] == ["main"]


@pytest.mark.parametrize("command", ["upstreams", *map("upstreams {}".format, ("pause", "clear"))])
def test_every_command_explains_itself(folder: Path, command: str) -> None:
    done = relay(folder, *command.split(), "--help")
    assert done.returncode == 0
    assert "--config PATH" in done.stdout
    assert "--json" in done.stdout

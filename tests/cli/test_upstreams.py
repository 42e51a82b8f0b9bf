"""`relay upstreams`: what an operator sees of a running relay, and does to it."""

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.durability.process import Running, data, relay, serving
from tests.fakes.live import running_relay, running_simulator

SETTINGS = """
[server]
listen = ["127.0.0.1:0"]
admin_listen = "{admin}"

[database]
path = "{database}"

[[upstream]]
name = "one"
base_url = "http://127.0.0.1:9"
api_key = "sk-upstream-canary"
max_concurrency = 8
limits = [{{ requests = 600, per = "5h" }}]

[[upstream]]
name = "two"
base_url = "http://127.0.0.1:9"
api_key = "sk-upstream-canary"
priority = 1
vendor = "glm"

[[model]]
id = "claude-sonnet-4-7"
{routes}
[[plan]]
id = "free"
"""
ROUTES = 'routes = [{ upstream = "one" }, { upstream = "two", model = "glm-5" }]\n'


def settle_in(folder: Path, admin: str = "", database: str = "relay.db") -> Path:
    """A folder with a relay.toml."""
    folder.mkdir(exist_ok=True)
    admin = admin or f"unix:{folder}/admin.sock"
    text = SETTINGS.format(admin=admin, database=database, routes=ROUTES)
    (folder / "relay.toml").write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return settle_in(tmp_path)


@pytest.fixture
def running(folder: Path) -> Iterator[Running]:
    with serving(folder) as server:
        assert "listens on" in server.said
        yield server


def told(folder: Path, *arguments: str) -> str:
    """What a command that succeeds prints."""
    done = relay(folder, "upstreams", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(folder: Path, *arguments: str) -> str:
    """The one line on standard error of a command that fails."""
    done = relay(folder, "upstreams", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def states(folder: Path) -> dict[str, str]:
    return {one["name"]: one["state"] for one in data(folder, "upstreams")["upstreams"]}


def test_it_shows_every_upstream_and_the_terms_of_its_vendor(running: Running) -> None:
    out = told(running.folder)
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


def test_as_json_it_has_all_that_the_relay_tells(running: Running) -> None:
    found = data(running.folder, "upstreams")
    assert found["database"] == str(running.folder / "relay.db")
    assert found["waiting"] == 0
    assert [one["vendor"] for one in found["upstreams"]] == ["generic", "glm"]
    assert found["upstreams"][1]["terms"]


def test_a_pause_is_seen_at_once_survives_a_restart_and_ends_when_told_to(folder: Path) -> None:
    with serving(folder) as first:
        assert "one is paused." in told(folder, "pause", "one")
        assert data(folder, "upstreams", "pause", "two")["state"] == "paused"
        assert told(folder, "resume", "two") == "two is resumed.\n"
        assert states(folder) == {"one": "paused", "two": "ok"}
        first.signal()
        assert first.process.wait(10) == 0
    with serving(folder) as second:
        assert states(folder) == {"one": "paused", "two": "ok"}
        assert "It stays paused." in told(folder, "clear", "one")
        before = json.loads(told(folder, "--json", "resume", "one"))
        assert before["state"] == "ok"
        assert states(folder) == {"one": "ok", "two": "ok"}
        second.signal()
        assert second.process.wait(10) == 0
        assert second.process.stderr is not None
        assert b"upstream one is still paused" in second.process.stderr.read()


def test_an_unknown_name_is_told_with_those_that_there_are(running: Running) -> None:
    assert "there are: one, two" in refused(running.folder, "pause", "three")
    assert "there are: one, two" in refused(running.folder, "pause", "a/b?c")


@pytest.mark.parametrize("command", [(), ("pause", "one")])
def test_where_no_relay_runs_one_line_says_what_to_do(folder: Path, command: list[str]) -> None:
    assert "start it with `relay serve`" in refused(folder, *command)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settle_in(folder, f"127.0.0.1:{port}")
    assert f"127.0.0.1:{port} (Connection refused)" in refused(folder, *command)


def test_a_relay_without_an_admin_listener_cannot_be_asked(folder: Path) -> None:
    text = (folder / "relay.toml").read_text()
    (folder / "relay.toml").write_text(re.sub("admin_listen = .*", 'admin_listen = ""', text))
    assert "server.admin_listen is empty" in refused(folder)


@contextlib.contextmanager
def answering(octets: bytes) -> Iterator[int]:
    """Somebody else's server; its port."""
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
def test_somebody_elses_server_is_recognised(folder: Path, octets: bytes) -> None:
    with answering(octets) as port:
        settle_in(folder, f"127.0.0.1:{port}")
        line = refused(folder)
    assert f"127.0.0.1:{port}" in line
    assert "internal error" not in line


def test_another_relay_is_told_from_this_one_and_left_alone(running: Running) -> None:
    folder = running.folder
    (folder / "relay.toml").write_text(
        SETTINGS.format(admin=f"unix:{folder}/admin.sock", database="other.db", routes=ROUTES)
    )
    for command in ((), ("pause", "one")):
        line = refused(folder, *command)
        assert "is another one" in line
        assert str(folder / "relay.db") in line
    settle_in(folder)
    assert states(folder)["one"] == "ok"


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"])
async def test_it_finds_the_way_to_whatever_address_was_set(tmp_path: Path, bound: str) -> None:
    async with (
        running_simulator() as (_, url),
        running_relay(tmp_path, url, server={"admin_listen": f"{bound}:0"}) as live,
    ):
        settle_in(tmp_path, live.app.admin_address)
        found: dict[str, Any] = await asyncio.to_thread(data, tmp_path, "upstreams")
    assert [one["name"] for one in found["upstreams"]] == ["main"]


def test_a_second_relay_on_the_machine_goes_on_without_and_says_so(tmp_path: Path) -> None:
    """Where neither operator chose an address for it."""
    folders = [settle_in(tmp_path / name, "127.0.0.1:8081") for name in ("a", "b")]
    with serving(folders[0]), serving(folders[1]) as second:
        assert "listens on" in second.said
        assert second.process.stderr is not None
        warning = second.process.stderr.readline().decode()
        assert "cannot listen on 127.0.0.1:8081: Address already in use; `relay ups" in warning
        line = refused(folders[1])
        assert "is another one" in line or "is no relay's admin listener" in line


def test_an_address_that_was_chosen_and_is_taken_is_told_in_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settle_in(folder, address)
        done = relay(folder, "serve")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"relay: cannot listen on {address}: Address already in use\n"


def test_the_demo_has_no_admin_listener(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "relay", "demo", "--port", "0"], cwd=folder, stdout=subprocess.PIPE
    ) as demo:
        assert demo.stdout is not None
        assert b"The relay runs at" in demo.stdout.readline()
        assert "start it with `relay serve`" in refused(folder)
        demo.terminate()


@pytest.mark.parametrize("command", ["upstreams", *map("upstreams {}".format, ("pause", "clear"))])
def test_every_command_explains_itself(folder: Path, command: str) -> None:
    done = relay(folder, *command.split(), "--help")
    assert done.returncode == 0
    assert "--config PATH" in done.stdout
    assert "--json" in done.stdout


# check


def test_check_warns_of_an_admin_listener_that_others_reach(folder: Path) -> None:
    for admin, warned in [
        ("127.0.0.1:1", False), ("[::1]:1", False), ("localhost:1", False), ("", False),
        ("unix:/run/a", False), ("0.0.0.0:1", True), ("[::]:1", True), ("192.0.2.1:1", True),
        ("relay.example:1", True),
    ]:  # fmt: skip
        text = SETTINGS.format(admin=admin, database="relay.db", routes=ROUTES)
        (folder / "relay.toml").write_text(text)
        done = relay(folder, "check")
        assert done.returncode == 0
        assert ("server.admin_listen: " in done.stderr) == warned, admin


def test_check_shows_only_the_vendors_that_matter_and_tells_their_terms(folder: Path) -> None:
    own = '[[vendor]]\nname = "mine"\n[[vendor]]\nname = "kimi"\nthinking = "other"\n'
    with (folder / "relay.toml").open("a") as file:
        file.write(own)
    done = relay(folder, "check")
    shown = re.findall(r'^vendor\[\d\].name = "(.*)"$', done.stdout, re.MULTILINE)
    assert sorted(shown) == ["generic", "glm", "kimi", "mine"]
    assert re.search(r"^vendor\[\d\].rules = \d+$", done.stdout, re.MULTILINE)
    assert "rules[" not in done.stdout
    assert "not in force" not in done.stdout
    assert done.stderr.startswith("upstream two: ")
    assert done.stderr.count("\n") == 1
    whole = data(folder, "check")["settings"]["vendor"]
    assert len(whole) > 4
    assert any(one["rules"] for one in whole)


@pytest.mark.parametrize(
    ("egress", "reason"),
    [
        ("env:RELAY_TEST_NO_PROXY", "RELAY_TEST_NO_PROXY is not set"),
        ("http://a%3Ab:pw-canary@proxy:1", "has no colon"),
        ("socks5://pw-canary@proxy:1", "both user and password, or neither"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_found_by_check_and_at_the_start(
    folder: Path, egress: str, reason: str
) -> None:
    text = (folder / "relay.toml").read_text()
    text = text.replace('vendor = "glm"', f'vendor = "glm"\negress = "{egress}"')
    (folder / "relay.toml").write_text(text)
    for command in ("check", "serve"):
        done = relay(folder, command)
        assert done.returncode == 2
        assert done.stderr.startswith("relay.toml: upstream[1].egress: ")
        assert reason in done.stderr
        assert "canary" not in done.stderr


def test_check_names_a_model_that_no_upstream_serves(folder: Path) -> None:
    text = (folder / "relay.toml").read_text().replace(ROUTES, "")
    first, _, rest = text.partition('[[upstream]]\nname = "one"')
    (folder / "relay.toml").write_text(first + "[[upstream]]" + rest.partition("[[upstream]]")[2])
    done = relay(folder, "check")
    assert done.returncode == 0
    assert "no upstream serves claude-sonnet-4-7 under its own name; give it routes" in done.stderr

"""`relay doctor` finds what is wrong, says what to do, and ends with 1 only for a fault."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.durability.process import relay, serving, write_settings
from tests.fakes import answers
from tests.fakes.upstream import UpstreamWith, always


def examined(folder: Path, *options: str) -> tuple[int, list[dict[str, Any]]]:
    done = relay(folder, "doctor", "--json", *options)
    assert "Traceback" not in done.stderr
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["findings"]


def of(found: list[dict[str, Any]], what: str, level: str) -> list[str]:
    return [
        f"{one['found']} -> {one['remedy']}"
        for one in found
        if one["what"].startswith(what) and one["level"] == level
    ]


def change(folder: Path, old: str, new: str) -> None:
    path = folder / "relay.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def prepared(folder: Path, upstream: str) -> None:
    write_settings(folder, upstream)
    (folder / "relay.toml").chmod(0o640)


def test_a_relay_that_works_has_no_fault(tmp_path: Path) -> None:
    with serving(tmp_path, ("simulate", "--port", "0")) as simulator:
        prepared(tmp_path, f"http://127.0.0.1:{simulator.port}")
        with serving(tmp_path) as running:
            change(
                tmp_path, "[server]", f'[server]\npublic_url = "http://127.0.0.1:{running.port}"'
            )
            status, found = examined(tmp_path)
            text = relay(tmp_path, "doctor").stdout
    assert (status, of(found, "", "fault")) == (0, [])
    assert [line.partition(" in ")[0] for line in of(found, "upstream main", "ok")] == [
        "a request for claude-sonnet-4-7", "a stream for claude-sonnet-4-7",
    ]  # fmt: skip
    assert of(found, "public_url", "ok")
    assert of(found, "metrics", "ok")
    assert of(found, "clock", "ok")
    assert re.search(r"^0 faults, (1 warning|\d+ warnings), \d+ ok$", text, re.MULTILINE)
    assert "sim-key" not in text


def test_offline_asks_nobody(tmp_path: Path) -> None:
    prepared(tmp_path, "http://127.0.0.1:9")
    status, found = examined(tmp_path, "--offline")
    assert status == 0
    assert not [one for one in found if one["what"].startswith(("upstream", "public_url"))]


def test_more_processes_than_cores_are_found(tmp_path: Path) -> None:
    prepared(tmp_path, "http://127.0.0.1:9")
    assert not of(examined(tmp_path, "--offline")[1], "workers", "ok")
    change(tmp_path, "[server]", "[server]\nworkers = 256")
    status, found = examined(tmp_path, "--offline")
    assert status == 0
    [line] = of(found, "workers", "warning")
    assert line.startswith("server.workers is 256, with ")
    assert 'server.workers = "auto"' in line


def test_faults_of_the_machine_come_with_a_remedy(tmp_path: Path) -> None:
    prepared(tmp_path, "http://127.0.0.1:9")
    (tmp_path / "relay.toml").chmod(0o644)
    change(tmp_path, 'admin_listen = ""', 'admin_listen = "0.0.0.0:8081"')
    change(tmp_path, "[[upstream]]", "[pool]\nkeep_alive = 90\n\n[[upstream]]")
    status, found = examined(tmp_path, "--offline")
    assert status == 1
    assert "chmod o-rwx" in of(found, "permissions", "fault")[0]
    assert "loopback" in of(found, "admin listener", "warning")[0]
    assert "lower pool.grace" in of(found, "100-second rule", "warning")[0]


def test_an_upstream_that_refuses_connections_is_a_fault(tmp_path: Path) -> None:
    prepared(tmp_path, "http://127.0.0.1:9")
    change(tmp_path, "[server]", '[server]\npublic_url = "http://127.0.0.1:9"')
    status, found = examined(tmp_path)
    assert status == 1
    assert "check base_url, DNS" in of(found, "upstream main", "fault")[0]
    assert "start the relay" in of(found, "public_url", "fault")[0]


@pytest.mark.matrix(share=3)
@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        (answers.sized(b'{"error":"no sim-key"}', b"401 Unauthorized"), "fault", "api_key"),
        (answers.sized(b"{}", b"404 Not Found"), "fault", "base_url (without /v1)"),
        (answers.sized(b"{}", b"429 Too Many"), "warning", "wait for the plan's limit"),
        (answers.sized(b"<html>", kind=b"text/html"), "fault", "right base_url"),
        (
            answers.sized(b"{}", b"200 OK", b"date: Tue, 01 Jan 2019 00:00:00 GMT"),
            "fault",
            "right base_url",
        ),
        (b"garbage\r\n\r\n", "fault", "right base_url"),
    ],
    ids=["401", "404", "429", "html", "clock", "garbage"],
)
async def test_an_upstreams_answer_says_what_to_do(
    tmp_path: Path, upstream_with: UpstreamWith, answer: bytes, level: str, words: str
) -> None:
    upstream = await upstream_with(always(answer))
    prepared(tmp_path, upstream.url)
    status, found = await asyncio.to_thread(examined, tmp_path)
    assert status == 1  # no relay answers at public_url
    shown = of(found, "upstream main", level)
    assert words in shown[0]
    assert "sim-key" not in json.dumps(found)
    if b"2019" in answer:
        assert "set-ntp" in of(found, "clock", "fault")[0]

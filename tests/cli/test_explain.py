"""`relay explain`: one request, from the running relay, the database and the access log."""

import asyncio
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.api.admin_listener import LISTEN
from tests.cli.command import refused
from tests.cli.two_upstreams import configure
from tests.durability.process import data, relay
from tests.fakes.pool import PoolWith, refusing
from tests.fakes.until import until
from tests.gateway.metering import beside, settled


def explain(folder: Path, *arguments: str) -> str:
    """The text of a command that succeeds."""
    done = relay(folder, "explain", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def failure(folder: Path, status: int, *arguments: str) -> str:
    """The one line on standard error of a command that fails."""
    done = relay(folder, "explain", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


async def test_a_running_relay_explains_a_failover(pool_with: PoolWith, tmp_path: Path) -> None:
    pool = await pool_with({"one": {}, "two": {"priority": 1}}, server=LISTEN)
    pool["one"].instead = refusing(529)
    reply = await pool.ask()
    await settled(pool.relay, 1)
    configure(tmp_path, pool.relay.app.admin_address)
    text = await asyncio.to_thread(explain, tmp_path, f"request-id: {reply.id}")
    found: dict[str, Any] = await asyncio.to_thread(data, tmp_path, "explain", reply.id[:16])
    assert text.startswith(reply.id)
    assert "1. one failed: 529" in text
    assert "Not now." in text
    assert "2. two answered" in text
    assert (found["id"], found["upstream"], found["rule"]) == (reply.id, "two", "reported")
    assert [one["upstream"] for one in found["tried"]] == ["one"]
    assert found["not_kept"]


async def test_without_a_relay_database_and_old_logs_explain(
    pool_with: PoolWith, tmp_path: Path
) -> None:
    pool = await pool_with({"one": {}, "two": {"priority": 1}}, server=LISTEN)
    pool["one"].instead = refusing(529)
    reply = await pool.ask()
    await settled(pool.relay, 1)
    lines = [json.dumps(line, separators=(",", ":")) for line in pool.relay.log()]
    folder = configure(tmp_path)
    logs = folder / "logs"
    logs.mkdir()
    (logs / "access.log").write_text("")
    (logs / "access.log.1").write_text('{"id":"req_0"}\nnot JSON\n')
    with gzip.open(logs / "access.log.2.gz", "wt") as old:
        old.write("\n".join(lines) + "\n")
    (logs / "access.log.3.zst").write_bytes(b"(\xb5/\xfd")
    (logs / "access.logbook").write_text("not a part of it")
    with (folder / "relay.toml").open("a") as settings:
        settings.write('\n[log]\nfile = "logs/access.log"\n')
    text = await asyncio.to_thread(explain, folder, reply.id)
    assert "1. one failed: 529" in text
    assert "2. two answered" in text
    assert "Rule: reported" in text
    assert "start it with `relay serve`" in text
    assert "the words of an upstream's error" in text
    assert "zst" not in text
    unknown = await asyncio.to_thread(failure, folder, 1, "req_" + "0" * 32)
    assert "access.log.3.zst is compressed in a way that is not read here" in unknown
    assert f"Found in: database, access log {logs}/access.log.2.gz." in text


async def test_a_log_comes_from_standard_input(pool_with: PoolWith, tmp_path: Path) -> None:
    pool = await pool_with({"one": {}}, server=LISTEN)
    reply = await pool.ask()
    await settled(pool.relay, 1)
    log = "\n".join(map(json.dumps, pool.relay.log()))
    configure(tmp_path)
    without = await asyncio.to_thread(explain, tmp_path, reply.id)
    assert "journalctl -u relay -o cat | relay explain ID --log -" in without
    assert "upstreams passed over and tried" in without
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "relay", "explain", reply.id, "--log", "-"],
        cwd=tmp_path, input=log, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Chose one: it is the only upstream of the route." in done.stdout


async def test_an_admission_without_an_end_is_explained(
    pool_with: PoolWith, tmp_path: Path
) -> None:
    pool = await pool_with({"one": {}}, server=LISTEN)
    pool["one"].hold()
    asked = asyncio.create_task(pool.ask())
    await until(lambda: pool["one"].held)
    [running] = pool.relay.app.operations.watch.running
    with beside(pool.relay) as connection:
        await until(lambda: connection.execute("SELECT 1 FROM running").fetchone())
    configure(tmp_path)
    text = await asyncio.to_thread(explain, tmp_path, running.id)
    assert "Admitted; its end is not written." in text
    assert "Held at admission: " in text
    pool["one"].let()
    await asked


def test_an_id_that_leads_nowhere_says_what_to_do(folder: Path) -> None:
    assert "is no request id of this relay" in refused(2, "explain", "msg_01XyZ")
    assert "too short" in refused(2, "explain", "req_12")
    line = refused(1, "explain", "req_" + "0" * 32)
    assert "no request has the id" in line
    assert "kept for 90 days" in line
    assert "start it with `relay serve`" in line


async def test_a_running_relay_that_knows_nothing_is_not_blamed(
    pool_with: PoolWith, tmp_path: Path
) -> None:
    pool = await pool_with({"one": {}}, server=LISTEN)
    configure(tmp_path, pool.relay.app.admin_address)
    line = await asyncio.to_thread(failure, tmp_path, 1, "req_" + "0" * 32)
    assert "no request has the id" in line
    assert "relay serve" not in line

"""`relay top` and `relay metrics`: the running relay at a glance, and its dashboard."""

import json
import re
import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.durability.process import data, relay, serving, write_settings
from tests.fakes.caller import connected, read_answer, request

ROOT = Path(__file__).parents[2]
METRIC = re.compile(r"\b(?:relay|process)_[a-z_]+\b")


async def asked(port: int, key: str, count: int) -> None:
    async with connected(port) as (reader, writer):
        for _ in range(count):
            writer.write(request(key))
            assert (await read_answer(reader))[0] == 200


def top_at(folder: Path, width: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "relay", "top", "--once"], cwd=folder, capture_output=True,
        text=True, timeout=20, env={"COLUMNS": str(width), "PATH": "/usr/bin:/bin",
                                    "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_load_upstreams_limits_and_metrics_are_shown(tmp_path: Path) -> None:
    with serving(tmp_path, ("simulate", "--port", "0")) as simulator:
        write_settings(tmp_path, f"http://127.0.0.1:{simulator.port}")
        path = tmp_path / "relay.toml"
        text = path.read_text().replace('admin_listen = ""', 'admin_listen = "unix"')
        path.write_text(text + 'limits = [{ requests = 5, per = "5h" }]\n')
        assert relay(tmp_path, "user", "create", "ada@example.com").returncode == 0
        key = data(tmp_path, "key", "create", "--user", "ada@example.com")["key"]
        with serving(tmp_path) as running:
            await asked(running.port, key, 4)
            frames = {width: top_at(tmp_path, width) for width in (80, 120)}
            status = data(tmp_path, "top")
            metrics = relay(tmp_path, "metrics")
    for width, frame in frames.items():
        assert max(map(len, frame.splitlines())) <= width
        assert re.search(r"main +ok +0 +4 +0 ", frame), frame
        assert re.search(r"ada@example.com +free +5 requests per 5 hours +80%", frame), frame
        assert "journal ok" in frame
    assert status["requests"] == status["by_code"]["2xx"] == 4
    assert status["limits"][0]["account"] == "ada@example.com"
    names = {family.name for family in text_string_to_metric_families(metrics.stdout)}
    assert "relay_requests" in names


async def test_all_processes_are_shown_as_one(tmp_path: Path) -> None:
    with serving(tmp_path, ("simulate", "--port", "0")) as simulator:
        write_settings(tmp_path, f"http://127.0.0.1:{simulator.port}")
        path = tmp_path / "relay.toml"
        settings = 'admin_listen = "unix"\nworkers = 2'
        path.write_text(path.read_text().replace('admin_listen = ""', settings))
        assert relay(tmp_path, "user", "create", "ada@example.com").returncode == 0
        key = data(tmp_path, "key", "create", "--user", "ada@example.com")["key"]
        with serving(tmp_path) as running:
            for _ in range(8):  # connections, which either process may accept
                await asked(running.port, key, 1)
            frame, status = top_at(tmp_path, 80), data(tmp_path, "top")
    assert "processes 2   replaced 0" in frame
    assert max(map(len, frame.splitlines())) <= 80
    assert status["requests"] == status["by_code"]["2xx"] == 8
    [owner, worker] = status["workers"]["processes"]
    assert (owner["process"], worker["process"]) == ("owner", "0")
    assert owner["pid"] != worker["pid"]
    assert owner["answers"] is worker["answers"] is True


async def test_the_dashboard_names_existing_metrics_alone(tmp_path: Path) -> None:
    write_settings(tmp_path, "http://127.0.0.1:9")
    path = tmp_path / "relay.toml"
    path.write_text(path.read_text().replace('admin_listen = ""', 'admin_listen = "unix"'))
    with serving(tmp_path):
        metrics = relay(tmp_path, "metrics").stdout
    known = set()
    for line in metrics.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            known.add(name)
            if kind == "histogram":
                known |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    dashboard = json.loads(relay(tmp_path, "metrics", "--grafana").stdout)
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 20
    for expression in expressions:
        used = set(METRIC.findall(expression))
        assert used, expression
        assert used <= known, expression


def test_without_a_relay_top_says_what_to_do(tmp_path: Path) -> None:
    write_settings(tmp_path, "http://127.0.0.1:9")
    path = tmp_path / "relay.toml"
    path.write_text(path.read_text().replace('admin_listen = ""', 'admin_listen = "unix"'))
    done = relay(tmp_path, "top", "--once")
    assert done.returncode == 1
    assert "start it with `relay serve`" in done.stderr

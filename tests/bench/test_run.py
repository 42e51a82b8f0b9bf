"""The bench runs from end to end, and compares two trees in one run."""

import sys
from pathlib import Path

import orjson
import pytest

from bench.rivals.direct import Direct
from bench.rivals.relay import TREE
from bench.rounds import upstream_of_http2, upstream_of_json
from bench.scenarios import SCENARIOS, in_turn, upstream_of

from .runs import bench, refusal


@pytest.mark.thorough
def test_an_older_tree_is_measured_beside_this_one(tmp_path: Path) -> None:
    older = tmp_path / "older"
    older.mkdir()
    (older / "relay").symlink_to(TREE / "relay")
    figures = tmp_path / "figures.json"
    done = bench(
        *("--only", "chat-body-memory", "--bodies", "1k,2k", "--streams", "2", "--rounds", "2"),
        *("--seconds", "0.5"),
        *("--rival", "relay", "--before", str(older), "--json", str(figures)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = orjson.loads(figures.read_bytes())
    assert set(found["versions"]) == {"before", "relay"}
    rounds = found["rounds"]["chat-body-memory"]
    assert [len(rounds[rival]) for rival in ("before", "relay")] == [2, 2]
    assert found["summary"]["chat-body-memory.body_2k_kib"]["relay/before"]["low"] > 0
    assert "relay/before" in done.stdout


def test_a_folder_without_a_relay_is_refused(tmp_path: Path) -> None:
    done = bench("--before", str(tmp_path))
    assert done.returncode == 1
    assert "is no checkout of relay" in done.stdout


@pytest.mark.parametrize("sizes", ["", "1g", "10", "1k,"])
def test_sizes_that_no_body_can_have_are_refused(sizes: str) -> None:
    said = refusal("--bodies", sizes)
    assert "--bodies" in said


def test_every_second_round_has_the_rivals_in_reverse(tmp_path: Path) -> None:
    rivals = [Direct(tmp_path, port) for port in (1, 2, 3)]
    assert list(in_turn(rivals, 1)) == list(in_turn(rivals, 3)) == rivals
    assert list(in_turn(rivals, 2)) == rivals[::-1]


def test_each_scenario_has_the_upstream_that_it_needs() -> None:
    kinds = {name: upstream_of(name) for name in SCENARIOS}
    small = ["json", "json-8", "paced", "latency", "chat-json", "responses-json"]
    assert {kinds[name] for name in small} == {upstream_of_json()}
    assert {kinds[name] for name in ("json-300k", "json-1m")} == {"replay"}
    assert kinds["http2-json"] == upstream_of_http2()
    assert kinds["first"] == kinds["starts"] == "stream"
    assert [name for name in kinds if kinds[name] == "held"] == [
        "body-memory",
        "chat-body-memory",
        "responses-body-memory",
    ]


@pytest.mark.thorough
def test_a_quick_run_judges_each_build_by_each_goal(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    again = f"again={sys.executable}:{TREE}"
    scenarios = [part for name in ("paced", "first") for part in ("--only", name)]
    rate = ("--rate", "50", "--connections", "4")
    done = bench("--quick", *scenarios, *rate, "--relay", again, "--json", str(figures))
    assert done.returncode == 0, done.stdout + done.stderr
    found = orjson.loads(figures.read_bytes())
    assert set(found["rounds"]["first"]) >= {"direct", "again", "relay"}
    assert "direct" not in found["rounds"]["paced"]
    assert set(found["summary"]["first.max_us"]["judged"]) == {"again", "relay"}
    assert "≤ 2,000" in done.stdout


@pytest.mark.parametrize("build", ["", "a", "a=", "=python", "nginx=python"])
def test_a_build_without_a_name_or_a_python_is_refused(build: str) -> None:
    said = refusal("--relay", build)
    assert "--relay" in said


def test_a_build_that_does_not_run_is_named() -> None:
    done = bench("--relay", "a=/no/python")
    assert done.returncode == 1
    assert "/no/python" in done.stdout

"""A scenario that fails costs its own figures, and the run goes on."""

import sys
from pathlib import Path

import pytest

from bench import stored
from bench.rivals.relay import TREE

from .runs import bench

# Python imports it at its start, from the folder that the relay comes from.
_DIES_IN_STREAMS = """
import os
from relay.api.handler import Handler

handle = Handler.handle

async def dying(self, exchange):
    if b"pace" in exchange.request.headers.get(b"x-simulate", b""):
        os._exit(9)
    return await handle(self, exchange)

Handler.handle = dying
"""


@pytest.mark.thorough
def test_a_scenario_that_fails_loses_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "dying"
    folder.mkdir()
    (folder / "relay").symlink_to(TREE / "relay")
    (folder / "sitecustomize.py").write_text(_DIES_IN_STREAMS)
    build = ("--rival", "direct", "--relay", f"dying={sys.executable}:{folder}")
    figures = tmp_path / "figures.json"
    scenarios = (
        "--only",
        "latency",
        "--only",
        "sse",
        "--only",
        "ready",
        "--rounds",
        "1",
        "--seconds",
        "0.5",
    )
    done = bench(*scenarios, *build, "--json", str(figures))
    assert done.returncode == 1, done.stdout + done.stderr
    run = stored.read(figures)
    assert set(run.rounds["latency"]) == {"direct", "dying"}
    assert "dying" not in run.rounds.get("sse", {})
    assert set(run.rounds["ready"]) == {"dying"}
    assert run.refused["sse"]["dying"]

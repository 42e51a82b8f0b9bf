"""A relay that is slower by a millisecond is measured as that, and compared as worse."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from bench import stored
from bench.comparison import changes
from bench.report import values_of
from bench.rivals.nginx import nginx_program
from bench.rivals.relay import TREE

from .runs import ENVIRONMENT

# Python imports it at its start, from the folder that the relay comes from.
_SLOWED = """
import time
from relay.api.handler import Handler

handle = Handler.handle

async def slowed(self, exchange):
    time.sleep(0.001)
    return await handle(self, exchange)

Handler.handle = slowed
"""


def _slowed(folder: Path) -> str:
    """A build of this tree's relay that sleeps a millisecond before each request."""
    folder.mkdir()
    (folder / "relay").symlink_to(TREE / "relay")
    (folder / "sitecustomize.py").write_text(_SLOWED)
    return f"slowed={sys.executable}:{folder}"


@pytest.mark.alone
def test_a_relay_slowed_by_a_millisecond_is_detected(tmp_path: Path) -> None:
    if nginx_program() is None:
        pytest.skip("nginx is not installed")
    figures = tmp_path / "figures.json"
    arguments = ["--only", "latency", "--rounds", "3", "--seconds", "0.5", "--json", str(figures)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments, "--relay", _slowed(tmp_path / "slowed")],
        cwd=TREE, capture_output=True, text=True, timeout=120, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rounds = orjson.loads(figures.read_bytes())["rounds"]["latency"]
    pairs = zip(*(values_of(rounds[name], "p50_us") for name in ("slowed", "relay")), strict=True)
    added = sorted(slowed - relay for slowed, relay in pairs)
    assert added[1] > 900

    before, now = stored.read(figures), stored.read(figures)
    now.rounds["latency"]["relay"] = before.rounds["latency"]["slowed"]
    verdicts = {(one.row.figure, one.build): one.verdict for one in changes(before, now)}
    assert verdicts["p50_us", "relay"] == "worse"

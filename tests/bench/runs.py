"""The bench as a process, as `python -m bench` runs it."""

import os
import subprocess
import sys

from bench.rivals.relay import TREE

_TIMEOUT_S = 240
# Tests run beside each other: no round of theirs is refused for that.
ENVIRONMENT = {**os.environ, "RELAY_BENCH_MOST_OTHERS": "1"}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A run with these arguments, once it has ended."""
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=TREE,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=_TIMEOUT_S,
    )

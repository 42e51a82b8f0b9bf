"""The bench as a process, as `python -m bench` runs it."""

import subprocess
import sys

from bench.rivals.relay import TREE

_TIMEOUT_S = 240


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A run with these arguments, once it has ended."""
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )

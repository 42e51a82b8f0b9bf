"""No proxy: clients are connected to the upstream itself.

Decides nothing. Its latencies are the floor: a proxy adds the difference to them.
"""

from collections.abc import Sequence
from pathlib import Path

from bench.process import NoProcess, Process
from bench.rivals.rival import UPSTREAM_KEY, Rival


class Direct(Rival):
    """The upstream alone, which speaks one dialect."""

    name = "direct"
    dialects = streams = frozenset({"messages"})
    plain = True
    is_proxy = False
    version = ""
    settings = ""
    key = UPSTREAM_KEY

    def __init__(self, folder: Path, upstream: int) -> None:
        super().__init__(folder)
        self.json_port = self.sse_port = upstream

    def argv(self) -> Sequence[str]:
        return ()

    def start(self, core: int) -> tuple[Process, float]:
        """Nothing to start: the upstream runs already."""
        return NoProcess(), 0.0

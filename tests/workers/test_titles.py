"""The processes of a relay have names of their own in `ps -o comm`, `top` and `pgrep`."""

from pathlib import Path

from relay.workers.title import worker_title
from tests.workers.processes import nursery_of, workers_of
from tests.workers.shared import Shared


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")


def test_each_process_has_a_telling_name(shared: Shared) -> None:
    running = shared.running
    assert title(running.process.pid) == "relay owner"
    assert title(nursery_of(running)) == "relay nursery"
    names = sorted(title(pid) for pid in workers_of(running))
    assert names == ["relay worker 0", "relay worker 1"]


def test_no_two_workers_share_a_name() -> None:
    """The system keeps 15 octets of a name."""
    names = {worker_title(number)[:15] for number in range(256)}
    assert len(names) == 256

"""The process that forks workers, on its own."""

import subprocess
import sys


def test_a_nursery_of_a_busy_relay_is_started_again() -> None:
    """Its link has a high number then."""
    program = "from tests.workers.nursery_program import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (done.stdout, done.returncode) == (b"here\n", 0), done.stderr

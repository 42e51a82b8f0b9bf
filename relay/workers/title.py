"""The name of a process, as `ps -o comm`, `top` and `pgrep` show it.

Decides the names. Must not know the processes' work.
"""

import contextlib
from pathlib import Path
from typing import Final

OWNER: Final = "relay owner"
NURSERY: Final = "relay nursery"


def worker_title(number: int) -> str:
    """Of a worker, by its number in the error log, at most 255. The system keeps 15 octets."""
    return f"relay worker{number:>2}"


def set_title(title: str) -> None:
    """Name this process. Its threads that start later get the name, too."""
    with contextlib.suppress(OSError):  # a system without /proc shows the command
        Path("/proc/self/comm").write_text(title, encoding="ascii")

"""Sets up the allocator and the garbage collector of a process that serves for long."""

import ctypes
import gc
from typing import Final

_MMAP_THRESHOLD: Final = -3  # glibc's M_MMAP_THRESHOLD, see mallopt(3)
_MMAP_OCTETS: Final = 1024 * 1024


def map_large_blocks() -> None:
    """Give each block of 1 MiB or more a mapping of its own.

    A growing mapping is moved by the kernel without a copy, and a freed one leaves the process.
    By default glibc raises its threshold to 32 MiB: then a large body that grows is copied for up
    to 40 ms. Other C libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _MMAP_OCTETS)


def collect_later() -> None:
    """Collect nothing until `freeze_objects`: what a start makes lives as long as the process, and
    the collector would look at each of many keys several times."""
    gc.disable()


def freeze_objects() -> None:
    """Let the collector skip the objects that exist now: they live as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)  # requests leave no cycles behind
    gc.enable()

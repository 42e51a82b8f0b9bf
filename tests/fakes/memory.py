"""Measures the memory that a call takes at its most."""

import tracemalloc
from collections.abc import Callable


def peak_octets(call: Callable[[], object]) -> int:
    """The octets that `call` has allocated at one time, beyond those before it."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

"""The pool's clock: epoch seconds that never step.

It is the monotonic clock plus the epoch time at which the process started. Cooldowns, outages and
the queue's deadlines use it, so a corrected system clock ends none early and prolongs none. A
date that an upstream states is converted once, when it comes (`converted`).

Decides how the two clocks relate. Must not know what is timed.
"""

import time
from typing import Final

_START: Final = time.time() - time.monotonic()
_SMALLEST_STEP_SECONDS: Final = 1.0  # a smaller difference is drift or rounding


def now() -> float:
    """The present time by the pool's clock."""
    return _START + time.monotonic()


def _step() -> float:
    """Seconds by which the system's clock is ahead of the pool's."""
    step = time.time() - now()
    return step if abs(step) >= _SMALLEST_STEP_SECONDS else 0.0


def converted(moment: float) -> float:
    """A moment of the system's clock → the pool's."""
    return moment - _step()


def shown(moment: float) -> float:
    """A moment of the pool's clock → the system's, to show it to people and clients."""
    return moment + _step()

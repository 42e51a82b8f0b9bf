"""The budget of a connection for frames that no honest client needs many of.

One score for every kind, as HAProxy's `tune.h2.fe.glitches-threshold` has it: three quarters of it
end the connection gracefully, all of it closes the connection. An allowance covers the control
frames of ordinary clients, and grows with their requests and the data that they receive.

Decides what a frame costs. Must not know frames. Times are in seconds.
"""

from typing import Final

LIMIT: Final = 1000  # points: the connection closes
GRACEFUL: Final = 750  # points: it takes no further requests

PREMATURE_RESET: Final = 5  # by the client, before its request was answered: CVE-2023-44487
PROVOKED_RESET: Final = 10  # by the relay, for the client's fault: CVE-2025-8671
REFUSED_REQUEST: Final = 5  # above the limit of concurrent streams

_DECAY: Final = 1.0  # points a second
_FIRST_ALLOWANCE: Final = 64  # control frames
_MAX_ALLOWANCE: Final = 512
_ALLOWED_PER_SECOND: Final = 4.0


class GlitchBudget:
    """See the module. `earned`: what the allowance grows by, added up by its owner."""

    __slots__ = ("_allowance", "_at", "earned", "score")

    def __init__(self) -> None:
        self.score = 0.0
        self.earned = 0
        self._allowance = float(_FIRST_ALLOWANCE)
        self._at = 0.0

    def control_frame(self, now: float) -> None:
        """Count a control frame, or one that brings next to nothing."""
        self._pass_time(now)
        if self.earned:
            self._allowance = min(self._allowance + self.earned, _MAX_ALLOWANCE)
            self.earned = 0
        if self._allowance >= 1.0:
            self._allowance -= 1.0
        else:
            self.score += 1.0

    def glitch(self, points: int, now: float) -> None:
        """Count one of the kinds above."""
        self._pass_time(now)
        self.score += points

    def _pass_time(self, now: float) -> None:
        passed = now - self._at
        if passed > 0:
            self._at = now
            self.score = max(0.0, self.score - passed * _DECAY)
            self._allowance = min(
                self._allowance + passed * _ALLOWED_PER_SECOND,
                max(self._allowance, _FIRST_ALLOWANCE),
            )

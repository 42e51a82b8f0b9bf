"""Formats moments and parses durations.

Must not read the clock: the present moment comes in as an argument.
"""

import re
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache
from typing import Final

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,8})([smhd])")


def seconds(text: str) -> int:
    """Parse a duration: `5h` → 18000. The units are s, m, h and d.

    Raises:
        ValueError: the text is not a duration.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is no duration; write a whole number and s, m, h or d: 30s, 5h, 7d"
        )
    return int(match[1]) * _UNITS[match[2]]


_MILLISECONDS: Final = [f".{number:03d}Z" for number in range(1000)]


@lru_cache(maxsize=4)
def _date_and_time(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%S}"


def rfc3339(moment: float) -> str:
    """Epoch seconds → `2026-04-08T12:01:00.000Z`."""
    second, millisecond = divmod(int(moment * 1000), 1000)
    return _date_and_time(second) + _MILLISECONDS[millisecond]


def http_date(moment: float) -> bytes:
    """Epoch seconds → `Wed, 08 Apr 2026 12:01:00 GMT` (RFC 9110 §5.6.7)."""
    return formatdate(moment, usegmt=True).encode()

"""When a certificate is renewed, and when a failed order is tried again.

Pure: times are Unix time, delays seconds, `jitter` is a random number from 0 to 1.
"""

import contextlib
from email.utils import parsedate_to_datetime
from typing import Final

_RENEWED_SHARE: Final = 2 / 3  # of the lifetime
_LATEST_SHARE: Final = 0.95  # of the lifetime, whatever an authority suggests
_JITTER_SHARE: Final = 0.05  # of the lifetime, earlier; so that not all relays come at once
# Let's Encrypt allows five failed validations of a name per hour.
_RETRY_DELAYS: Final = (60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0)
_MAX_RETRY_SECONDS: Final = 7 * 86_400.0


def renewal_time(not_before: float, not_after: float, jitter: float) -> float:
    """When a certificate is due: at 2/3 of its lifetime, or up to 1/20 before."""
    return not_before + (not_after - not_before) * (_RENEWED_SHARE - _JITTER_SHARE * jitter)


def suggested_time(
    window: tuple[float, float], not_before: float, not_after: float, jitter: float
) -> float:
    """When a certificate is due for which its authority suggests a window (RFC 9773 §4.2)."""
    start, end = window
    latest = not_before + (not_after - not_before) * _LATEST_SHARE
    return min(start + (end - start) * jitter, latest)


def retry_after_seconds(field: str, now: float) -> float | None:
    """How long a `retry-after` asks to wait; None: it says nothing."""
    if field.isdecimal():
        return float(field)
    with contextlib.suppress(ValueError, TypeError):
        return parsedate_to_datetime(field).timestamp() - now
    return None


def retry_delay(failures: int, jitter: float, retry_after: float | None = None) -> float:
    """How long to wait after `failures` in a row; `retry_after` is the authority's wish."""
    delay = _RETRY_DELAYS[min(failures, len(_RETRY_DELAYS)) - 1]
    return max(delay, min(retry_after or 0.0, _MAX_RETRY_SECONDS)) + delay * 0.1 * jitter

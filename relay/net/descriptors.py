"""File descriptors: how many this process may have, and how many connections that allows.

Decides the reserve that callers' connections leave to upstreams, the database and the logs. Must
not know connections.
"""

import errno
import resource
from typing import Final

_MIN_RESERVE: Final = 64
_RESERVED_SHARE: Final = 4  # a quarter of a small limit: each request takes an upstream's, too
_MAX_RESERVE: Final = 4096
_MIN_CONNECTIONS: Final = 16
_IDLE_SHARE: Final = 2  # of the reserve, which other upstreams need, too
_MIN_IDLE: Final = 256
_MAX_IDLE: Final = 4096
UNLIMITED: Final = 1 << 62  # stands for RLIM_INFINITY, which is -1


def raise_limit() -> int:
    """Raise the soft limit of descriptors to the hard one; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # "unlimited" is refused by some kernels
            return soft
    return hard


def descriptor_limits() -> tuple[int, int]:
    """The soft and the hard limit in force; `UNLIMITED` for none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    no_limit = resource.RLIM_INFINITY
    return UNLIMITED if soft == no_limit else soft, UNLIMITED if hard == no_limit else hard


def max_connections() -> int:
    """How many connections of callers the limit in force leaves room for."""
    limit = _limit()
    reserve = min(max(limit // _RESERVED_SHARE, _MIN_RESERVE), _MAX_RESERVE)
    return max(limit - reserve, _MIN_CONNECTIONS)


def max_idle_connections() -> int:
    """How many idle connections to one upstream the limit in force leaves room for.

    At most as many as requests in flight by default: all of these may end in one turn of the loop,
    and begin anew in the next.
    """
    return min(max(_limit() // _RESERVED_SHARE // _IDLE_SHARE, _MIN_IDLE), _MAX_IDLE)


def _limit() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if limit == resource.RLIM_INFINITY else limit


def is_exhausted(error: OSError) -> bool:
    """Whether this process (EMFILE) or machine (ENFILE) has no descriptor left."""
    return error.errno in (errno.EMFILE, errno.ENFILE)

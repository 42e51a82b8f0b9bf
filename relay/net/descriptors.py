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
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        limit = 1 << 20
    reserve = min(max(limit // _RESERVED_SHARE, _MIN_RESERVE), _MAX_RESERVE)
    return max(limit - reserve, _MIN_CONNECTIONS)


def is_exhausted(error: OSError) -> bool:
    """Whether this process (EMFILE) or machine (ENFILE) has no descriptor left."""
    return error.errno in (errno.EMFILE, errno.ENFILE)

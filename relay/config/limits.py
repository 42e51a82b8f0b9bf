"""`server.limits`: the largest request, and how much of everything there is at once.

Must not know other sections.
"""

import math
from typing import Final

import msgspec

from relay.config.forms import Octets, Seconds

_MAY_BE_ZERO: Final = {
    "connections", "connections_per_address", "in_flight_per_key", "loop_lag",
}  # fmt: skip


class HeadLimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The largest request that is read, and what is held of all of them, in octets; the most
    connections and requests at once."""

    request_line: Octets = 8 * 1024  # as nginx
    head: Octets = 32 * 1024  # as nginx: 4 x 8 KiB
    fields: int = 100  # HAProxy: 101
    body: Octets = 32 * 1024 * 1024  # as the Messages API
    held: Octets = 256 * 1024 * 1024  # of all requests together: eight of the longest
    held_per_key: Octets = 64 * 1024 * 1024  # of these, for one key
    uploads_per_key: int = 64  # bodies of one key that are on their way
    connections: int = 0  # open at once; 0: as many as the limit of descriptors allows
    connections_per_address: int = 1024  # of one IPv4 address or IPv6 /64; 0: no cap
    in_flight: int = 4096  # requests at once; further ones are refused
    in_flight_per_key: int = 1024  # 0: as the plan allows
    loop_lag: Seconds = 0.1  # seconds; a loop that stays later sheds requests; 0: it does not

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            least = 0 if name in _MAY_BE_ZERO else 1
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be at least {least}")
        if not math.isfinite(self.loop_lag):
            raise ValueError("loop_lag must be a finite number of seconds")
        if self.held_per_key < self.body:
            raise ValueError("held_per_key must be at least body, the longest body that is read")
        if self.held < self.held_per_key:
            raise ValueError("held must be at least held_per_key")

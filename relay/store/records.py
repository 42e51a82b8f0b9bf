"""The records of a request that the journal keeps: how it began, how it ended, what it was charged.

Decides their fields, whose order is that of their JSON. Must not know when they are written.
"""

from typing import Final, Literal, TypeAlias

import msgspec

# scope, owner, kind, per (seconds), refill, size, used, moment (ms): as the ledger gives them.
BucketRow: TypeAlias = tuple[str, str, str, int, str, int, int, int]
MONEY: Final = "money"  # the kind of a row with charges
CHARGED: Final = "charged"  # the refill of such a row, which the statement has already

# How a request was settled. reported: by the upstream's usage; partial: by the usage reported
# until the answer was cut, and the length of its text; left: by its prompt, as its caller left
# before the answer said anything; reserved: by the reservation, as nothing was reported;
# refunded: not at all; crashed: by the reservation, as the relay ended first.
Rule: TypeAlias = Literal["reported", "partial", "left", "reserved", "refunded", "crashed"]


class AdmissionRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A request that was admitted."""

    id: str
    time: float
    key_id: str
    user_id: str
    model: str
    dialect: str
    reserved: int  # tokens
    billed_micro: int  # its charge if the relay ends first; 0: not billed by the token


class Settlement(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How a request ended."""

    id: str
    status: int | None
    served: str | None
    upstream: str | None
    input: int | None
    output: int | None
    cache_read: int | None
    cache_write: int | None
    cost_micro: int
    ttfb_us: int | None
    duration_us: int | None
    outcome: str
    rule: Rule


class Charge(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The cost of a request that is billed by the token."""

    user_id: str
    time: float
    micro: int  # above zero
    request_id: str
    note: str


def settled_use(ended: Settlement) -> tuple[int | None, int | None] | None:
    """Tokens and micro-dollars by which a request was settled, None for as many as were held;
    None: it was refunded."""
    if ended.rule == "refunded":
        return None
    if ended.rule in ("reserved", "crashed"):
        return None, ended.cost_micro
    return (ended.input or 0) + (ended.output or 0) + (ended.cache_write or 0), ended.cost_micro


def crash_charge(request: AdmissionRow, now: float) -> Charge | None:
    """The charge of a request that its process never settled."""
    if not request.billed_micro:
        return None
    note = "settled by rule: crashed"
    return Charge(request.user_id, now, request.billed_micro, request.id, note)


def crash_settlement(request: AdmissionRow) -> Settlement:
    """The settlement of a request that its process never settled: as reserved."""
    return Settlement(
        request.id, None, None, None, None, None, None, None, request.billed_micro, None, None,
        "failed: the relay was ended", "crashed",
    )  # fmt: skip

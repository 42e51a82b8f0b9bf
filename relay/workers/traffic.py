"""The traffic of requests over a link: one batch for each turn of the loop, and grants of slots.

Decides the form alone. Moments do not cross: the processes of one machine share their clocks, but
a lifetime is counted from before its question was sent.
"""

from typing import Any, Final

import msgspec

from relay.quota.state import Row
from relay.store.records import AdmissionRow, Charge, Settlement

# A slot that is closed: its number, whether it was used, and the tokens and micro-dollars, each
# None for as much as was held.
Closed = tuple[int, bool, int | None, int | None]


class Batch(msgspec.Struct, gc=False, array_like=True):
    """The requests of one turn of a worker's loop."""

    number: int  # of the batch; the owner names it once its admissions are on disk
    opened: list[tuple[int, AdmissionRow]]  # each with the slot that it was admitted from
    taken: list[int]  # slots in use without a journal row: those of upstreams' own limits
    more: list[tuple[int, int]]  # slots, and the micro-dollars to hold in all if they are there
    closed: list[Closed]
    ended: list[tuple[Settlement, Charge | None]]
    returned: list[int]  # slots that were not used
    refused: list[tuple[str, str, str]]  # account, key, plan of requests that the worker refused


class Wish(msgspec.Struct, gc=False, array_like=True):
    """A question for slots of one key."""

    account: str
    key: str
    plan: str
    tokens: int  # that the request which waits needs in its slot
    cost: int  # micro-dollars that it needs
    waits: bool  # False: nobody waits, so no window may open for it
    slots: int  # how many to have, beside that one
    slot_tokens: int  # in each of these
    slot_cost: int


class Grant(msgspec.Struct, gc=False, array_like=True):
    """The answer: slots, or the reason why the request that waits has none."""

    slots: list[int]  # the first is the one of the request that waits
    slot_tokens: int  # in each but that
    slot_cost: int
    lifetime: int  # ms, from before the question was sent
    rows: list[Row]  # the limits as they stand, with the slots taken
    refusal: list[Any] | None = None  # see `gateway.remote_errors`


encode_batch: Final = msgspec.msgpack.Encoder().encode
decode_batch: Final = msgspec.msgpack.Decoder(Batch).decode

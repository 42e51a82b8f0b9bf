"""One request on its way through the gateway: what is known of it and held for it."""

from relay.gateway.record import Record, record
from relay.net.exchange import Exchange
from relay.quota.holder import Holder, Reservation
from relay.store.journal import Ticket
from relay.store.queries import LiveKey
from relay.translate.usage import JsonTap, NoTap, StreamTap, Usage

AnyTap = JsonTap | StreamTap | NoTap


class Call:
    """Filled in step by step, in the order of `gateway.relay`."""

    # Defaults stand on the class, so that a call costs only what differs from them.
    caller: LiveKey
    holder: Holder | None = None  # what the caller's plan has left; None: not known yet
    reservation: Reservation | None = None  # quota held until it is settled or given back
    ticket: Ticket | None = None  # whether the reservation is on disk
    tap: AnyTap | None = None  # what reads the answer's usage; None: there is no answer
    usage: Usage | None = None  # what it read, once the answer has come to an end

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.record: Record = record(exchange)

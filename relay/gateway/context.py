"""One request on its way through the gateway: what is known of it and held for it."""

import msgspec

from relay.errors import Dialect, RelayError
from relay.gateway.access_record import AccessRecord
from relay.gateway.dialect import Translation
from relay.net.exchange import Exchange
from relay.quota.state import KeyState, Reservation
from relay.store.batch import AdmissionRow
from relay.store.journal import Ticket
from relay.translate.messages.usage import Usage


class RequestContext(msgspec.Struct):
    """Filled in step by step, in the order of `gateway.relay`."""

    exchange: Exchange
    record: AccessRecord
    counting: bool = False  # it asks how many tokens it has, and no more
    translation: Translation | None = None  # None: it speaks the upstreams' own dialect
    begun: float = 0.0  # when the relay began to work on it: the whole body was there
    holder: KeyState | None = None  # what the caller's plan has left
    reservation: Reservation | None = None  # quota held; None: nothing was admitted
    opening: AdmissionRow | None = None  # what the journal has of it,
    ticket: Ticket | None = None  # and whether on disk
    usage: Usage | None = None  # what the answer used; None: there is none that counts

    def failed(self, error: RelayError) -> bytes:
        """What tells the caller of an error in a stream that has begun."""
        if self.translation is None:
            return error.event(Dialect.MESSAGES, self.record.id)
        return self.translation.failed(error)

    def end_failed(self, event: bytes) -> None:
        """End a stream that has begun with what tells of an error. It is cut there, but in a
        dialect that has an end for such streams."""
        exchange = self.exchange
        exchange.write(event)
        if self.translation is not None and self.translation.ends_failed:
            exchange.end()
        else:
            exchange.close()

"""Buying, and taking in what Stripe says: the one place that pages ask.

Decides the order of both: a payment is kept before Stripe hears of it, and an event is verified
before anything reads it. Must not know pages, or what an event moves.
"""

from dataclasses import dataclass

from relay.config import PaymentsSettings, Settings
from relay.net.off_loop import off_loop
from relay.payments import events
from relay.payments.checkout import Checkout, Return
from relay.payments.invoices import Invoices
from relay.payments.offers import offered
from relay.payments.signature import verify
from relay.secret import Secret
from relay.store import payment_events, payments
from relay.store.database import Database
from relay.store.payment_events import Outcome
from relay.store.payments import Payment, Purchase
from relay.store.users import User


class NoOfferError(Exception):
    """Nothing with this id is for sale."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants to buy: the id of an offer, and where they come back to. The page of
    the payment is below `page`."""

    offer: str
    page: str
    cancelled: str
    language: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event as it came: its octets, its signature, and when."""

    body: bytes
    signature: str
    time: float


class Desk:
    """See the module."""

    def __init__(self) -> None:
        self.invoices = Invoices()
        self._checkout = Checkout()
        self._secret: tuple[PaymentsSettings, Secret] | None = None

    def purchase(self, settings: Settings, offer_id: str) -> Purchase:
        """What an offer sells now. Raises NoOfferError: there is no such offer."""
        found = offered(settings).purchases.get(offer_id)
        if found is None:
            raise NoOfferError(offer_id)
        return found

    async def buy(
        self,
        database: Database,
        settings: Settings,
        user: User,
        wanted: Wanted,
        now: float,
    ) -> str:
        """Where a person pays for an offer.

        Raises:
            NoOfferError: there is no such offer.
            CheckoutError: Stripe made no session; the message is for the operator.
            BusyError: too many people buy at once.
            StoreError: SQLite failed.
        """
        purchase = self.purchase(settings, wanted.offer)
        payment = await payments.open_payment(database, user, purchase, now)
        back = Return(f"{wanted.page}/{payment.id}", wanted.cancelled, wanted.language)
        session = await self._checkout.leave(settings.payments, payment, back)
        await payments.set_session(database, payment.id, session.id)
        return session.url

    async def receive(self, database: Database, settings: Settings, arrival: Arrival) -> Outcome:
        """Take an event in. One that does not concern the relay is `foreign`.

        Raises:
            SignatureError: it is not Stripe's.
            EventError: it cannot be read.
            ValueError: the secret that signs events cannot be read.
            StoreError: SQLite failed, and nothing has changed.
        """
        secret = await self._signing_secret(settings.payments)
        verify(arrival.signature, arrival.body, secret, arrival.time)
        fact = events.read(arrival.body)
        if fact is None:
            return "foreign"
        return await payment_events.apply(database, fact, offered(settings), arrival.time)

    async def _signing_secret(self, settings: PaymentsSettings) -> Secret:
        """Read once for each reading of relay.toml, on a thread: it may be in a file."""
        if self._secret is None or self._secret[0] is not settings:
            secret = await off_loop("payments", lambda: settings.resolved("webhook_secret"))
            self._secret = (settings, secret)
        return self._secret[1]

    async def pdf(self, payment: Payment) -> bytes:
        """The invoice of a payment. Raises BusyError: too many are being made."""
        return await self.invoices.pdf(payment)

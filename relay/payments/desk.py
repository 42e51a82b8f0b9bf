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
from relay.store import payment_events, payments, periods
from relay.store.database import Database
from relay.store.payment_events import Outcome
from relay.store.payments import Payment, Purchase
from relay.store.periods import NewPeriod, Outlook
from relay.store.users import User


class NoOfferError(Exception):
    """Nothing with this id is for sale."""


class PlanError(Exception):
    """The plan is not sold to this person: it gives nothing, or its person has yet to agree that
    it takes the place of the present one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An order: the id of an offer, the plan that its person agrees to give up for it (see
    `periods.agreement`), and where they come back to. The payment's page is below `page`."""

    offer: str
    agreed: str
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
        """The purchase behind an offer. Raises NoOfferError: there is no such offer."""
        found = offered(settings).purchases.get(offer_id)
        if found is None:
            raise NoOfferError(offer_id)
        return found

    def outlook(self, purchase: Purchase, user: User, now: float) -> Outlook | None:
        """The outlook of buying a plan now; None: it is no plan."""
        if not purchase.plan:
            return None
        new = NewPeriod(purchase.plan, purchase.seconds, purchase.plan_then, "")
        return periods.outlook(user, new, now)

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
            PlanError: see there.
            CheckoutError: Stripe made no session; the message is for the operator.
            BusyError: too many people buy at once.
            StoreError: SQLite failed.
        """
        purchase = self.purchase(settings, wanted.offer)
        found = self.outlook(purchase, user, now)
        replaced = None
        if found is not None and found.kind not in ("start", "extend"):
            if found.kind == "nothing" or wanted.agreed != periods.agreement(found.present):
                raise PlanError(found.kind)
            replaced = found.present
        payment = await payments.open_payment(database, user, purchase, now, replaced)
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

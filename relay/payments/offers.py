"""The present offers: relay.toml → purchases by the id of their offer. Must not know Stripe."""

from relay.config import OfferSettings, Settings
from relay.store.payment_events import Offered
from relay.store.payments import Purchase


def offered(settings: Settings) -> Offered:
    """All offers of relay.toml, and the plans that there are."""
    purchases = {offer.id: _purchase(settings, offer) for offer in settings.payments.offer}
    return Offered(purchases, frozenset(plan.id for plan in settings.plan))


def _purchase(settings: Settings, offer: OfferSettings) -> Purchase:
    payments = settings.payments
    first = settings.plan[0].id if settings.plan else ""
    return Purchase(
        offer=offer.id,
        title=offer.title,
        price=offer.price,
        currency=payments.currency,
        credit_micro=offer.credit_micro,
        plan=offer.plan,
        seconds=0 if offer.length is None else offer.length.seconds,
        plan_then=(offer.then or first) if offer.plan else "",
        tax_percent=f"{payments.tax_percent:g}",
        seller=payments.seller,
    )

"""An event's JSON → a fact about a payment.

Decides which events matter. All others, and those of payments that the relay did not begin, are
none of its business. Must not know what a fact moves.
"""

from typing import Final

import msgspec

from relay.store.payment_events import Fact, Kind

# Given to Stripe with each payment; it returns them in events about the session and the charge.
PAYMENT: Final = "relay_payment"
ACCOUNT: Final = "relay_account"
OFFER: Final = "relay_offer"

_KINDS: Final[dict[str, Kind]] = {
    "checkout.session.completed": "paid",
    "checkout.session.async_payment_succeeded": "paid",
    "checkout.session.async_payment_failed": "failed",
    "checkout.session.expired": "expired",
    "charge.refunded": "refunded",
    "charge.dispute.created": "disputed",
    "refund.failed": "refund_failed",
    "refund.updated": "refund_failed",  # if it failed or was cancelled
    "charge.refund.updated": "refund_failed",
}
_FAILED: Final = ("failed", "canceled")
_MAX_ID: Final = 255
_MAX_CENTS: Final = 2**53
_MAX_SECONDS: Final = 2**40


class EventError(Exception):
    """The event cannot be read; the message is for the operator."""


class _Data(msgspec.Struct):
    object: msgspec.Raw


class _Event(msgspec.Struct):
    id: str
    type: str
    data: _Data
    created: int = 0


class _Object(msgspec.Struct):
    """A Checkout Session, a charge, a dispute or a refund: the fields that any of them has."""

    id: str
    amount: int | None = None
    amount_total: int | None = None  # of a session
    amount_refunded: int | None = None  # of a charge, in all refunds so far
    currency: str | None = None
    payment_intent: str | None = None
    payment_status: str | None = None  # of a session
    status: str | None = None  # of a refund
    metadata: dict[str, str] | None = None


def read(body: bytes) -> Fact | None:
    """The fact that an event states; None: it does not matter here.

    Raises:
        EventError: it is no event, or not in the form that Stripe documents.
    """
    try:
        event = msgspec.json.decode(body, type=_Event)
        kind = _KINDS.get(event.type)
        if kind is None:
            return None
        about = msgspec.json.decode(event.data.object, type=_Object)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise EventError(f"the event cannot be read: {error}") from None
    is_session = event.type.startswith("checkout.session.")
    if kind == "paid" and about.payment_status != "paid":
        kind = "pending"  # a bank debit, say: another event says how it ends
    if kind == "refund_failed" and about.status not in _FAILED:
        return None
    amount = {"paid": about.amount_total, "refunded": about.amount_refunded}.get(kind, about.amount)
    is_possible = 0 <= (amount or 0) <= _MAX_CENTS and 0 <= event.created <= _MAX_SECONDS
    if not is_possible or not all(0 < len(one) <= _MAX_ID for one in (event.id, about.id)):
        raise EventError("the event has an impossible amount, moment or id")
    metadata = about.metadata or {}
    return Fact(
        event=event.id,
        kind=kind,
        made_at=event.created,
        amount=amount or 0,
        currency=about.currency or "",
        session=about.id if is_session else "",
        intent=about.payment_intent or "",
        refund=about.id if kind == "refund_failed" else "",
        payment=metadata.get(PAYMENT, ""),
        account=metadata.get(ACCOUNT, ""),
        offer=metadata.get(OFFER, ""),
    )

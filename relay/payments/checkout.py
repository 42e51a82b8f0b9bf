"""Leaving for Checkout: one request to Stripe that makes a Checkout Session.

Decides what Stripe learns of a payment, and what is believed of its answer. The request waits for
the network on a thread beside the loop. Must not know pages or SQL.
"""

import http.client
import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec

from relay import __version__
from relay.config import PaymentsSettings
from relay.net.off_loop import BoundedThreads
from relay.payments.events import ACCOUNT, OFFER, PAYMENT
from relay.store.payments import Payment

_TIMEOUT_SECONDS: Final = 10.0  # of a connection and of each read
_MAX_OCTETS: Final = 256 * 1024
_MAX_IN_THREADS: Final = 8
_VERSION: Final = "2025-03-31.basil"  # of Stripe's API, so that a later one changes nothing here


class CheckoutError(Exception):
    """Stripe made no session; the message is for the operator's log, and has no secret."""


@dataclass(frozen=True, slots=True)
class Session:
    """A Checkout Session: its id, and where its person pays."""

    id: str
    url: str


@dataclass(frozen=True, slots=True)
class Return:
    """Where Stripe sends a person back to, and in which language they pay."""

    success_url: str
    cancel_url: str
    language: str


class _Failure(msgspec.Struct):
    message: str = ""
    type: str = ""


class _Answer(msgspec.Struct):
    id: str = ""
    url: str = ""
    error: _Failure | None = None


class Checkout:
    """Makes sessions, a few at once."""

    def __init__(self) -> None:
        self._threads = BoundedThreads(_MAX_IN_THREADS)

    async def leave(self, settings: PaymentsSettings, payment: Payment, back: Return) -> Session:
        """Make the session of a payment.

        Raises:
            CheckoutError: Stripe cannot be reached, refuses, or its answer is not believed.
            BusyError: too many are being made.
        """
        return await self._threads.call("checkout", lambda: _create(settings, payment, back))


def _create(settings: PaymentsSettings, payment: Payment, back: Return) -> Session:
    try:
        key = settings.resolved("stripe_key").reveal()
        status, body = _post(settings.api, key, payment.id, _fields(payment, back))
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.MsgspecError:
        raise CheckoutError(f"status {status}, and no JSON: is something between?") from None
    except ValueError as error:  # a setting
        raise CheckoutError(f"{error}") from None
    except TimeoutError:
        raise CheckoutError(f"no answer within {_TIMEOUT_SECONDS:.0f} s") from None
    except ssl.SSLError as error:
        raise CheckoutError(f"TLS failed: {error.reason or 'certificate not accepted'}") from None
    except OSError as error:
        raise CheckoutError(error.strerror or str(error) or "connection failed") from None
    except http.client.HTTPException as error:
        raise CheckoutError(f"no HTTP answer ({type(error).__name__})") from None
    if status != 200:
        words = answer.error.message if answer.error else ""
        raise CheckoutError(f"refused with status {status}: {words[:300]!r}".replace(key, "•••"))
    if not answer.id or not _leads_to(answer.url, settings.checkout):
        raise CheckoutError(
            f"the session leads to {answer.url[:100]!r}, and not to payments.checkout"
        )
    return Session(answer.id, answer.url)


def _leads_to(url: str, origin: str) -> bool:
    allowed = urlsplit(origin)
    try:
        found = urlsplit(url)
    except ValueError:
        return False
    return url.isprintable() and (found.scheme, found.netloc) == (allowed.scheme, allowed.netloc)


def _fields(payment: Payment, back: Return) -> dict[str, str]:
    """The session in the form that Stripe takes. The charge gets the same ids as the session."""
    line = "line_items[0]"
    fields = {
        "mode": "payment",
        "client_reference_id": payment.id,
        "customer_email": payment.email,
        "success_url": back.success_url,
        "cancel_url": back.cancel_url,
        "locale": back.language,
        "adaptive_pricing[enabled]": "false",  # what comes back is in the currency that was asked
        f"{line}[quantity]": "1",
        f"{line}[price_data][currency]": payment.currency,
        f"{line}[price_data][unit_amount]": str(payment.price),
        f"{line}[price_data][product_data][name]": payment.title,
    }
    ids = {PAYMENT: payment.id, ACCOUNT: payment.user_id, OFFER: payment.offer}
    for name, value in ids.items():
        fields[f"metadata[{name}]"] = value
        fields[f"payment_intent_data[metadata][{name}]"] = value
    return fields


def _post(api: str, key: str, payment_id: str, fields: dict[str, str]) -> tuple[int, bytes]:
    url = urlsplit(api)
    if url.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            url.hostname or "", url.port, timeout=_TIMEOUT_SECONDS,
            context=ssl.create_default_context(),
        )  # fmt: skip
    else:
        connection = http.client.HTTPConnection(
            url.hostname or "", url.port, timeout=_TIMEOUT_SECONDS
        )
    headers = {
        "authorization": f"Bearer {key}",
        "content-type": "application/x-www-form-urlencoded",
        "idempotency-key": payment_id,
        "stripe-version": _VERSION,
        "user-agent": f"relay/{__version__}",
    }
    try:
        target = url.path.rstrip("/") + "/v1/checkout/sessions"
        connection.request("POST", target, urlencode(fields), headers)
        answer = connection.getresponse()
        return answer.status, answer.read(_MAX_OCTETS)
    finally:
        connection.close()

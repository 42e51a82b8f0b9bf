"""The settings of payments by Stripe: its keys, what is for sale, and what invoices say.

Checks itself, as the sections of `schema` do. Must not know pages or how Stripe is asked.
"""

import re
from decimal import Decimal
from typing import Final
from urllib.parse import urlsplit

import msgspec

from relay import secret
from relay.config.checks import check_name, check_url
from relay.config.forms import Cents, Dollars, PlainText, Url
from relay.config.values import Duration
from relay.secret import Secret

_CURRENCY: Final = re.compile("[a-z]{3}")
_THREE_DECIMALS: Final = ("bhd", "iqd", "jod", "kwd", "lyd", "omr", "tnd")
_MAX_PRICE: Final = 99_999_999  # Stripe's own limit
_MAX_CREDIT: Final = 1_000_000  # dollars
_MAX_TITLE: Final = 100
_MAX_SELLER: Final = 1_000
_MICRO: Final = 10**6
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_PDF_CHARACTERS: Final = "cp1252"  # all that the fonts of every PDF reader have
_SECRETS: Final = ("stripe_key", "webhook_secret")


class OfferSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One thing that is for sale: credit, or a plan for a time."""

    id: str  # in payments
    title: PlainText  # for people
    price: Cents  # cents of the currency, tax included
    credit: Dollars = 0.0  # dollars on the balance
    plan: str = ""
    length: Duration | None = None  # of the plan
    then: str = ""  # the plan that follows; "": the first one

    def __post_init__(self) -> None:
        check_name("id", self.id)
        if not 0 < len(self.title) <= _MAX_TITLE or not self.title.isprintable():
            raise ValueError(f"title must have from 1 to {_MAX_TITLE} printable characters")
        if not 0 < self.price <= _MAX_PRICE:
            raise ValueError(f"price must be from 1 to {_MAX_PRICE:,} cents")
        if not 0 <= self.credit <= _MAX_CREDIT:
            raise ValueError(f"credit must be from 0 to {_MAX_CREDIT:,} dollars")
        if bool(self.plan) == bool(self.credit):
            raise ValueError("credit must be given, or else plan: one of them, and not both")
        if bool(self.plan) != (self.length is not None):
            raise ValueError('length goes with plan, such as length = "30d"')
        if self.then and not self.plan:
            raise ValueError("then goes with plan: it follows the plan that is bought")

    @property
    def credit_micro(self) -> int:
        """The credit in micro-dollars."""
        return int(Decimal(str(self.credit)) * _MICRO)


class PaymentsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Payments by Stripe; without `stripe_key` there are none."""

    stripe_key: str = ""
    webhook_secret: str = ""
    currency: PlainText = "usd"
    seller: str = ""  # lines at the head of invoices
    tax_percent: float = 0.0  # contained in prices; 0: no line of tax
    api: Url = "https://api.stripe.com"
    checkout: Url = "https://checkout.stripe.com"  # where people pay; theirs, or one's own domain
    offer: list[OfferSettings] = []

    def __post_init__(self) -> None:
        for name in _SECRETS:
            text = getattr(self, name)
            if text.startswith("$"):
                raise ValueError(f"{name} is taken literally; write env:{text.strip('${}')}")
        if bool(self.stripe_key) != bool(self.webhook_secret):
            raise ValueError("stripe_key and webhook_secret belong together: give both, or neither")
        if self.stripe_key and not self.offer:
            raise ValueError("offer is needed with stripe_key: add [[payments.offer]]")
        if not _CURRENCY.fullmatch(self.currency) or self.currency in _THREE_DECIMALS:
            raise ValueError('currency must be a code such as "usd", of up to two decimals')
        if not 0 <= self.tax_percent < 100:
            raise ValueError("tax_percent must be 0 or more, and less than 100")
        self._check_seller()
        for name in ("api", "checkout"):
            url = getattr(self, name)
            check_url(name, url)
            parts = urlsplit(url)
            if parts.scheme != "https" and parts.hostname not in _LOCAL:
                raise ValueError(f"{name} must begin with https://, but on this machine")
        if urlsplit(self.checkout).path not in ("", "/"):
            raise ValueError("checkout takes a scheme, host and port, and no path")

    def _check_seller(self) -> None:
        if len(self.seller) > _MAX_SELLER:
            raise ValueError(f"seller must have up to {_MAX_SELLER:,} characters")
        if not all(line.isprintable() for line in self.seller.splitlines()):
            raise ValueError("seller must have printable characters")
        try:
            self.seller.encode(_PDF_CHARACTERS)
        except UnicodeEncodeError as error:
            character = self.seller[error.start]
            raise ValueError(
                f"seller must have Latin letters, since the fonts of PDF lack {character!r}"
            ) from None

    def __repr__(self) -> str:
        return f"Payments({self.currency!r}, {self.offer!r})"  # the rest holds secrets

    @property
    def enabled(self) -> bool:
        """Whether anything can be bought."""
        return bool(self.stripe_key)

    def resolved(self, name: str) -> Secret:
        """`stripe_key` or `webhook_secret` itself.

        Raises:
            ValueError: the variable or file that it names cannot be read.
        """
        return secret.resolve(getattr(self, name))

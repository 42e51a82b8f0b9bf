"""Cents as text, and the tax that a price contains: exact, in whole cents.

Must not know payments.
"""

from decimal import ROUND_HALF_UP, Decimal
from typing import Final

# Stripe writes amounts of these in units; an amount of any other currency is in hundredths.
_WITHOUT_DECIMALS: Final = frozenset(
    {"bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf",
     "xof", "xpf"}
)  # fmt: skip


def decimal(cents: int, currency: str) -> str:
    """An amount as a plain number: `1234.50`."""
    if currency in _WITHOUT_DECIMALS:
        return str(cents)
    sign = "-" if cents < 0 else ""
    units, rest = divmod(abs(cents), 100)
    return f"{sign}{units}.{rest:02}"


def money(cents: int, currency: str) -> str:
    """An amount for people: `1,234.50 EUR`."""
    units, point, rest = decimal(abs(cents), currency).partition(".")
    return f"{'-' if cents < 0 else ''}{int(units):,}{point}{rest} {currency.upper()}"


def tax_within(price: int, percent: str) -> int:
    """The tax in a price that contains so many percent of it, rounded to the cent."""
    rate = Decimal(percent)
    net = (Decimal(price) * 100 / (100 + rate)).to_integral_value(ROUND_HALF_UP)
    return price - int(net)

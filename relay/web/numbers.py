"""Numbers as people type them into forms: whole ones, and amounts in dollars.

Full-width digits count as others: Chinese keyboards write them. Must not know forms.
"""

import re
from typing import Final

from relay.store.balance import MAX_CREDIT_MICRO

_PLAIN: Final = str.maketrans("０１２３４５６７８９．，－＋＄％＝／　", "0123456789.,-+$%=/ ")
_WHOLE: Final = re.compile("[0-9]{1,13}")
_AMOUNT: Final = re.compile(r"([-+−]?)\$?([0-9]{1,7})(?:\.([0-9]{1,6}))?")
_MICRO_DIGITS: Final = 6


def plain(text: str) -> str:
    """A text with plain digits and signs in place of full-width ones."""
    return text.translate(_PLAIN).strip()


def whole_number(text: str, most: int, least: int = 1) -> int | None:
    """A whole number in a range; None: the text is none."""
    text = plain(text)
    number = int(text) if _WHOLE.fullmatch(text) else -1
    return number if least <= number <= most else None


def micro_dollars(text: str) -> int | None:
    """An amount in dollars, such as `-12.50`, as micro-dollars; None: it is none, or zero."""
    match = _AMOUNT.fullmatch(plain(text))
    if match is None:
        return None
    sign, units, decimals = match.groups()
    micro = int(units) * 10**_MICRO_DIGITS + int((decimals or "").ljust(_MICRO_DIGITS, "0"))
    if not 0 < micro <= MAX_CREDIT_MICRO:
        return None
    return micro if sign in ("", "+") else -micro

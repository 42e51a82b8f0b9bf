"""Amounts of money as people write them on the command line."""

import re
from typing import Final

from relay.cli.program import Misuse

_AMOUNT: Final = re.compile(r"([+-]?)([0-9]{1,12})(?:\.([0-9]{1,6}))?")


def micro_dollars(amount: str) -> int:
    """An amount in dollars, such as `-12.50`, as micro-dollars.

    Raises:
        Misuse: it is no amount.
    """
    match = _AMOUNT.fullmatch(amount)
    if match is None:
        raise Misuse(
            f"relay: {amount!r} is no amount; write US dollars, with up to six decimals and "
            "nothing else: 25, 12.50, -4"
        )
    sign, units, decimals = match.groups()
    micro = int(units) * 10**6 + int((decimals or "").ljust(6, "0"))
    return -micro if sign == "-" else micro

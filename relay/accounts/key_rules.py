"""The settings of one key, as people write them: models, addresses, limits.

Decides which patterns, networks and limits are accepted, and their regular form. Must not know how
they are enforced, or SQL.
"""

import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from relay import clock
from relay.accounts import InvalidError
from relay.store.keys import KeyRules, OwnLimit

MAX_ENTRIES: Final = 50  # of one list
_MAX_AMOUNT: Final = 10**12
_MAX_PER_SECONDS: Final = 366 * 86_400
MAX_CONCURRENCY: Final = 100_000
_MAX_QUOTED: Final = 60
_MODEL: Final = re.compile(r"[\x21-\x7e]{1,128}")
_LIMIT: Final = re.compile(r"(requests|tokens|money)=([0-9][0-9_]{0,14})(?:\.([0-9]{1,6}))?/(\w+)")
_EXAMPLE: Final = "requests=100/1d, tokens=1_000_000/5h or money=2.50/30d"


def rules(
    models: Sequence[str] | None = None,
    addresses: Sequence[str] | None = None,
    limits: Sequence[str] | None = None,
    max_concurrency: int = 0,
) -> KeyRules:
    """The rules that these texts mean; an empty list is as none.

    Raises:
        InvalidError: one of them is wrong; the message says what to write.
    """
    if not 0 <= max_concurrency <= MAX_CONCURRENCY:
        raise InvalidError(f"max_concurrency: a number from 0 (no limit) to {MAX_CONCURRENCY:,}")
    return KeyRules(
        _models(models) if models else None,
        _addresses(addresses) if addresses else None,
        checked_limits([own_limit(text) for text in limits]) if limits else None,
        max_concurrency,
    )


def _short(text: str) -> str:
    """An entry as a message quotes it."""
    return repr(text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "…")


def _models(patterns: Sequence[str]) -> tuple[str, ...]:
    _check_number("models", patterns)
    for pattern in patterns:
        if not _MODEL.fullmatch(pattern) or "*" in pattern[:-1]:
            raise InvalidError(
                f"models: {_short(pattern)} is no name of a model; write one as /v1/models has "
                "it, or its beginning and `*`, such as claude-sonnet-*"
            )
    return tuple(dict.fromkeys(patterns))


def _addresses(entries: Sequence[str]) -> tuple[str, ...]:
    _check_number("addresses", entries)
    found = []
    for entry in entries:
        try:
            network = ipaddress.ip_network(entry)
        except ValueError as error:
            hint = _host_bits_hint(entry)
            raise InvalidError(
                f"addresses: {_short(entry)} is no address or network{hint}; write 192.0.2.7, "
                "192.0.2.0/24 or 2001:db8::/32"
            ) from error
        found.append(str(network))
    return tuple(dict.fromkeys(found))


def _host_bits_hint(entry: str) -> str:
    try:
        meant = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return ""
    return f" (perhaps {meant} is meant)"


def own_limit(text: str) -> OwnLimit:
    """A limit as text, such as `requests=100/1d`. Raises InvalidError: it is none."""
    match = _LIMIT.fullmatch(text)
    if match is None or (match[3] is not None and match[1] != "money"):
        raise InvalidError(f"limits: {_short(text)} is no limit; write {_EXAMPLE}")
    counts, units, decimals, period = match.groups()
    try:
        per = clock.seconds(period)
    except ValueError as error:
        raise InvalidError(f"limits: {_short(text)}: {error}") from None
    amount = int(units)
    if counts == "money":
        amount = amount * 10**6 + int((decimals or "").ljust(6, "0"))
    return OwnLimit(counts, amount, per)  # type: ignore[arg-type]  # as the pattern has it


def limit_text(limit: OwnLimit) -> str:
    """A limit as `own_limit` reads it."""
    amount = str(limit.amount)
    if limit.counts == "money":
        units, micro = divmod(limit.amount, 10**6)
        amount = f"{units}.{micro:06d}".rstrip("0").rstrip(".")
    for seconds, unit in ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if limit.per % seconds == 0:
            return f"{limit.counts}={amount}/{limit.per // seconds}{unit}"
    raise AssertionError("a period is whole seconds")


def checked_limits(limits: Sequence[OwnLimit]) -> tuple[OwnLimit, ...]:
    """Raises InvalidError: a limit is out of range, or one is given twice."""
    _check_number("limits", limits)
    seen = set()
    for limit in limits:
        if not 0 < limit.amount <= _MAX_AMOUNT or not 0 < limit.per <= _MAX_PER_SECONDS:
            raise InvalidError(
                f"limits: {limit.counts} must be more than nothing, at most {_MAX_AMOUNT:,} "
                "(of money: micro-dollars), in up to 366 days"
            )
        if (limit.counts, limit.per) in seen:
            raise InvalidError(f"limits: {limit.counts} has two limits for the same period")
        seen.add((limit.counts, limit.per))
    return tuple(limits)


def _check_number(name: str, entries: Sequence[object]) -> None:
    if len(entries) > MAX_ENTRIES:
        raise InvalidError(f"{name}: at most {MAX_ENTRIES} entries")

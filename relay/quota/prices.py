"""Compiles prices from the settings, once at the start.

Decides what tokens, searches and modes of service cost. Must not know accounts or requests.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Final

from relay import config

_MILLION: Final = 1_000_000
_DATE: Final = re.compile(r"[-@]\d{8}$")
# Anthropic API reference, Pricing: a cache write costs 1.25 times the input, for an hour twice
# the input; a cache read a tenth of it.
_CACHE_READ: Final = Decimal("0.1")
_CACHE_WRITE: Final = Decimal("1.25")
_CACHE_WRITE_1H: Final = Decimal(2)


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of a model's tokens, in micro-dollars per *million* tokens.

    A dollar per million tokens is a micro-dollar per token, and a cached token costs a
    fraction of that. So prices keep six more digits, and only the sum of a request's cost
    is rounded, up to a whole micro-dollar. The server tools' prices are per million calls.
    Factors are in millionths, by the upstream's word for the mode.
    """

    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    web_search: int = 0
    web_fetch: int = 0
    code_execution: int = 0
    speed: Mapping[str, int] = field(default_factory=dict)
    geography: Mapping[str, int] = field(default_factory=dict)
    tier: Mapping[str, int] = field(default_factory=dict)

    def cost(
        self,
        input: int,
        output: int,
        cache_read: int = 0,
        cache_write: int = 0,
        cache_write_1h: int = 0,
    ) -> int:
        """Micro-dollars, rounded up; see `units`."""
        return rounded_up(self.units(input, output, cache_read, cache_write, cache_write_1h))

    def units(
        self,
        input: int,
        output: int,
        cache_read: int = 0,
        cache_write: int = 0,
        cache_write_1h: int = 0,
    ) -> int:
        """Millionths of a micro-dollar. `input` excludes tokens read from or written to a cache,
        `cache_write_1h` is a part of `cache_write`."""
        return (
            input * self.input
            + output * self.output
            + cache_read * self.cache_read
            + (cache_write - cache_write_1h) * self.cache_write
            + cache_write_1h * self.cache_write_1h
        )

    def in_mode(
        self, units: int, speed: str | None, geography: str | None, tier: str | None
    ) -> int:
        """The cost of tokens as the mode of service changes it."""
        if speed is not None and speed in self.speed:
            units = rounded_up(units * self.speed[speed])
        if geography is not None and geography in self.geography:
            units = rounded_up(units * self.geography[geography])
        if tier is not None and tier in self.tier:
            units = rounded_up(units * self.tier[tier])
        return units


def rounded_up(units: int) -> int:
    """Millionths as whole ones, rounded up."""
    return -(-units // _MILLION)


class PriceList:
    """The prices of all models that have any.

    Answers may name a model by its id, its alias, its upstream's name for it, or any of these
    with a date. A model that is not in the list, such as one that a request fell back to, costs
    as much as the dearest.
    """

    __slots__ = ("_dearest", "_names", "_prices", "_served")

    def __init__(self, models: Iterable[config.ModelSettings]) -> None:
        self._prices: dict[str, Prices] = {}
        self._served: dict[str, frozenset[str]] = {}
        self._names: dict[str, Prices] = {}
        for model in models:
            if model.price is None:
                continue
            prices = _compile(model.price)
            names = config.exact_names(model)
            served = [route.model for route in model.routes or () if route.model is not None]
            for name in names:
                self._prices[name] = prices
                self._served[name] = frozenset((*names, *served))
            for name in served:
                known = self._names.get(name)
                self._names[name] = prices if known is None else _dearer(known, prices)
        self._names |= self._prices
        self._dearest: Prices | None = None
        for prices in self._prices.values():
            self._dearest = prices if self._dearest is None else _dearer(self._dearest, prices)

    def of(self, model: str) -> Prices | None:
        """The prices of a model by its id or alias."""
        return self._prices.get(model)

    def of_run(self, asked: str, own: Prices, served: str | None) -> Prices:
        """The prices of one run of an answer. `asked`: the model that was asked for, whose prices
        are `own`; `served`: the model that ran, as the upstream names it."""
        if served is None or self._dearest is None:
            return own
        for name in (served, _DATE.sub("", served)):
            if name in self._served.get(asked, ()):
                return own
            if (prices := self._names.get(name)) is not None:
                return prices
        return self._dearest


def _dearer(one: Prices, other: Prices) -> Prices:
    """The higher of each price."""
    return Prices(
        max(one.input, other.input),
        max(one.output, other.output),
        max(one.cache_read, other.cache_read),
        max(one.cache_write, other.cache_write),
        max(one.cache_write_1h, other.cache_write_1h),
    )


def _compile(price: config.PriceSettings) -> Prices:
    input = Decimal(repr(price.input))
    return Prices(
        _scaled(input),
        _scaled(price.output),
        _scaled(input * _CACHE_READ if price.cache_read is None else price.cache_read),
        _scaled(input * _CACHE_WRITE if price.cache_write is None else price.cache_write),
        _scaled(input * _CACHE_WRITE_1H if price.cache_write_1h is None else price.cache_write_1h),
        _scaled(price.web_search) * 1000,
        _scaled(price.web_fetch) * 1000,
        _scaled(price.code_execution) * 1000,
        {"fast": _scaled(price.fast)},
        {name: _scaled(factor) for name, factor in price.inference_geo.items()},
        {name: _scaled(factor) for name, factor in price.service_tier.items()},
    )


def _scaled(price: float | Decimal) -> int:
    """Millionths, from the decimal digits of the settings."""
    scaled = (price if isinstance(price, Decimal) else Decimal(repr(price))) * _MILLION
    return int(scaled.to_integral_value(rounding=ROUND_CEILING))

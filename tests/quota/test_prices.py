"""Prices, compiled: of tokens, caches, server tools and modes of service."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import config
from relay.quota.prices import PriceList, Prices


def priced(id: str = "m", aliases: list[str] | None = None, **price: float) -> config.ModelSettings:
    return config.ModelSettings(
        id=id,
        aliases=aliases or [],
        price=msgspec.convert({"input": 3.0, "output": 15.0, **price}, config.PriceSettings),
    )


def of(**price: object) -> Prices:
    prices = PriceList([priced(**price)]).of("m")  # type: ignore[arg-type]
    assert prices is not None
    return prices


def test_prices_keep_the_digits_of_the_settings() -> None:
    model = config.ModelSettings(
        id="m",
        aliases=["n"],
        price=config.PriceSettings(input=3.0, output=15.0, cache_read=0.3, cache_write=3.75),
    )
    prices = PriceList([model, config.ModelSettings(id="free")])
    assert prices.of("free") is None
    assert prices.of("n") is prices.of("m")
    one = prices.of("m")
    assert one is not None
    assert (one.input, one.output, one.cache_read, one.cache_write) == (
        3_000_000, 15_000_000, 300_000, 3_750_000,
    )  # fmt: skip
    assert one.cost(1_000_000, 0) == 3_000_000  # three dollars
    assert one.cost(0, 0, 10, 0) == 3
    assert one.cost(0, 0, 1, 0) == 1, "a fraction costs a whole micro-dollar"
    assert one.cost(0, 0, 1, 1) == 5, "rounded once, not once for each"
    assert one.cost(0, 0) == 0


@given(st.integers(0, 10**6), st.floats(0, 1000))
def test_nothing_is_ever_billed_below_its_price(tokens: int, price: float) -> None:
    model = config.ModelSettings(id="m", price=config.PriceSettings(input=price, output=0.0))
    prices = PriceList([model]).of("m")
    assert prices is not None
    cost = prices.cost(tokens, 0)
    assert tokens * price * (1 - 1e-12) <= cost <= tokens * price * (1 + 1e-12) + tokens / 1e6 + 1


def test_cache_prices_follow_the_input_where_none_are_given() -> None:
    one = of(input=3.0)
    assert (one.cache_read, one.cache_write, one.cache_write_1h) == (300_000, 3_750_000, 6_000_000)
    free = of(input=3.0, cache_read=0.0, cache_write=0.0, cache_write_1h=0.0)
    assert (free.cache_read, free.cache_write, free.cache_write_1h) == (0, 0, 0)


def test_an_hour_in_the_cache_is_a_part_of_what_was_written() -> None:
    one = of()
    assert one.cost(0, 0, 0, 100_000, 100_000) == 600_000
    assert one.cost(0, 0, 0, 100_000, 40_000) == 40_000 * 6 + 60_000 * 3.75
    assert one.cost(0, 0, 0, 100_000) == 375_000


@pytest.mark.parametrize(
    ("mode", "cost"),
    [
        ((None, None, None), 1000),
        (("standard", "global", "standard"), 1000),
        (("fast", None, None), 6000),
        ((None, "us", None), 1100),
        (("fast", "us", None), 6600),
        ((None, None, "priority"), 1500),
        (("unheard-of", "mars", "x"), 1000),
    ],
    ids=str,
)
def test_a_mode_of_service_multiplies_the_cost(
    mode: tuple[str | None, str | None, str | None], cost: int
) -> None:
    one = PriceList(
        [
            config.ModelSettings(
                id="m",
                price=config.PriceSettings(input=1.0, output=5.0, service_tier={"priority": 1.5}),
            )
        ]
    ).of("m")
    assert one is not None
    assert one.in_mode(1000, *mode) == cost


def test_a_run_costs_what_its_own_model_costs() -> None:
    routed = config.ModelSettings(
        id="glm",
        routes=[config.RouteSettings(upstream="u", model="glm-4.6")],
        price=config.PriceSettings(input=2.0, output=2.0),
    )
    prices = PriceList([priced("small", ["s"], input=1.0), priced("large", input=5.0), routed])
    own = prices.of("small")
    assert own is not None
    for served, input in [
        (None, 1.0), ("small", 1.0), ("s", 1.0), ("small-20251001", 1.0), ("large", 5.0),
        ("large-20260101", 5.0), ("glm-4.6", 2.0), ("glm", 2.0),
    ]:  # fmt: skip
        assert prices.of_run("small", own, served).input == input * 1_000_000, served


def test_a_run_of_an_unknown_model_costs_as_much_as_the_dearest() -> None:
    prices = PriceList(
        [priced("small", input=1.0, output=9.0), priced("large", input=5.0, output=8.0)]
    )
    own = prices.of("small")
    assert own is not None
    dearest = prices.of_run("small", own, "unheard-of")
    assert (dearest.input, dearest.output) == (5_000_000, 9_000_000)
    assert PriceList([]).of_run("m", own, "x") is own


def test_an_upstreams_name_costs_its_dearest_model() -> None:
    def routed(id: str, input: float) -> config.ModelSettings:
        route = config.RouteSettings(upstream="u", model="real")
        return config.ModelSettings(
            id=id, routes=[route], price=config.PriceSettings(input=input, output=1.0)
        )

    prices = PriceList([routed("a", 1.0), routed("b", 4.0), priced("c", input=9.0)])
    for asked, input in [("a", 1.0), ("b", 4.0), ("c", 4.0)]:
        own = prices.of(asked)
        assert own is not None
        assert prices.of_run(asked, own, "real").input == input * 1_000_000

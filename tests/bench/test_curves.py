"""An exponent is the one that the points were made with, and a bend is where it was put."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.curves import Fit, curve, fit

_SIZES = (1, 8, 32, 128, 512, 2_000)


def _points(
    seed: int, exponent: float, noise: float = 0.05, rounds: int = 3
) -> list[tuple[float, float]]:
    chance = random.Random(seed)
    return [
        (size, 50.0 * size**exponent * (1 + chance.uniform(-noise, noise)))
        for size in _SIZES
        for _ in range(rounds)
    ]


@given(st.integers(0, 10_000), st.floats(-2, 2))
def test_points_of_a_power_give_its_exponent(seed: int, exponent: float) -> None:
    found = fit(_points(seed, exponent))
    assert found is not None
    assert found.exponent == pytest.approx(exponent, abs=0.03)
    assert 0 < found.error < 0.01
    assert found.bend is None


@given(st.floats(0.001, 1e9))
def test_a_constant_has_the_exponent_zero(value: float) -> None:
    found = fit([(size, value) for size in _SIZES])
    assert found is not None
    assert found.exponent == pytest.approx(0, abs=1e-9)
    assert found.error == pytest.approx(0, abs=1e-6)
    assert found.bend is None


@given(
    st.integers(0, 10_000),
    st.sampled_from(_SIZES[1:-1]),
    st.floats(-1, 1),
    st.sampled_from([-1.5, -0.8, 0.8, 1.5]),
)
def test_a_bend_is_found_where_it_was_put(
    seed: int, size: int, before: float, change: float
) -> None:
    points = [
        (x, y * (max(x, size) / size) ** change) for x, y in _points(seed, before, noise=0.03)
    ]
    found = fit(points)
    assert found is not None
    assert found.bend is not None
    assert size / 1.5 < found.bend.size < size * 1.5
    assert found.bend.before == pytest.approx(before, abs=0.15)
    assert found.bend.after == pytest.approx(before + change, abs=0.15)


@pytest.mark.parametrize("points", [[], [(8, 1)], [(8, 1), (8, 2)], [(0, 1), (8, 2)], [(1, 0)]])
def test_one_size_has_no_exponent(points: list[tuple[float, float]]) -> None:
    assert fit(points) is None


def test_two_sizes_have_an_exponent_without_an_error() -> None:
    found = fit([(10, 5), (1000, 50)])
    assert found is not None
    assert found.exponent == pytest.approx(0.5)
    assert found.error == 0


def test_four_sizes_are_too_few_for_a_bend() -> None:
    found = fit([(1, 1), (10, 1), (100, 1), (1000, 1000)])
    assert found is not None
    assert found.bend is None


def test_a_fit_is_written_as_a_power() -> None:
    assert str(Fit(0.984, 0.021)) == "n^0.98 ±0.02"
    bent = fit([(size, max(size, 100)) for size in (1, 10, 100, 1_000, 10_000)])
    assert str(bent) == "n^0.00, from about 100 on n^1.00"


def test_figures_with_a_size_become_points() -> None:
    rounds = [{"p99_us@8": 2.0, "p99_us@1": 1.0, "stall_ms": 3.0}, {"p99_us@8": 4.0, "a@b": 1.0}]
    assert curve(rounds) == {"p99_us": [(1, 1.0), (8, 2.0), (8, 4.0)]}

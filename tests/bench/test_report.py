"""The ratio to an older version decides whether a change is kept: it must be the right one."""

import pytest

from bench.report import Ratio, all_rows, summary
from bench.stage import Results, Settings

_CPU: Results = {
    "sse": {
        "nginx": [{"cpu_us": 10.0}, {"cpu_us": 20.0}],
        "before": [{"cpu_us": 20.0}, {"cpu_us": 40.0}, {"cpu_us": 30.0}],
        "relay": [{"cpu_us": 19.0}, {"cpu_us": 42.0}, {"cpu_us": 30.0}],
    }
}


def test_a_ratio_is_the_median_of_neighbouring_rounds() -> None:
    ratio = summary(all_rows(Settings()), _CPU)["sse.cpu_us"]["relay/before"]
    assert (ratio.median, ratio.low, ratio.high) == (1.0, 0.95, 1.05)
    assert str(ratio) == "1.000 ±5.0%"


def test_an_entry_keeps_the_ratio_to_nginx_beside_it() -> None:
    entry = summary(all_rows(Settings()), _CPU)["sse.cpu_us"]
    assert (entry["relay"], entry["nginx"], entry["before"]) == (30.0, 15.0, 30.0)
    assert entry["ratio"] == 2.0
    assert entry["met"] is False


def test_without_an_older_version_there_is_no_ratio_to_it() -> None:
    results: Results = {"sse": {"relay": [{"cpu_us": 1.0}]}}
    entry = summary(all_rows(Settings()), results)["sse.cpu_us"]
    assert "relay/before" not in entry
    assert entry["ratio"] is None


@pytest.mark.parametrize(
    ("relay", "other"), [([], [1.0]), ([1.0], []), ([1.0], [0.0]), ([1.0], [-3.0])]
)
def test_nothing_is_compared_without_a_pair(relay: list[float], other: list[float]) -> None:
    assert Ratio.of(relay, other) is None


def test_a_single_pair_has_no_spread() -> None:
    assert str(Ratio.of([3.0], [2.0])) == "1.500"


def test_differences_between_bodies_are_not_made_ratios() -> None:
    figures = {"body_1k_kib": 10.0, "body_5k_kib": 11.0, "body_5k_more_kib": 1.0}
    results: Results = {"chat-body-memory": {"before": [figures], "relay": [figures]}}
    found = summary(all_rows(Settings(bodies=("1k", "5k"))), results)
    assert list(found) == [f"chat-body-memory.{name}" for name in figures]
    assert found["chat-body-memory.body_5k_kib"]["relay/before"].median == 1.0
    assert found["chat-body-memory.body_5k_more_kib"]["relay/before"] is None

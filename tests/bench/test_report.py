"""The ratio to an older version decides whether a change is kept: it must be the right one."""

import pytest

from bench.board import BOARD
from bench.report import Ratio, judge, summary
from bench.rows import Goal, all_rows, at_least, over_direct, times_nginx
from bench.stage import Figures, Results, Settings
from bench.stored import Run

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


def test_a_refused_round_is_paired_with_no_other() -> None:
    relay: list[Figures] = [{"limited": 2.0}, {"cpu_us": 40.0}, {"cpu_us": 30.0}]
    nginx: list[Figures] = [{"cpu_us": 5.0}, {"cpu_us": 10.0}, {"limited": 2.0}]
    results: Results = {"sse": {"nginx": nginx, "relay": relay}}
    entry = summary(all_rows(Settings()), results)["sse.cpu_us"]
    assert entry["ratio"] == entry["judged"]["relay"].value == 4.0
    rounds = [
        [{"p50_us": it["cpu_us"]} if "cpu_us" in it else it for it in of] for of in (nginx, relay)
    ]
    latency = dict(zip(("direct", "relay"), rounds, strict=True))
    run = Run(at="", machine={}, versions={}, settings=Settings(), rounds={"latency": latency})
    assert BOARD[0].values(run, "relay") == [30.0]


def test_an_entry_keeps_the_ratio_to_nginx_beside_it() -> None:
    entry = summary(all_rows(Settings()), _CPU)["sse.cpu_us"]
    assert (entry["relay"], entry["nginx"], entry["before"]) == (30.0, 15.0, 30.0)
    assert entry["ratio"] == 2.0
    assert entry["judged"]["relay"].met is False
    assert entry["goal"] == "≤ 1.33 × nginx"


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


_VALUES = {"direct": [100.0, 300.0], "nginx": [200.0, 400.0], "relay": [250.0, 470.0]}


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (over_direct(160), 160.0, True),
        (over_direct(159), 160.0, False),
        (times_nginx(1.3), 1.2125, True),
        (at_least(360), 360.0, True),
        (at_least(361), 360.0, False),
    ],
    ids=str,
)
def test_a_goal_is_judged_by_pairs_of_rounds(goal: Goal, value: float, met: bool) -> None:
    judged = judge(goal, _VALUES["relay"], _VALUES, nginx_idle=False)
    assert judged is not None
    assert judged.value == pytest.approx(value)
    assert judged.met is met


@pytest.mark.parametrize("goal", [over_direct(1), times_nginx(1)], ids=str)
def test_nothing_is_judged_by_a_rival_that_was_not_measured(goal: Goal) -> None:
    assert judge(goal, [1.0], {"relay": [1.0]}, nginx_idle=False) is None


def test_a_ratio_to_an_idle_nginx_is_not_judged() -> None:
    assert judge(times_nginx(3), _VALUES["relay"], _VALUES, nginx_idle=True) is None


def test_each_build_of_relay_is_judged() -> None:
    results: Results = {
        "paced": {
            "nginx": [{"cpu_us": 10.0}],
            "compiled": [{"cpu_us": 30.0}],
            "relay": [{"cpu_us": 60.0}],
        }
    }
    entry = summary(all_rows(Settings()), results)["paced.cpu_us"]
    assert {name: one.met for name, one in entry["judged"].items()} == {
        "compiled": True,
        "relay": False,
    }
    assert entry["relay/compiled"].median == 2.0

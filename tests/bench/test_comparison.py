"""A comparison finds a figure that is worse, and does not take noise for one."""

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from bench import comparison
from bench.comparison import changes
from bench.stage import Results, Settings
from bench.stored import Run

_NGINX = [10.0, 10.2, 9.9]
_RELAY = [40.0, 41.0, 39.5]


def _run(relay: Sequence[float], nginx: Sequence[float] = (), name: str = "sse.cpu_us") -> Run:
    scenario, _, figure = name.partition(".")
    rounds: Results = {scenario: {"relay": [{figure: value} for value in relay]}}
    if nginx:
        rounds[scenario]["nginx"] = [{figure: value} for value in nginx]
    return Run(
        at="2026-11-29T14:37:21+00:00",
        machine={"cpu": "one", "cores": 2},
        versions={"nginx": "1.22.1"},
        settings=Settings(),
        rounds=rounds,
    )


def _times(factor: float, values: Sequence[float]) -> list[float]:
    return [factor * value for value in values]


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.10, "worse"), (1.0, "same"), (1.03, "same"), (0.97, "same"), (0.88, "better")],
)
def test_a_tenth_more_is_worse_and_less_than_the_spread_is_not(factor: float, verdict: str) -> None:
    (found,) = changes(_run(_RELAY, _NGINX), _run(_times(factor, _RELAY), _NGINX))
    assert found.verdict == verdict
    assert found.change == pytest.approx(factor - 1)


def test_a_tenth_more_within_the_spread_is_the_same() -> None:
    wide = [40.0, 48.0, 36.0]
    (found,) = changes(_run(wide, _NGINX), _run(_times(1.1, wide), _NGINX))
    assert found.spread > 0.1
    assert found.verdict == "same"


def test_a_slower_machine_changes_no_ratio() -> None:
    slower = _run(_times(2, _RELAY), _times(2, _NGINX))
    (found,) = changes(_run(_RELAY, _NGINX), slower)
    assert found.change == pytest.approx(0)


@pytest.mark.parametrize(("factor", "verdict"), [(0.9, "worse"), (1.1, "better")])
def test_fewer_requests_a_second_are_worse(factor: float, verdict: str) -> None:
    before = _run(_RELAY, _NGINX, "json-1m.requests_s")
    (found,) = changes(before, _run(_times(factor, _RELAY), _NGINX, "json-1m.requests_s"))
    assert found.verdict == verdict


def test_without_nginx_a_figure_is_shown_and_not_judged() -> None:
    for before, now in (
        (_run(_RELAY), _run(_times(2, _RELAY))),
        (_run(_RELAY, _NGINX), _run(_times(2, _RELAY))),
    ):
        (found,) = changes(before, now)
        assert found.verdict == "not judged"
        assert found.change == pytest.approx(1)


def test_a_single_round_is_not_judged() -> None:
    (found,) = changes(_run(_RELAY, _NGINX), _run([80.0], [10.0]))
    assert found.verdict == "not judged"


@pytest.mark.parametrize("name", ["sse.share", "sse.events_s", "paced.requests_s"])
def test_settings_and_what_explains_others_are_not_judged(name: str) -> None:
    before, now = (_run(_times(factor, _RELAY), _NGINX, name) for factor in (1, 2))
    assert list(changes(before, now)) == []


def _shown(before: Run, now: Run) -> tuple[bool, str]:
    console = Console(file=io.StringIO(), width=130)
    worse = comparison.show(console, before, now)
    assert isinstance(console.file, io.StringIO)
    return worse, console.file.getvalue()


def test_the_figures_that_are_worse_are_named() -> None:
    worse, text = _shown(_run(_RELAY, _NGINX), _run(_times(1.2, _RELAY), _NGINX))
    assert worse
    assert "+20.0%" in text
    assert "worse than before: sse.cpu_us (relay)" in text


def test_another_machine_other_settings_and_versions_are_noted() -> None:
    now = _run(_RELAY, _NGINX)
    now.machine = {"cpu": "two", "cores": 4}
    now.settings = Settings(connections=8, bodies=("1k",))
    now.versions = {"nginx": "1.31.3"}
    worse, text = _shown(_run(_RELAY, _NGINX), now)
    assert not worse
    assert "another machine (one, 2 cores" in text
    assert "connections was 32 and is 8" in text
    assert "bodies was 1k, 100k, 300k, 1m and is 1k" in text
    assert "nginx was 1.22.1 and is 1.31.3" in text


def test_runs_with_nothing_in_common_are_not_judged() -> None:
    now = _run(_RELAY, _NGINX)
    now.rounds = {"ready": {"relay": [{"ready_ms": 1.0}]}}
    worse, text = _shown(_run(_RELAY, _NGINX), now)
    assert not worse
    assert "share no figure" in text

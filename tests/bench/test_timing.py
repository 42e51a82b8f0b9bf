"""The length of a run is bounded and known, and its progress says how much is left."""

import io

import pytest
from rich.console import Console

from bench import timing
from bench.progress import Progress
from bench.scenarios import SCENARIOS
from bench.stage import Settings

_QUICK = Settings(rounds=1, seconds=1.0, streams=50)


def test_a_quick_run_is_expected_to_take_a_minute_at_most() -> None:
    assert set(timing.QUICK) <= set(SCENARIOS)
    assert timing.total_s(timing.QUICK, _QUICK, rivals=2) <= 60


def test_the_full_run_is_expected_to_take_20_minutes_at_most() -> None:
    settings = timing.fitted(SCENARIOS, Settings(), rivals=2)
    assert timing.total_s(SCENARIOS, settings, rivals=2) <= timing.MOST_S


def test_windows_are_shortened_only_where_a_run_would_be_long() -> None:
    assert timing.fitted(["json"], Settings(), rivals=2).seconds == 5
    assert timing.fitted(SCENARIOS, Settings(), rivals=12).seconds == 1
    shortened = timing.fitted(["json", "latency", "sse"], Settings(rounds=10), rivals=7)
    assert 1 < shortened.seconds < 5


def test_every_scenario_takes_time() -> None:
    assert all(timing.round_s(name, _QUICK) > 0 for name in SCENARIOS)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "5 seconds"), (58, "60 seconds"), (100, "2 minutes")]
)
def test_a_length_is_rounded(seconds: float, words: str) -> None:
    assert timing.spoken(seconds) == words


def test_progress_names_scenario_rival_round_and_time_left() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Progress(console, {"json": 600.0, "sse": 600.0}, rounds=2, rivals=1) as progress:
        progress.starting("json", "nginx")
        assert progress.left_s() == 1_200
        for _ in range(2):
            progress.finished("json", "nginx")
        progress.starting("sse", "relay")
        assert progress.left_s() <= 600
        progress.finished("sse", "relay")
        progress.starting("sse", "relay")
        progress.finished("sse", "relay")
        assert progress.left_s() == 0
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "json · nginx · round 1 of 2 · about 20 minutes left" in text
    assert "sse · relay · round 2 of 2" in text


def test_progress_is_silent_without_a_terminal() -> None:
    console = Console(file=io.StringIO(), width=100)
    with Progress(console, {"json": 1.0}, rounds=1, rivals=2) as progress:
        progress.starting("json", "nginx")
        progress.finished("json", "nginx")
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ""

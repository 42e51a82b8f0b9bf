"""Options that cannot be meant are refused before anything is measured."""

from pathlib import Path

import orjson
import pytest

from bench.__main__ import _scenarios
from bench.process import BenchError
from bench.rivals.relay import Build
from bench.scenarios import CURVES, SCENARIOS

from .runs import bench, refusal

_RECIPE = 'argv = ["{program}"]\ndialects = ["messages"]\n'


@pytest.mark.parametrize("option", ["--seconds", "--rate", "--pace"])
def test_a_number_that_is_none_is_refused(option: str) -> None:
    said = refusal("--only", "ready", option, "nan")
    assert option in said


def test_a_profile_takes_no_seconds_that_are_no_number() -> None:
    said = refusal("profile", "--seconds", "nan")
    assert "--seconds" in said


@pytest.mark.parametrize("build", ["../a=python", "a/b=python"])
def test_a_build_with_a_path_as_its_name_is_refused(build: str) -> None:
    said = refusal("--relay", build)
    assert "--relay" in said


@pytest.mark.parametrize("name", ["before", "relay", "haproxy"])
def test_two_rivals_of_one_name_are_refused(name: str, tmp_path: Path) -> None:
    rivals = ("--rival", "relay", "--rival", "haproxy=/bin/true", "--before", str(tmp_path))
    done = bench(*rivals, "--relay", f"{name}=python")
    assert done.returncode == 1
    assert f"two rivals have the name '{name}'" in done.stdout


def test_a_folder_above_a_checkout_is_no_checkout() -> None:
    # Python finds `relay` by other means: a tree would be compared with itself.
    installed = Build("a").found().package
    with pytest.raises(BenchError, match="is no checkout of relay"):
        Build("a", path=str(installed.parents[1])).found()


@pytest.mark.parametrize(
    "text",
    [
        'argv = []\ndialects = ["messages"]\n',
        'argv = ["{program}"]\ndialects = ["message"]\n',
        'argv = ["{program}"]\ndialects = []\n',
        _RECIPE + 'streams = ["sse"]\n',
        _RECIPE + 'files = { "a/b" = "" }\n',
        _RECIPE + 'files = { ".." = "" }\n',
    ],
)
def test_a_recipe_of_which_no_rival_can_be_made_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "template.toml").write_text(text)
    said = refusal("--only", "ready", "--rival", f"new=/bin/true:{tmp_path}/template.toml")
    assert "cannot be used" in said


def test_figures_do_not_go_where_the_page_goes(tmp_path: Path) -> None:
    said = refusal("--only", "ready", "--json", str(tmp_path / "figures.html"))
    assert ".json" in said


def test_a_quick_run_keeps_the_settings_that_are_given(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    only = ("--only", "ready", "--only", "ready", "--rival", "relay")
    done = bench(*only, "--rounds", "2", "--quick", "--streams", "7", "--json", str(figures))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 scenario, 1 rival, 2 rounds" in done.stdout
    settings = orjson.loads(figures.read_bytes())["settings"]
    assert (settings["rounds"], settings["streams"]) == (2, 7)
    assert (settings["seconds"], settings["idle_streams"]) == (1.0, 200)


def test_curves_run_beside_the_scenarios_that_are_named() -> None:
    assert _scenarios({"only": ("ready",), "curves": True, "quick": False}) == ("ready", *CURVES)
    assert _scenarios({"only": (), "curves": True, "quick": False}) == CURVES
    assert _scenarios({"only": (), "curves": False, "quick": False}) == SCENARIOS


def test_a_missing_interpreter_is_named_without_a_script() -> None:
    done = bench("--only", "ready", "--relay", "x=/none")
    assert done.returncode == 1
    assert "x: there is no interpreter /none" in done.stdout
    assert "-c" not in done.stdout


def test_a_run_that_measures_nothing_fails() -> None:
    done = bench("--only", "ready", "--rival", "direct")
    assert done.returncode == 1
    assert "nothing was measured" in done.stdout

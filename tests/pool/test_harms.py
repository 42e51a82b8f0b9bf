"""An error that one caller's request got harms others no further than tests/corpora states."""

import pytest

from tests.pool.corpus import CASES, Case, judged
from tests.pool.transcript import EPOCH, Options, Player

TIERS: Options = {"one": {}, "two": {"priority": 1}}
SERVED, PASSED_OVER = "one (turn)", "two (turn)"
# Whether `one` still serves another caller's request: for the same model, for another model.
EFFECTS = {
    "nobody": (SERVED, SERVED),
    "feature": (SERVED, SERVED),
    "model": (PASSED_OVER, SERVED),
    "account": (PASSED_OVER, PASSED_OVER),
    "credential": (PASSED_OVER, PASSED_OVER),
    "upstream": (PASSED_OVER, PASSED_OVER),
}


async def after(case: Case, times: int) -> Player:
    """A pool after one caller's requests got this error `times` times at its first upstream."""
    player = Player(TIERS)
    verdict = judged(case)
    if verdict.until:
        verdict = verdict._replace(until=verdict.until - case.now.timestamp() + EPOCH)
    counting = " counting" if case.counting else ""
    for number in range(times):
        name = f"a{number}"
        await player.play(f"request {name} caller=a{counting}")
        if player.upstream_of(name) == "one":
            player.fail(name, verdict)
    return player


async def served(player: Player, event: str) -> str:
    [played] = await player.play(event)
    return played.partition(" → ")[2]


@pytest.mark.matrix(share=4)
@pytest.mark.parametrize("times", [1, 5])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_an_error_harms_others_as_the_corpus_states(case: Case, times: int) -> None:
    same, another = EFFECTS[case.harms]
    player = await after(case, times)
    assert await served(player, "request b caller=b") == same
    player = await after(case, times)
    assert await served(player, "request c caller=b model=opus") == another


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.counting], ids=lambda case: case.name
)
async def test_an_error_of_a_count_harms_no_others_count(case: Case) -> None:
    player = await after(case, 5)
    assert await served(player, "request b caller=b counting") == SERVED

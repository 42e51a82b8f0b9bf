"""A relay of several processes hands over to another one under load: nothing is cut or lost."""

from pathlib import Path

import pytest

from tests.handover.test_load import hand_over
from tests.scoreboard import RecordProperty


async def test_hand_overs_of_workers_cost_nothing(
    several: tuple[Path, str], record_property: RecordProperty
) -> None:
    load = await hand_over(
        several, times=2, clients=3, streams=10, script="tokens=20;pace=4;seed=same"
    )
    record_property(
        "figure", f"2 hand-overs, {load.outcomes['200']} requests, slowest {load.slowest:.2f} s"
    )


@pytest.mark.parametrize("before", [pytest.param(1, marks=pytest.mark.thorough), 3])
async def test_the_number_of_workers_may_change(several: tuple[Path, str], before: int) -> None:
    folder, _ = several
    path = folder / "relay.toml"
    path.write_text(path.read_text().replace("workers = 3", f"workers = {before}"))

    after = path.read_text().replace(f"workers = {before}", f"workers = {4 - before}")
    (folder / "relay.toml.next").write_text(after.replace("drain = 30", "drain = 600"))
    load = await hand_over(several, times=1, clients=2, streams=4, script="tokens=10;pace=4")
    assert load.outcomes["200"] > 0

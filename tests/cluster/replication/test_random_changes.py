"""Random changes on three nodes, with outages and kills in between, end in equal tables."""

import asyncio
import random
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cluster.conftest import TEMPLATE
from tests.cluster.postgres import Postgres
from tests.cluster.replication.trial import PEOPLE, Trial

STEPS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["act"] * 6 + ["sync", "sync", "cut", "kill"]),
        st.integers(0, 9),
        st.sampled_from(PEOPLE),
    ),
    max_size=60,
)


@settings(
    max_examples=max(8, settings().max_examples // 8), deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(steps=STEPS)
def test_all_nodes_end_with_the_same_rows(
    postgres: Postgres, steps: list[tuple[str, str, int, str]]
) -> None:
    name = postgres.new_database(TEMPLATE)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_try(postgres.socket_url(name), Path(folder), steps))
    postgres.drop_database(name)


async def _try(url: str, folder: Path, steps: list[tuple[str, str, int, str]]) -> None:
    trial = Trial(url, folder)
    for name in "abc":
        await trial.open(name)
    try:
        for name, step, what, which in steps:
            one = trial.members[name]
            if step == "act":
                await trial.act(one, what, which)
            elif step == "kill":
                await trial.kill(name)
                await trial.open(name)
            else:
                await trial.sync(one, random.Random(what).randint(1, 4) if step == "cut" else 0)
        await trial.assert_complete()
    finally:
        for name in [*trial.members]:
            await trial.kill(name)

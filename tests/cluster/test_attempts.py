"""A server that refuses the relay is asked again by one connection at a time, and less and less."""

import asyncio
import time

from relay.cluster.link import EngineAwayError, Link
from tests.cluster.conftest import TEMPLATE
from tests.cluster.postgres import Postgres
from tests.fakes.until import until

LINKS = 8


async def test_a_refused_attempt_holds_all_connections_back(postgres: Postgres) -> None:
    url = postgres.url("absent")
    links = [Link(url, f"link {number}") for number in range(LINKS)]

    reasons = set[str]()

    async def knock(link: Link) -> None:
        while True:
            await link.wait_for_turn()
            try:
                await link.call(lambda it: it.execute("SELECT 1"))
            except EngineAwayError as error:
                reasons.add(str(error))
            else:
                return

    def refusals() -> int:
        return (postgres.folder / "log").read_text().count('FATAL:  database "absent" does not')

    started = time.monotonic()
    knocking = [asyncio.create_task(knock(link)) for link in links]
    await until(lambda: refusals() >= LINKS + 4, within=30)
    # All may have begun before the first was refused. Four more have four pauses between them.
    assert time.monotonic() - started > 0.5 * (0.05 + 0.1 + 0.2 + 0.4)
    await asyncio.to_thread(postgres.new_database, TEMPLATE, "absent")
    await asyncio.gather(*knocking)
    assert len(reasons) == 1
    assert 'database "absent" does not exist' in reasons.pop()
    assert all(link.away_for() == 0 for link in links)
    for link in links:
        await link.close()
    postgres.drop_database("absent")

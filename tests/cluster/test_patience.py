"""How long a node waits for PostgreSQL if it does not get to run itself."""

import pytest

from relay.cluster.link import Overtime
from relay.cluster.waiting import TICK, Stalls, Waiter


@pytest.mark.parametrize("late", [0.11, 0.3, 0.9, 5.0])
def test_a_starved_process_breaks_a_dead_connection(late: float) -> None:
    overtime = Overtime()
    granted = [overtime.after(late) for _ in range(20)]
    assert granted[0] == min(late, 1.0)
    assert sum(granted) == pytest.approx(1.0)
    assert granted[-1] == 0


def test_a_deadline_that_is_in_time_has_no_overtime() -> None:
    assert Overtime().after(0.09) == 0


async def test_a_pause_of_the_process_is_no_wait() -> None:
    stalls = Stalls()
    stalls.tick(1_000)
    waiter = Waiter((1,), 1_000, 0, 0, stalls.lost(1_000))
    assert waiter.waited(6_000, stalls) == TICK
    stalls.tick(6_000)
    stalls.tick(6_100)
    assert waiter.waited(6_100, stalls) == 2 * TICK


async def test_a_starved_process_ends_a_wait_all_the_same() -> None:
    stalls = Stalls()
    stalls.tick(1_000)
    waiter = Waiter((1,), 1_000, 0, 0, stalls.lost(1_000))
    for now in range(1_500, 11_001, 500):
        waited = waiter.waited(now, stalls)
        stalls.tick(now)
    assert waited == 10_000 - 1_000 - (500 - TICK)

"""The sweep of all deadlines: a deadline that is moved in time does not fire."""

import asyncio

from relay.net.deadlines import NEVER, Deadlines


class Postponing:
    """A watched item; when it expires, it moves the deadlines of all others."""

    def __init__(self, others: list["Postponing"]) -> None:
        self.deadline = 0.0
        self.others = others
        self.expired = 0

    def expire(self) -> None:
        self.expired += 1
        for item in self.others:
            item.deadline = NEVER


async def test_a_deadline_moved_within_its_sweep_does_not_fire() -> None:
    deadlines = Deadlines(asyncio.get_running_loop())
    items: list[Postponing] = []
    for _ in range(5):
        items.append(Postponing(items))
        deadlines.watch(items[-1])
    deadlines.start()
    deadlines.stop()
    assert sum(item.expired for item in items) == 1

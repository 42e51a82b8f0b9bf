"""One clock for all deadlines: what is put off in time does not fire."""

import asyncio

from relay.net.deadlines import NEVER, Deadlines


class Thing:
    """Something with a deadline that puts off all others when it is past."""

    def __init__(self, others: list["Thing"]) -> None:
        self.deadline = 0.0
        self.others = others
        self.expired = 0

    def expire(self) -> None:
        self.expired += 1
        for thing in self.others:
            thing.deadline = NEVER


async def test_what_another_put_off_in_the_same_sweep_does_not_fire() -> None:
    timers = Deadlines(asyncio.get_running_loop())
    things: list[Thing] = []
    for _ in range(5):
        things.append(Thing(things))
        timers.watch(things[-1])
    timers.start()
    timers.stop()
    assert sum(thing.expired for thing in things) == 1

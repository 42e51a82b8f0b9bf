"""What one process sends of its bindings, by a clock of the test's own."""

import asyncio

import pytest

from relay.pool.affinity import Bindings
from relay.pool.shared_bindings import Row, SharedBindings

KEY = b"conversation"


class Process:
    """Bindings, and the rows that they send."""

    def __init__(self, *, sticky: bool = True) -> None:
        self.bindings = Bindings(300.0 if sticky else 1.0)
        self.rows: list[Row] = []
        self.shared = SharedBindings(self.bindings, self.rows.extend, lambda: sticky)

    def hold(self, now: float, upstream: str = "a", key: bytes = KEY) -> None:
        self.bindings.hold(("k", key), upstream, "anthropic", now)


async def turns(one: Process, other: Process, *, seconds: int, every: int) -> int:
    """A conversation of so many seconds in one process; returns how many rows were sent.

    The other process knows its binding all the time.
    """
    sent = 0
    for second in range(seconds):
        now = 1000.0 + second
        if second % every == 0:
            one.hold(now)
        one.shared.send_due(now)
        await asyncio.sleep(0)
        sent += len(one.rows)
        other.shared.take(one.rows)
        one.rows.clear()
        mine = one.bindings.find("k", KEY, now)
        theirs = other.bindings.find("k", KEY, now)
        assert mine is not None
        assert theirs is not None
        assert (mine.until > now) == (theirs.until > now)
    return sent


@pytest.mark.parametrize(("every", "most"), [(1, 13), (6, 13), (60, 15), (290, 13)])
async def test_a_long_conversation_sends_once_a_lifetime(every: int, most: int) -> None:
    assert await turns(Process(), Process(), seconds=3600, every=every) <= most


async def test_an_idle_conversation_is_sent_again_with_its_next_turn() -> None:
    assert await turns(Process(), Process(), seconds=1200, every=400) == 3


async def test_without_stickiness_only_the_family_is_kept() -> None:
    one, other = Process(sticky=False), Process(sticky=False)
    sent = 0
    for second in range(7200):
        now = 1000.0 + second
        one.hold(now)
        one.shared.send_due(now)
        await asyncio.sleep(0)
        sent += len(one.rows)
        other.shared.take(one.rows)
        one.rows.clear()
        assert other.bindings.find("k", KEY, now) is not None
    assert sent <= 5


async def test_a_shorter_binding_is_sent_at_once() -> None:
    one = Process()
    one.bindings.hold(("k", KEY), "a", "anthropic", 1000.0, long=True)
    one.hold(1001.0)
    await asyncio.sleep(0)
    assert [row[5] for row in one.rows] == [4600.0, 1301.0]


async def test_what_is_forgotten_is_not_sent() -> None:
    one = Process()
    one.hold(1000.0)
    one.hold(1001.0)
    one.bindings.sweep(9000.0)
    await asyncio.sleep(0)
    one.rows.clear()
    one.shared.send_due(9000.0)
    await asyncio.sleep(0)
    assert one.rows == []
    assert one.shared.row(("k", KEY), 9000.0) is None

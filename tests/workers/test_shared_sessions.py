"""A conversation finds its upstream in every process, and a long one costs few messages."""

import time

from tests.workers.pools import Cluster, Options, Process, cluster, within

ONE: Options = {"a": {}, "b": {}}
KEY = b"conversation"
ANSWER = b'{"id": "msg_1", "type": "message"}'


def found(made: Cluster, now: float, key: bytes = KEY) -> list[tuple[str, bool] | None]:
    """The upstream of a conversation in each process, and whether the binding lasts."""
    bindings = [one.bindings.find("k", key, now) for one in made.processes]
    return [None if one is None else (one.upstream, one.until > now) for one in bindings]


def hold(process: Process, upstream: str, now: float, key: bytes = KEY) -> None:
    process.bindings.hold(("k", key), upstream, "anthropic", now)


async def test_a_binding_is_found_in_all_processes() -> None:
    async with cluster(ONE) as made:
        hold(made.workers[0], "a", 1000.0)
        await made.settled()
        assert found(made, 1001.0) == [("a", True)] * 3
        hold(made.workers[1], "b", 1002.0)
        await made.settled()
        assert found(made, 1003.0) == [("b", True)] * 3
        assert {one.bindings.counts(1003.0)["b"] for one in made.processes} == {1}


async def test_many_bindings_of_one_turn_go_in_one_message() -> None:
    async with cluster(ONE) as made:
        made.sent()
        for number in range(400):
            hold(made.owner, "a", 1000.0, b"%d" % number)
        await made.settled()
        assert made.sent() == {"bindings": 2}  # one for each worker
        assert len(made.workers[1].bindings) == 400


async def test_the_latest_of_two_bindings_holds_everywhere() -> None:
    async with cluster(ONE) as made:
        hold(made.workers[0], "a", 1000.0)
        hold(made.workers[1], "b", 1000.1)
        await made.settled()
        assert found(made, 1001.0) == [("b", True)] * 3


async def test_a_late_move_does_not_undo_a_later_extension() -> None:
    async with cluster(ONE) as made:
        hold(made.owner, "a", 1000.0)
        await made.settled()
        hold(made.workers[0], "b", 1010.0)
        hold(made.workers[1], "a", 1011.0)  # an extension, which would not be sent
        await made.settled()
        assert found(made, 1012.0) == [("a", True)] * 3


async def test_a_new_worker_gets_the_live_bindings_in_pieces() -> None:
    async with cluster(ONE, workers=0) as made:
        now = time.monotonic()
        hold(made.owner, "a", now - 5000, b"old")
        for number in range(1200):
            hold(made.owner, "a", now, b"%d" % number)
        made.owner.threads.put("k", "msg_0", "a")
        worker = await made.join()
        await within(1, lambda: len(worker.bindings) == 1200)
        assert worker.threads.messages() == [("k", "msg_0", "a")]
        assert made.sent()["bindings"] == 3


async def test_a_thread_is_found_in_all_processes() -> None:
    async with cluster(ONE) as made:
        worker = made.workers[0]
        worker.threads.remember("k", worker.route.targets[1], ANSWER)
        await made.settled()
        assert [one.threads.messages() for one in made.processes] == [[("k", "msg_1", "b")]] * 3

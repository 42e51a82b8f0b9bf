"""Evidence found in any process gives the verdicts of one process."""

from collections import deque
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relay.pool.health import Health
from relay.pool.health_state import apply, captured, received
from relay.pool.outages import Level, Outage
from relay.pool.sharing import OwnersHealth, WorkersHealth
from relay.pool.vendor_errors import Scope, Verdict
from tests.pool.test_health import BROKEN, NOW, M, N

PLACE = "a http://upstream.invalid"
CALLERS = ("ann", "ben", "")
Step = Callable[[Health, float], object]


class Worker:
    """A worker whose messages are on their way until they are delivered."""

    def __init__(self, owner: OwnersHealth["Worker"]) -> None:
        self.health = Health()
        self.to_owner: deque[Callable[[], None]] = deque()
        self.to_worker: deque[Callable[[], None]] = deque()
        self.sent = 0

        def send(place: str, change: str, values: list[Any]) -> None:
            self.sent += 1
            self.to_owner.append(lambda: owner.take(self, place, change, values))

        def answer(place: str) -> None:
            state = owner.state(place)
            if state is not None:
                self.to_worker.append(lambda: self.shared.take_state(place, state))

        self.shared = WorkersHealth(send, lambda place: self.to_owner.append(lambda: answer(place)))
        self.shared.attach({PLACE: self.health})

    def deliver(self, *, out: bool) -> None:
        box = self.to_owner if out else self.to_worker
        if box:
            box.popleft()()


class Processes:
    """An owner and workers. `made` are all changes, in the owner's order."""

    def __init__(self, workers: int) -> None:
        self.made: list[tuple[str, list[Any]]] = []
        self.workers: list[Worker] = []

        def publish(place: str, change: str, values: list[Any], but: Worker | None) -> None:
            self.made.append((change, values))
            for one in self.workers:
                if one is not but:
                    take = one.shared.take
                    one.to_worker.append(lambda take=take: take(place, change, values))  # type: ignore[misc]

        def publish_state(place: str, state: list[Any]) -> None:
            for one in self.workers:
                take = one.shared.take_state
                one.to_worker.append(lambda take=take: take(place, state))  # type: ignore[misc]

        def confirm(worker: Worker, place: str) -> None:
            worker.to_worker.append(lambda: worker.shared.take_confirmation(place))

        self.owner: OwnersHealth[Worker] = OwnersHealth(publish, publish_state, confirm)
        self.health = Health()
        self.owner.attach({PLACE: self.health})
        for _ in range(workers):
            self.workers.append(Worker(self.owner))
        self.settle()

    @property
    def healths(self) -> list[Health]:
        return [self.health, *(one.health for one in self.workers)]

    def settle(self) -> None:
        while any(one.to_owner or one.to_worker for one in self.workers):
            for one in self.workers:
                one.deliver(out=True)
                one.deliver(out=False)


def verdicts() -> st.SearchStrategy[Verdict]:
    return st.builds(
        Verdict,
        st.sampled_from(list(Scope)),
        st.sampled_from([NOW + 5, NOW + 60]),
        st.booleans(),
        st.just("503"),
        sure=st.booleans(),
        silent=st.booleans(),
    )


def steps() -> st.SearchStrategy[Step]:
    """What requests, the relay's own probes and the operator do to a health."""
    callers, models = st.sampled_from(CALLERS), st.sampled_from([M, N])
    return st.one_of(
        st.builds(
            lambda verdict, model, caller: lambda health, now: health.failed(
                verdict, model, now, caller
            ),
            verdicts() | st.just(BROKEN), models, callers,
        ),
        st.builds(
            lambda model, caller: lambda health, now: health.succeeded(model, caller),
            models, callers,
        ),
        st.builds(
            lambda caller: lambda health, now: health.retract(caller, health.failed_at), callers
        ),
        st.builds(
            lambda caller: lambda health, now: health.cannot_count(now + 30, caller), callers
        ),
        st.sampled_from(
            [
                lambda health, now: health.completed(),
                lambda health, now: health.blame_body(),
                lambda health, now: health.abandoned(),
                lambda health, now: health.request_started(),
            ]
        ),
    )  # fmt: skip


OWNERS: list[Step] = [
    lambda health, now: health.pause(),
    lambda health, now: health.resume(),
    lambda health, now: health.clear(),
    lambda health, now: health.probe_started(),
    lambda health, now: health.probe_answered(),
    lambda health, now: health.probe_failed("a probe: 503", now),
    lambda health, now: health.probe_later(now),
    lambda health, now: health.end_quota_outage(now),
    lambda health, now: health.adopt("", Scope.MODEL, Outage("429", now, now + 9, True), M, True),
    lambda health, now: health.adopt(
        "ann", Scope.ACCOUNT, Outage("401", now, now + 9, False), M, False
    ),
    lambda health, now: health.adopt(
        "", Scope.FAILURE, Outage("503", now, now + 9, False, failing=True), N, True
    ),
]


def levels(health: Health, now: float) -> list[Level]:
    return [
        health.level(model, now, counting, caller)
        for model in (M, N)
        for counting in (False, True)
        for caller in CALLERS
    ]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), steps() | st.sampled_from(OWNERS), st.sampled_from([0.0, 0.5, 20.0])
        ),
        max_size=40,
    )
)
def test_evidence_anywhere_gives_the_verdicts_of_one_process(
    events: list[tuple[int, Step, float]],
) -> None:
    single, processes, now = Health(), Processes(2), NOW
    for where, step, passes in events:
        now += passes
        where = 0 if step in OWNERS else where
        for health in (single, *processes.healths):
            levels(health, now)  # as a request does that comes
        step(processes.healths[where], now)
        step(single, now)
        processes.settle()
        expected = levels(single, now)
        assert [levels(one, now) for one in processes.healths] == [expected] * 3
        assert {one.failures for one in processes.healths} == {single.failures}


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.none() | steps() | st.sampled_from(OWNERS), st.booleans()),
        max_size=60,
    )
)
def test_processes_come_to_the_same_state_in_any_order(
    events: list[tuple[int, Step | None, bool]],
) -> None:
    processes, now = Processes(2), NOW
    for where, step, out in events:
        now += 0.1
        if step is None:
            processes.workers[where % 2].deliver(out=out)
        else:
            step(processes.healths[0 if step in OWNERS else where], now)
    processes.settle()
    one = Health()
    for change, values in processes.made:
        apply(one, change, received(change, values))
    assert [captured(health) for health in processes.healths] == [captured(one)] * 3


def test_a_healthy_upstream_sends_nothing() -> None:
    processes = Processes(1)
    worker = processes.workers[0]
    health = worker.health
    for _ in range(10):
        health.succeeded(M, "ann")
        health.abandoned()
        health.request_started()
    assert worker.sent == 0


def test_an_outage_that_lasts_sends_one_success() -> None:
    processes = Processes(1)
    worker = processes.workers[0]
    unsure = Verdict(Scope.ACCOUNT, NOW + 60, True, "429", sure=False)
    worker.health.failed(unsure, M, NOW, "ann")
    processes.settle()
    for _ in range(10):
        worker.health.succeeded(M, "ben")
    assert worker.sent == 2


def test_the_clear_of_a_worker_is_the_owners_to_make() -> None:
    processes = Processes(1)
    processes.health.pause()
    processes.settle()
    health = processes.workers[0].health
    health.clear()
    health.resume()
    processes.settle()
    assert all(one.paused for one in processes.healths)


def test_a_worker_that_dies_leaves_no_probing_request() -> None:
    processes = Processes(2)
    first, second = processes.workers
    failed = Verdict(Scope.ACCOUNT, NOW + 5, False, "503")
    processes.health.failed(failed, M, NOW)
    processes.settle()
    first.health.request_started()
    processes.settle()
    assert second.health.level(M, NOW + 6) is Level.DOUBTFUL
    processes.workers.remove(first)
    processes.owner.forget(first)
    processes.settle()
    assert second.health.level(M, NOW + 6) is Level.FREE


def test_an_upstream_at_another_place_has_its_own_health() -> None:
    processes = Processes(1)
    worker = processes.workers[0]
    before, moved, elsewhere = worker.health, Health(), "a http://elsewhere.invalid"
    processes.owner.attach({elsewhere: moved})
    moved.pause()
    before.failed(BROKEN, M, NOW, "ann")
    processes.settle()
    assert (before.paused, before.failures, moved.failures) == (False, 1, 0)
    worker.health = Health()
    worker.shared.attach({elsewhere: worker.health})
    processes.settle()
    assert worker.health.paused
    before.failed(BROKEN, M, NOW, "ann")
    processes.settle()
    assert (before.failures, moved.failures) == (2, 0)

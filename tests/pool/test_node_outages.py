"""What a machine reports of its upstreams' outages, and what it adopts."""

from typing import Any

import pytest

from relay.cluster.states import CLEAR, Report, State
from relay.pool.health import Health
from relay.pool.health_state import apply, captured, received, restore, sent
from relay.pool.node_outages import NodeOutages, identity_of
from relay.pool.outages import Level
from relay.pool.sharing import OwnersHealth, place_of
from relay.pool.vendor_errors import Scope, Verdict
from tests.cluster.pools import NodePool
from tests.fakes.pool import MODEL


class Reporting(NodePool):
    """A pool whose reports stay here."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = NodeOutages(self.pool, lambda: None)

    @property
    def reports(self) -> list[Report]:
        return self.shared.take_reports()

    def adopt(self, name: str, seq: int = 1, **values: Any) -> None:
        """Another machine's state."""
        state = State(
            seq=seq, upstream=identity_of(self[name]), origin="x", scope="account", about="",
            caller="", left=60_000, stated=True, quota=False, failing=False, model=MODEL,
            reason="429", age=0,
        )  # fmt: skip
        self.shared.take([state._replace(**values)], [])


async def test_a_report_has_the_scope_of_its_verdict() -> None:
    pool = Reporting()
    pool.fail("a", scope=Scope.MODEL)
    pool.fail("b", sure=False, caller="ann")
    pool.fail("c", scope=Scope.CALLER)
    pool.fail("c", scope=Scope.FEATURE)
    model, account = pool.reports
    assert (model.scope, model.about, model.caller) == ("model", MODEL, "")
    assert (account.scope, account.about, account.caller) == ("account", "", "ann")
    assert 59_000 < model.left <= 60_000


async def test_the_same_again_is_no_news() -> None:
    pool = Reporting()
    pool.fail("a", seconds=60)
    assert len(pool.reports) == 1
    pool.fail("a", seconds=60)
    pool.fail("a", seconds=50)
    assert pool.reports == []
    pool.fail("a", seconds=90)
    assert len(pool.reports) == 1


async def test_what_others_know_is_not_reported() -> None:
    pool = Reporting()
    pool.adopt("a")
    pool.fail("a", seconds=60)
    assert pool.reports == []


async def test_reports_that_wait_are_bounded() -> None:
    pool = Reporting()
    for number in range(1500):
        verdict = Verdict(Scope.MODEL, pool.pool.now() + 60, True, "429")
        pool.health("a").failed(verdict, f"model-{number}", pool.pool.now())
    found: list[Report] = []
    while more := pool.reports:
        found += more
    assert len(found) == 1000
    assert found[-1].about == "model-1499"


async def test_reports_that_were_not_sent_come_first_later() -> None:
    pool = Reporting()
    pool.fail("a")
    reports = pool.reports
    pool.fail("b")
    pool.shared.put_back(reports)
    assert [one.upstream[0] for one in pool.reports] == ["a", "b"]


async def test_a_report_that_was_put_back_grows_older() -> None:
    pool = Reporting()
    pool.fail("a")
    [report] = pool.reports
    pool.shared.put_back([report._replace(age=90_000)])
    [again] = pool.reports
    assert 0 <= report.age < 60_000
    assert 90_000 - 1 <= again.age < 150_000


async def test_a_clear_that_waits_voids_older_states() -> None:
    pool = Reporting()
    pool.fail("a")
    pool["a"].clear()
    pool.adopt("a")
    assert pool.level("a") is Level.FREE
    [report] = pool.reports
    assert (report.kind, report.scope) == ("clear", CLEAR)
    pool.adopt("a", seq=2)
    assert pool.level("a") is Level.OUT


async def test_a_new_credential_starts_afresh() -> None:
    pool = Reporting()
    before = identity_of(pool["a"])
    pool.fail("a")
    assert len(pool.reports) == 1
    other = NodePool({"a": {"api_key": "another"}})["a"]
    pool["a"].configure(other.setup)
    pool.pool.replace(list(pool.pool), pool.pool.settings)
    assert identity_of(pool["a"]) != before
    assert identity_of(pool["a"]) in pool.shared.unread()
    assert pool.reports == []  # no clear for the others
    pool.adopt("a")
    assert pool.level("a") is Level.OUT


@pytest.mark.parametrize(
    ("age", "level"), [(0, Level.OUT), (9_000, Level.OUT), (3_600_000, Level.FREE)]
)
async def test_old_evidence_confirms_nothing(age: int, level: Level) -> None:
    pool = Reporting()
    pool.adopt("a", caller="ann", age=age)
    assert pool.level("a", caller="ann") is Level.OUT
    pool.fail("a", sure=False, caller="ben")
    assert (pool.level("a", caller="ben"), pool.level("a", caller="cat")) == (Level.OUT, level)


async def test_old_evidence_confirms_nothing_in_a_worker() -> None:
    pool, replica = Reporting(), Health()
    changes: list[tuple[str, Any]] = []
    owner: OwnersHealth[str] = OwnersHealth(
        lambda place, change, values, but: changes.append((change, values)),
        lambda place, state: None,
        lambda worker, place: None,
    )
    owner.attach({place_of(pool["a"]): pool.health("a")})
    pool.adopt("a", caller="ann", age=3_600_000)
    for change, values in changes:
        apply(replica, change, received(change, values))
    assert not replica.by_caller["ann"].fresh


async def test_a_state_of_another_release_is_passed_over() -> None:
    pool = Reporting()
    pool.adopt("a", scope="galaxy")
    pool.adopt("b")
    assert (pool.level("a"), pool.level("b")) == (Level.FREE, Level.OUT)


@pytest.mark.parametrize("where", ["owner", "worker"])
async def test_verdicts_of_workers_are_reported_once(where: str) -> None:
    pool = Reporting()
    published: list[str] = []
    owner: OwnersHealth[str] = OwnersHealth(
        lambda place, change, values, but: published.append(change),
        lambda place, state: None,
        lambda worker, place: None,
    )
    place = place_of(pool["a"])
    owner.attach({place: pool.health("a")})
    if where == "owner":
        pool.fail("a")
    else:
        verdict = Verdict(Scope.ACCOUNT, pool.pool.now() + 60, True, "429")
        values = sent("failed", (verdict, MODEL, pool.pool.now(), "ann"))
        owner.take("worker", place, "failed", values)
    assert len(pool.reports) == 1
    assert published == ["failed"]
    pool.adopt("a", left=600_000)
    assert published == ["failed", "adopt"]
    assert pool.left("a") > 500
    replica = Health()
    restore(replica, captured(pool.health("a")))
    assert replica.level(MODEL, pool.pool.now()) is Level.OUT

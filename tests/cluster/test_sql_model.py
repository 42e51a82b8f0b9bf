"""The functions in SQL answer every claim as `relay.quota.share.shared_window` does.

Random claims, plausible and not, of three leases on three windows, at moments that also step back:
after each call the grants and the whole state of both sides are equal.
"""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.composite import CompositeInfo, register_composite

from relay.quota.share.claims import Claim
from relay.quota.share.shared_window import LEASE_TIME, SharedWindow, acquire
from tests.cluster.postgres import Postgres

START = 1_775_649_660_000
PERS = {"a": 60_000, "b": 18_000_000, "c": 2**52}
LEASES = ("n1/x", "n1/y", "n2/x")

Step = dict[str, Any]

amounts = st.integers(0, 12)
claims = st.fixed_dictionaries(
    {
        "window": st.sampled_from(sorted(PERS)),
        "lease": st.sampled_from(LEASES),
        "number": st.sampled_from([1, 1, 1, 1, 0, -1]),  # after the last one
        "epoch": st.sampled_from([0, 0, 0, 0, 1, -1]),  # after the present one
        "used": amounts,
        "ceiling": amounts,
        "want": st.integers(0, 6),
        "need": st.sampled_from([0, 0, 1, 1, 1, 2, 5]),
        "ends_in": st.sampled_from([0, 1, 30_000, 10**9]),
        "size": st.sampled_from([12, 12, 12, 20, 5]),
    }
)
requests = st.lists(claims, min_size=1, max_size=3, unique_by=lambda claim: str(claim["window"]))
steps = st.fixed_dictionaries(
    {
        "requests": st.lists(requests, min_size=1, max_size=3),
        "after": st.sampled_from(
            [0, 0, 1, 1_000, 5_000, LEASE_TIME, LEASE_TIME + 2_000, 40_000, 60_000, 18_000_000,
             -1, -1_000, -70_000]
        ),
        "nodes": st.integers(1, 3),
    }
)  # fmt: skip


class Both:
    """The two owners, and the numbers of the claims so far."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]], claim: CompositeInfo):
        self.connection = connection
        self.claim = claim
        self.now = START
        self.windows = {name: SharedWindow(12, per) for name, per in PERS.items()}
        self.numbers = dict.fromkeys([(name, it) for name in PERS for it in LEASES], 0)
        for name, per in PERS.items():
            connection.execute(
                "INSERT INTO relay.quota_window (name, size, per, epoch) VALUES (%s, 12, %s, 1)",
                [name, per],
            )

    def claim_of(self, drawn: Step) -> tuple[str, int, Claim]:
        name, lease = drawn["window"], drawn["lease"]
        number = self.numbers[name, lease] + drawn["number"]
        self.numbers[name, lease] = max(number, self.numbers[name, lease])
        return name, drawn["size"], Claim(
            lease, number, max(0, self.windows[name].epoch + drawn["epoch"]), drawn["used"],
            drawn["ceiling"], drawn["want"], drawn["need"], drawn["ends_in"],
        )  # fmt: skip

    def step(self, step: Step) -> None:
        self.now += step["after"]
        drawn = [[self.claim_of(one) for one in request] for request in step["requests"]]
        expected = []
        for request in drawn:
            for name, size, _ in request:
                self.windows[name].resize(size)
            pairs = [(self.windows[name], claim) for name, _, claim in request]
            expected += [tuple(grant) for grant in acquire(pairs, self.now, step["nodes"])]
        assert self.claim.python_type is not None
        sent = [
            self.claim.python_type(
                name, size, PERS[name], it.lease, it.number, it.epoch, it.used, it.ceiling,
                it.want, it.need, it.ends_in, 0, 0,
            )
            for request in drawn for name, size, it in request
        ]  # fmt: skip
        numbers = [place for place, request in enumerate(drawn) for _ in request]
        answered = self.connection.execute(
            "SELECT * FROM relay.answer_claims(%s::int[], %s, %s, false, %s)",
            [numbers, sent, step["nodes"], self.now],
        )
        assert answered.fetchall() == expected
        assert self.state() == {
            name: (
                window.size,
                window.epoch,
                window.end,
                {
                    lease: (it.number, it.used, it.ceiling, it.expires, it.is_lost)
                    for lease, it in window.leases.items()
                },
            )
            for name, window in self.windows.items()
        }

    def state(self) -> dict[str, Any]:
        windows = self.connection.execute("SELECT name, size, epoch, ends FROM relay.quota_window")
        state: dict[str, Any] = {name: (*values, {}) for name, *values in windows}
        leases = self.connection.execute(
            "SELECT window_name, name, number, used, ceiling, expires, is_lost FROM relay.lease"
        )
        for window, lease, *values in leases:
            state[window][-1][lease] = tuple(values)
        return state


@pytest.fixture
def shared(postgres: Postgres, database: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with psycopg.connect(postgres.socket_url(database)) as connection:
        yield connection


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(drawn=st.lists(steps, min_size=5, max_size=25))
def test_each_claim_is_answered_as_the_model_does(
    shared: psycopg.Connection[tuple[Any, ...]], drawn: list[Step]
) -> None:
    claim = CompositeInfo.fetch(shared, "relay.claim")
    assert claim is not None
    register_composite(claim, shared)
    both = Both(shared, claim)
    try:
        for step in drawn:
            both.step(step)
    finally:
        shared.rollback()

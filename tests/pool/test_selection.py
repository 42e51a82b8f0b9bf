"""Which upstream a request goes to, as a table of upstreams and their states."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import config
from relay.errors import RelayError
from relay.net.deadlines import Deadlines
from relay.pool.leases import Lease, Upstreams
from relay.pool.routes import Route
from relay.pool.selection import RoutingRequest, choose, passed_over
from relay.pool.upstream import Tier, Upstream
from relay.pool.vendor_errors import Scope, Verdict
from relay.quota.ledger import Ledger
from tests.fakes.pool import made

Options = dict[str, dict[str, Any]]
NOW = 1_000_000.0
SONNET = "claude-sonnet-4-7"

EQUAL: Options = {"a": {}, "b": {}}
CAPPED: Options = {"a": {"max_concurrency": 2}, "b": {}}
TIERS: Options = {"a": {}, "b": {}, "c": {"priority": 1}}


def stated(seconds: float = 20, scope: Scope = Scope.ACCOUNT) -> Verdict:
    return Verdict(scope, NOW + seconds, True, "429: limit reached")


def guess(seconds: float = 20, scope: Scope = Scope.ACCOUNT) -> Verdict:
    return Verdict(scope, NOW + seconds, False, "429: no time stated")


def out(verdict: Verdict, model: str = SONNET) -> Callable[[Upstream], None]:
    return lambda upstream: upstream.health.failed(verdict, model, NOW)


def busy(number: int) -> Callable[[Upstream], None]:
    def change(upstream: Upstream) -> None:
        upstream.in_flight = number

    return change


def served(number: float) -> Callable[[Upstream], None]:
    def change(upstream: Upstream) -> None:
        upstream.virtual_time = number

    return change


def paused(upstream: Upstream) -> None:
    upstream.health.pause()


def no_count(upstream: Upstream) -> None:
    upstream.health.cannot_count(NOW + 60)


def probed(upstream: Upstream) -> None:
    """Its guessed outage has expired, and a probe is in flight."""
    upstream.health.failed(guess(0), SONNET, NOW)
    upstream.health.request_started()


State = dict[str, Callable[[Upstream], None]]
CHOICES: list[tuple[str, Options, State, dict[str, Any], str | None]] = [
    # case, upstreams, their states, the request, the chosen upstream
    ("the first of equals", EQUAL, {}, {}, "a"),
    ("the upstream that is due", EQUAL, {"a": served(1)}, {}, "b"),
    ("in flight", EQUAL, {"a": busy(1)}, {}, "b"),
    ("weight, in flight", {"a": {"weight": 4}, "b": {}}, {"a": busy(3), "b": busy(1)}, {}, "a"),
    ("weight, served", {"a": {"weight": 3}, "b": {}}, {"a": served(0.6), "b": served(1)}, {}, "a"),
    ("a slow upstream is due later", EQUAL, {"a": busy(8), "b": served(1)}, {}, "b"),
    ("priority before weight", {"b": {"weight": 9, "priority": 1}, "a": {}}, {}, {}, "a"),
    ("priority, though busy", TIERS, {"a": busy(90), "b": busy(90)}, {}, "a"),
    ("below its cap", CAPPED, {"a": busy(1), "b": busy(9)}, {}, "a"),
    ("at its cap", CAPPED, {"a": busy(2), "b": busy(9)}, {}, "b"),
    ("the next tier once all are full", {"a": {"max_concurrency": 1}, "c": {"priority": 1}},
     {"a": busy(1)}, {}, "c"),
    ("all at their cap", {"a": {"max_concurrency": 1}}, {"a": busy(1)}, {}, None),
    ("stated outage", EQUAL, {"a": out(stated())}, {}, "b"),
    ("stated outage of all", EQUAL, {"a": out(stated()), "b": out(stated())}, {}, None),
    ("stated outage, over", EQUAL, {"a": out(stated(0)), "b": served(1)}, {}, "a"),
    ("the next tier once all are out", TIERS, {"a": out(stated()), "b": paused}, {}, "c"),
    ("a guess makes others preferred", EQUAL, {"a": out(guess())}, {}, "b"),
    ("of another tier too", TIERS, {"a": out(guess()), "b": out(guess())}, {}, "c"),
    ("a guess alone refuses no request", EQUAL, {"a": out(guess()), "b": out(stated())}, {}, "a"),
    ("a guess that is over", EQUAL, {"a": out(guess(0)), "b": served(1)}, {}, "a"),
    ("while one request probes", EQUAL, {"a": probed, "b": busy(9)}, {}, "b"),
    ("a credential", EQUAL, {"a": out(guess(600, Scope.CREDENTIAL))}, {}, "b"),
    ("just overloaded", EQUAL, {"a": out(guess(3, Scope.REQUEST)), "b": busy(9)}, {}, "b"),
    ("overloaded before doubtful", EQUAL,
     {"a": out(guess()), "b": out(guess(3, Scope.REQUEST))}, {}, "b"),
    ("paused", EQUAL, {"a": paused, "b": busy(9)}, {}, "b"),
    ("all paused", EQUAL, {"a": paused, "b": paused}, {}, None),
    ("tried", EQUAL, {"b": busy(9)}, {"tried": "a"}, "b"),
    ("all tried", EQUAL, {}, {"tried": "a b"}, None),
    ("tried, and the other out", EQUAL, {"b": out(stated())}, {"tried": "a"}, None),
    ("another model's outage", EQUAL,
     {"a": out(stated(scope=Scope.MODEL), "claude-opus-4-8")}, {}, "a"),
    ("this model's outage", EQUAL, {"a": out(stated(scope=Scope.MODEL))}, {}, "b"),
    ("this model's outage, guessed", EQUAL, {"a": out(guess(scope=Scope.MODEL))}, {}, "b"),
    ("counts no tokens", EQUAL, {"a": no_count}, {"counting": True}, "b"),
    ("counts no tokens, but answers", EQUAL, {"a": no_count}, {}, "a"),
    ("no upstream counts", EQUAL, {"a": no_count, "b": no_count}, {"counting": True}, None),
    ("session", EQUAL, {"b": busy(9)}, {"bound": "b"}, "b"),
    ("session, later tier", TIERS, {}, {"bound": "c"}, "c"),
    ("session, out", EQUAL, {"b": out(stated())}, {"bound": "b"}, "a"),
    ("session, doubtful", EQUAL, {"b": out(guess()), "a": busy(9)}, {"bound": "b"}, "a"),
    ("session, at its cap", {"a": {}, "b": {"max_concurrency": 1}}, {"b": busy(1)},
     {"bound": "b"}, "a"),
    ("session, tried", EQUAL, {}, {"bound": "b", "tried": "b"}, "a"),
    ("session, upstream removed", EQUAL, {}, {"bound": "z"}, "a"),
    ("session, outage of another upstream", EQUAL, {"a": out(stated())}, {"bound": "b"}, "b"),
]  # fmt: skip


def routing(route: Route, upstreams: list[Upstream], **options: Any) -> RoutingRequest:
    tried = options.pop("tried", "").split()
    counting, tokens = options.pop("counting", False), options.pop("tokens", 0)
    request = RoutingRequest("key", route, counting, tokens)
    request.tried = tuple(one for one in upstreams if one.name in tried)
    request.bound = options.pop("bound", None)
    assert not options
    return request


def tiers(upstreams: list[Upstream]) -> None:
    """One tier for each priority, as `Upstreams` has it."""
    found: dict[int, Tier] = {}
    for upstream in upstreams:
        upstream.tier = found.setdefault(upstream.priority, Tier())


def leased(pool: Upstreams, request: RoutingRequest) -> Lease:
    lease = pool.take(request)
    assert lease is not None
    return lease


@pytest.mark.parametrize(
    ("options", "state", "request_options", "expected"),
    [row[1:] for row in CHOICES],
    ids=[row[0] for row in CHOICES],
)
async def test_the_upstream_that_is_due_gets_the_request(
    options: Options, state: State, request_options: dict[str, Any], expected: str | None
) -> None:
    upstreams, route = made(options)
    tiers(upstreams)
    for upstream in upstreams:
        if upstream.name in state:
            state[upstream.name](upstream)
    target = choose(routing(route, upstreams, **request_options), NOW)
    assert (target.upstream.name if target is not None else None) == expected


async def test_an_upstream_at_its_own_limit_is_skipped_until_reset() -> None:
    upstreams, route = made({"a": {"limits": [{"requests": 1, "per": "1h"}]}, "b": {"priority": 1}})
    ledger, now = Ledger(), time.time()
    pool = Upstreams(
        upstreams, config.PoolSettings(), ledger, Deadlines(asyncio.get_running_loop())
    )
    request = RoutingRequest("key", route)
    assert leased(pool, request).target.upstream.name == "a"
    target = choose(request, now, ledger)
    assert target is not None
    assert target.upstream.name == "b"
    later = choose(request, now + 3601, ledger)
    assert later is not None
    assert later.upstream.name == "a"
    counting = choose(RoutingRequest("key", route, counting=True), now, ledger)
    assert counting is not None
    assert counting.upstream.name == "a"  # counting uses no limit


async def test_a_request_above_an_upstreams_token_limit_goes_elsewhere() -> None:
    limits = [{"tokens": 1000, "per": "1m"}]
    upstreams, route = made({"a": {"limits": limits}, "b": {"priority": 1}})
    ledger = Ledger()
    pool = Upstreams(
        upstreams, config.PoolSettings(), ledger, Deadlines(asyncio.get_running_loop())
    )
    chosen = [
        leased(pool, routing(route, upstreams, tokens=tokens)).target.upstream.name
        for tokens in (600, 600, 300, 5000)
    ]
    assert chosen == ["a", "b", "a", "b"]


async def test_a_resumed_upstream_gets_few_of_its_missed_turns() -> None:
    upstreams, route = made({"a": {"weight": 3}, "b": {"weight": 1}})
    pool = Upstreams(
        upstreams, config.PoolSettings(), Ledger(), Deadlines(asyncio.get_running_loop())
    )
    upstreams[1].health.pause()
    for _ in range(300):
        pool.release(leased(pool, RoutingRequest("key", route)))
    upstreams[1].health.resume()
    chosen = [(await served_by(pool, route)) for _ in range(16)]
    assert Counter(chosen)["b"] <= 12  # 8 missed turns, and its share
    chosen = [(await served_by(pool, route)) for _ in range(40)]
    assert Counter(chosen)["b"] in (9, 10, 11)


async def served_by(pool: Upstreams, route: Route) -> str:
    lease = leased(pool, RoutingRequest("key", route))
    pool.release(lease)
    return lease.target.upstream.name


@settings(max_examples=40)
@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=8))
async def test_turns_are_shared_by_weight(weights: list[int]) -> None:
    upstreams, route = made({f"u{number}": {"weight": w} for number, w in enumerate(weights)})
    pool = Upstreams(
        upstreams, config.PoolSettings(), Ledger(), Deadlines(asyncio.get_running_loop())
    )
    rounds = 10
    for _ in range(rounds * sum(weights)):
        await served_by(pool, route)
    for upstream, weight in zip(upstreams, weights, strict=True):
        assert abs(upstream.requests - rounds * weight) <= 1


async def test_a_request_bound_to_its_session_uses_no_turn() -> None:
    upstreams, route = made(EQUAL)
    pool = Upstreams(
        upstreams, config.PoolSettings(), Ledger(), Deadlines(asyncio.get_running_loop())
    )
    for _ in range(50):
        lease = leased(pool, routing(route, upstreams, bound="a"))
        assert (lease.target.upstream.name, lease.choice) == ("a", "session")
        pool.release(lease)
    chosen = [await served_by(pool, route) for _ in range(4)]
    assert chosen == ["a", "b", "a", "b"]


async def test_a_lease_is_released_once() -> None:
    upstreams, route = made(EQUAL)
    pool = Upstreams(
        upstreams, config.PoolSettings(), Ledger(), Deadlines(asyncio.get_running_loop())
    )
    lease = leased(pool, RoutingRequest("key", route))
    for _ in range(3):
        pool.release(lease)
    assert [one.in_flight for one in upstreams] == [0, 0]


async def test_the_log_has_the_upstreams_passed_over_and_the_reason() -> None:
    upstreams, route = made(
        {"a": {}, "b": {"max_concurrency": 2}, "c": {}, "d": {}, "e": {"priority": 1}}
    )
    a, b, c, _, e = upstreams
    a.health.failed(stated(12), SONNET, NOW)
    b.in_flight = 2
    c.health.pause()
    e.health.pause()
    target = choose(RoutingRequest("key", route), NOW)
    assert target is not None
    assert passed_over(RoutingRequest("key", route), target, NOW) == (
        "a: 429: limit reached; 12 s to go; b: has 2 in flight; c: paused"
    )


async def test_the_repr_has_the_state_of_each_upstream() -> None:
    upstreams, route = made({"a": {"max_concurrency": 8}, "b": {}, "c": {}, "d": {}})
    pool = Upstreams(
        upstreams, config.PoolSettings(), Ledger(), Deadlines(asyncio.get_running_loop())
    )
    a, b, c, d = upstreams
    now = time.time()
    for number in (3, 1):
        for _ in range(number):
            leased(pool, routing(route, upstreams, bound="a" if number == 3 else "d"))
    b.health.failed(Verdict(Scope.ACCOUNT, now + 12.4, True, "429: rate limit"), SONNET, now)
    c.health.pause()
    for before in (30, 20, 15):
        d.health.failed(Verdict(Scope.FAILURE, 0.0, False, "it broke off"), SONNET, now - before)
    assert repr(pool) == (
        "<Upstreams a: free, 3/8 in flight; b: 429: rate limit; 12 s to go, 0 in flight; "
        "c: paused, 0 in flight; d: it broke off; a probe is to find out, 1 in flight; 0 wait>"
    )
    assert repr(a).startswith("<Upstream a in_flight=3 <Pool ")
    assert (len(pool), pool[3], pool.named("d"), pool.named("z")) == (4, d, d, None)


async def test_exhaustion_names_the_moment_of_the_first_return() -> None:
    upstreams, route = made(EQUAL)
    pool = Upstreams(
        upstreams, config.PoolSettings(), Ledger(), Deadlines(asyncio.get_running_loop())
    )
    now = time.time()
    for upstream, seconds in zip(upstreams, (3600, 45), strict=True):
        verdict = Verdict(Scope.ACCOUNT, now + seconds, True, "429: limit reached")
        upstream.health.failed(verdict, SONNET, now)
    with pytest.raises(RelayError) as refused:
        await pool.wait(RoutingRequest("key", route))
    assert refused.value.kind.status == 503
    assert dict(refused.value.headers) == {b"retry-after": b"45"}
    upstreams[1].health.pause()
    with pytest.raises(RelayError) as refused:
        await pool.wait(RoutingRequest("key", route))
    assert dict(refused.value.headers) == {
        b"retry-after": b"3600",
        b"x-should-retry": b"false",
    }
    upstreams[0].health.pause()
    with pytest.raises(RelayError, match="No upstream can serve this model now"):
        await pool.wait(RoutingRequest("key", route))

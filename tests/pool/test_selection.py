"""Which upstream a request goes to, as a table of what there is and what is in the way."""

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
from relay.pool.leases import Lease, RoutingRequest, Upstreams, choose, passed_over
from relay.pool.routes import Route
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


def told(seconds: float = 20, scope: Scope = Scope.ACCOUNT) -> Verdict:
    return Verdict(scope, NOW + seconds, True, "429: limit reached")


def guess(seconds: float = 20, scope: Scope = Scope.ACCOUNT) -> Verdict:
    return Verdict(scope, NOW + seconds, False, "429: no moment told")


def out(verdict: Verdict, model: str = SONNET) -> Callable[[Upstream], None]:
    return lambda upstream: upstream.health.failed(verdict, model, NOW)


def busy(number: int) -> Callable[[Upstream], None]:
    def so(upstream: Upstream) -> None:
        upstream.in_flight = number

    return so


def served(number: float) -> Callable[[Upstream], None]:
    def so(upstream: Upstream) -> None:
        upstream.virtual_time = number

    return so


def paused(upstream: Upstream) -> None:
    upstream.health.pause()


def no_count(upstream: Upstream) -> None:
    upstream.health.cannot_count(NOW + 60)


def probed(upstream: Upstream) -> None:
    """Its time as a guess is over, and one request is on its way to find out."""
    upstream.health.failed(guess(0), SONNET, NOW)
    upstream.health.request_started()


State = dict[str, Callable[[Upstream], None]]
CHOICES: list[tuple[str, Options, State, dict[str, Any], str | None]] = [
    # what the case is about, the upstreams, their state, what the request is, who gets it
    ("the first of equals", EQUAL, {}, {}, "a"),
    ("whose turn it is", EQUAL, {"a": served(1)}, {}, "b"),
    ("in flight", EQUAL, {"a": busy(1)}, {}, "b"),
    ("weight, in flight", {"a": {"weight": 4}, "b": {}}, {"a": busy(3), "b": busy(1)}, {}, "a"),
    ("weight, served", {"a": {"weight": 3}, "b": {}}, {"a": served(0.6), "b": served(1)}, {}, "a"),
    ("who is slow is due later", EQUAL, {"a": busy(8), "b": served(1)}, {}, "b"),
    ("priority before weight", {"b": {"weight": 9, "priority": 1}, "a": {}}, {}, {}, "a"),
    ("priority, though busy", TIERS, {"a": busy(90), "b": busy(90)}, {}, "a"),
    ("below its cap", CAPPED, {"a": busy(1), "b": busy(9)}, {}, "a"),
    ("at its cap", CAPPED, {"a": busy(2), "b": busy(9)}, {}, "b"),
    ("the next tier once all are full", {"a": {"max_concurrency": 1}, "c": {"priority": 1}},
     {"a": busy(1)}, {}, "c"),
    ("all at their cap", {"a": {"max_concurrency": 1}}, {"a": busy(1)}, {}, None),
    ("told to be out", EQUAL, {"a": out(told())}, {}, "b"),
    ("all told to be out", EQUAL, {"a": out(told()), "b": out(told())}, {}, None),
    ("told, and over", EQUAL, {"a": out(told(0)), "b": served(1)}, {}, "a"),
    ("the next tier once all are out", TIERS, {"a": out(told()), "b": paused}, {}, "c"),
    ("a guess has others preferred", EQUAL, {"a": out(guess())}, {}, "b"),
    ("of another tier too", TIERS, {"a": out(guess()), "b": out(guess())}, {}, "c"),
    ("a guess alone refuses nobody", EQUAL, {"a": out(guess()), "b": out(told())}, {}, "a"),
    ("a guess that is over", EQUAL, {"a": out(guess(0)), "b": served(1)}, {}, "a"),
    ("while one finds out", EQUAL, {"a": probed, "b": busy(9)}, {}, "b"),
    ("a credential", EQUAL, {"a": out(guess(600, Scope.CREDENTIAL))}, {}, "b"),
    ("just overloaded", EQUAL, {"a": out(guess(3, Scope.REQUEST)), "b": busy(9)}, {}, "b"),
    ("overloaded before doubtful", EQUAL,
     {"a": out(guess()), "b": out(guess(3, Scope.REQUEST))}, {}, "b"),
    ("paused", EQUAL, {"a": paused, "b": busy(9)}, {}, "b"),
    ("all paused", EQUAL, {"a": paused, "b": paused}, {}, None),
    ("tried", EQUAL, {"b": busy(9)}, {"tried": "a"}, "b"),
    ("all tried", EQUAL, {}, {"tried": "a b"}, None),
    ("tried, and the other out", EQUAL, {"b": out(told())}, {"tried": "a"}, None),
    ("another model's trouble", EQUAL,
     {"a": out(told(scope=Scope.MODEL), "claude-opus-4-8")}, {}, "a"),
    ("this model's trouble", EQUAL, {"a": out(told(scope=Scope.MODEL))}, {}, "b"),
    ("this model's trouble, guessed", EQUAL, {"a": out(guess(scope=Scope.MODEL))}, {}, "b"),
    ("counts no tokens", EQUAL, {"a": no_count}, {"counting": True}, "b"),
    ("counts no tokens, but answers", EQUAL, {"a": no_count}, {}, "a"),
    ("nobody counts", EQUAL, {"a": no_count, "b": no_count}, {"counting": True}, None),
    ("its session's", EQUAL, {"b": busy(9)}, {"bound": "b"}, "b"),
    ("its session's, of a later tier", TIERS, {}, {"bound": "c"}, "c"),
    ("its session's is out", EQUAL, {"b": out(told())}, {"bound": "b"}, "a"),
    ("its session's is doubtful", EQUAL, {"b": out(guess()), "a": busy(9)}, {"bound": "b"}, "a"),
    ("its session's is full", {"a": {}, "b": {"max_concurrency": 1}}, {"b": busy(1)},
     {"bound": "b"}, "a"),
    ("its session's was tried", EQUAL, {}, {"bound": "b", "tried": "b"}, "a"),
    ("its session's is no more", EQUAL, {}, {"bound": "z"}, "a"),
    ("its session's has others' trouble", EQUAL, {"a": out(told())}, {"bound": "b"}, "b"),
]  # fmt: skip


def ask(route: Route, upstreams: list[Upstream], **what: Any) -> RoutingRequest:
    tried = what.pop("tried", "").split()
    wanted = RoutingRequest("key", route, what.pop("counting", False), what.pop("tokens", 0))
    wanted.tried = tuple(one for one in upstreams if one.name in tried)
    wanted.bound = what.pop("bound", None)
    assert not what
    return wanted


def tiers(upstreams: list[Upstream]) -> None:
    """One tier for each priority, as `Upstreams` has it."""
    found: dict[int, Tier] = {}
    for upstream in upstreams:
        upstream.tier = found.setdefault(upstream.priority, Tier())


def leased(pool: Upstreams, ask: RoutingRequest) -> Lease:
    lease = pool.take(ask)
    assert lease is not None
    return lease


@pytest.mark.parametrize(
    ("options", "state", "what", "expected"),
    [row[1:] for row in CHOICES],
    ids=[row[0] for row in CHOICES],
)
async def test_the_choice(
    options: Options, state: State, what: dict[str, Any], expected: str | None
) -> None:
    upstreams, route = made(options)
    tiers(upstreams)
    for upstream in upstreams:
        if upstream.name in state:
            state[upstream.name](upstream)
    target = choose(ask(route, upstreams, **what), NOW)
    assert (target.upstream.name if target is not None else None) == expected


async def test_an_upstream_whose_own_limits_are_used_up_is_passed_over_until_they_are_not() -> None:
    upstreams, route = made({"a": {"limits": [{"requests": 1, "per": "1h"}]}, "b": {"priority": 1}})
    ledger, now = Ledger(), time.time()
    pool = Upstreams(
        upstreams, config.PoolSettings(), ledger, Deadlines(asyncio.get_running_loop())
    )
    wanted = RoutingRequest("key", route)
    assert leased(pool, wanted).target.upstream.name == "a"
    target = choose(wanted, now, ledger)
    assert target is not None
    assert target.upstream.name == "b"
    later = choose(wanted, now + 3601, ledger)
    assert later is not None
    assert later.upstream.name == "a"
    counting = choose(RoutingRequest("key", route, counting=True), now, ledger)
    assert counting is not None
    assert counting.upstream.name == "a"  # to count costs nothing


async def test_a_request_with_more_tokens_than_an_upstream_has_left_goes_elsewhere() -> None:
    limits = [{"tokens": 1000, "per": "1m"}]
    upstreams, route = made({"a": {"limits": limits}, "b": {"priority": 1}})
    ledger = Ledger()
    pool = Upstreams(
        upstreams, config.PoolSettings(), ledger, Deadlines(asyncio.get_running_loop())
    )
    chosen = [
        leased(pool, ask(route, upstreams, tokens=tokens)).target.upstream.name
        for tokens in (600, 600, 300, 5000)
    ]
    assert chosen == ["a", "b", "a", "b"]


async def test_who_was_away_is_owed_a_few_turns_and_not_all_that_it_missed() -> None:
    upstreams, route = made({"a": {"weight": 3}, "b": {"weight": 1}})
    pool = Upstreams(
        upstreams, config.PoolSettings(), Ledger(), Deadlines(asyncio.get_running_loop())
    )
    upstreams[1].health.pause()
    for _ in range(300):
        pool.release(leased(pool, RoutingRequest("key", route)))
    upstreams[1].health.resume()
    chosen = [(await ended(pool, route)) for _ in range(16)]
    assert Counter(chosen)["b"] <= 12  # 8 that it is owed, and its share
    chosen = [(await ended(pool, route)) for _ in range(40)]
    assert Counter(chosen)["b"] in (9, 10, 11)


async def ended(pool: Upstreams, route: Route) -> str:
    lease = leased(pool, RoutingRequest("key", route))
    pool.release(lease)
    return lease.target.upstream.name


@settings(max_examples=40, deadline=None)
@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=8))
async def test_turns_are_shared_out_by_weight(weights: list[int]) -> None:
    upstreams, route = made({f"u{number}": {"weight": w} for number, w in enumerate(weights)})
    pool = Upstreams(
        upstreams, config.PoolSettings(), Ledger(), Deadlines(asyncio.get_running_loop())
    )
    rounds = 10
    for _ in range(rounds * sum(weights)):
        await ended(pool, route)
    for upstream, weight in zip(upstreams, weights, strict=True):
        assert abs(upstream.requests - rounds * weight) <= 1


async def test_a_request_that_stays_with_its_session_is_nobodys_turn() -> None:
    upstreams, route = made(EQUAL)
    pool = Upstreams(
        upstreams, config.PoolSettings(), Ledger(), Deadlines(asyncio.get_running_loop())
    )
    for _ in range(50):
        lease = leased(pool, ask(route, upstreams, bound="a"))
        assert (lease.target.upstream.name, lease.choice) == ("a", "session")
        pool.release(lease)
    chosen = [await ended(pool, route) for _ in range(4)]
    assert chosen == ["a", "b", "a", "b"]


async def test_a_lease_is_given_back_once_however_often_it_is_tried() -> None:
    upstreams, route = made(EQUAL)
    pool = Upstreams(
        upstreams, config.PoolSettings(), Ledger(), Deadlines(asyncio.get_running_loop())
    )
    lease = leased(pool, RoutingRequest("key", route))
    for _ in range(3):
        pool.release(lease)
    assert [one.in_flight for one in upstreams] == [0, 0]


async def test_the_log_says_who_was_passed_over_and_why() -> None:
    upstreams, route = made(
        {"a": {}, "b": {"max_concurrency": 2}, "c": {}, "d": {}, "e": {"priority": 1}}
    )
    a, b, c, _, e = upstreams
    a.health.failed(told(12), SONNET, NOW)
    b.in_flight = 2
    c.health.pause()
    e.health.pause()
    target = choose(RoutingRequest("key", route), NOW)
    assert target is not None
    assert passed_over(RoutingRequest("key", route), target, NOW) == (
        "a: 429: limit reached; 12 s to go; b: has 2 in flight; c: paused"
    )


async def test_the_pool_shows_itself_in_words() -> None:
    upstreams, route = made({"a": {"max_concurrency": 8}, "b": {}, "c": {}, "d": {}})
    pool = Upstreams(
        upstreams, config.PoolSettings(), Ledger(), Deadlines(asyncio.get_running_loop())
    )
    a, b, c, d = upstreams
    now = time.time()
    for number in (3, 1):
        for _ in range(number):
            leased(pool, ask(route, upstreams, bound="a" if number == 3 else "d"))
    b.health.failed(Verdict(Scope.ACCOUNT, now + 12.4, True, "429: rate limit"), SONNET, now)
    c.health.pause()
    for before in (30, 20, 15):
        d.health.failed(Verdict(Scope.FAILURE, 0.0, False, "it broke off"), SONNET, now - before)
    assert repr(pool) == (
        "<Upstreams a: free, 3/8 in flight; b: 429: rate limit; 12 s to go, 0 in flight; "
        "c: paused, 0 in flight; d: it broke off; one request is to find out, 1 in flight; 0 wait>"
    )
    assert repr(a).startswith("<Upstream a in_flight=3 <Pool ")
    assert (len(pool), pool[3], pool.named("d"), pool.named("z")) == (4, d, d, None)


async def test_when_all_are_out_the_answer_names_the_moment_the_first_is_back() -> None:
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

"""Where a conversation belongs: alike on all machines, by weight, with the least movement."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.pool.rendezvous import distance, mark_of, seed_of
from relay.pool.selection import RoutingRequest, choose, home_of
from tests.fakes.pool import MODEL, made
from tests.pool.test_selection import NOW, out, stated

KEYS = [b"h:session-%d" % number for number in range(4000)]


def nearest(key: bytes, weights: dict[str, int], account: str = "ann") -> str:
    seed = seed_of(account, key)
    return min(weights, key=lambda name: distance(seed, mark_of(name), 1 / weights[name]))


def shares(weights: dict[str, int]) -> dict[str, float]:
    found = Counter(nearest(key, weights) for key in KEYS)
    return {name: found[name] / len(KEYS) for name in weights}


@pytest.mark.parametrize(
    "weights",
    [
        {"a": 1, "b": 1},
        {"main": 3, "spare": 1},
        {"a": 1, "b": 2, "c": 3, "d": 4},
        {f"upstream-{number}": 1 for number in range(10)},
        {"large": 100, "small": 1},
    ],
    ids=["two", "weighted", "four", "ten", "extreme"],
)
def test_conversations_are_shared_by_weight(weights: dict[str, int]) -> None:
    total = sum(weights.values())
    for name, share in shares(weights).items():
        part = weights[name] / total
        assert abs(share - part) < 4 * (part * (1 - part) / len(KEYS)) ** 0.5


def test_a_place_is_the_same_in_every_process() -> None:
    assert (mark_of("a"), seed_of("ann", b"h:1")) == (658462444, 1025667297)
    places = "".join(nearest(b"h:%d" % number, {"a": 1, "b": 2, "c": 3}) for number in range(20))
    assert places == "bccabcacccacbacbbbbc"


def test_accounts_with_the_same_key_are_apart() -> None:
    weights = {"a": 1, "b": 1, "c": 1, "d": 1}
    found = {nearest(b"h:1", weights, f"account-{number}") for number in range(100)}
    assert found == set(weights)


@given(
    st.dictionaries(st.text(min_size=1), st.integers(1, 100), min_size=2, max_size=10),
    st.binary(max_size=40),
    st.data(),
)
def test_only_conversations_of_one_that_leaves_move(
    weights: dict[str, int], key: bytes, data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(sorted(weights)))
    before = nearest(key, weights)
    left = {name: weight for name, weight in weights.items() if name != gone}
    assert nearest(key, left) == before or before == gone


# --- in the pool ---


def asked(route: Any, key: bytes, bound: str | None = None) -> RoutingRequest:
    request = RoutingRequest("key", route)
    request.conversation, request.by_hash, request.bound = key, True, bound
    return request


def chosen(request: RoutingRequest) -> str:
    target = choose(request, NOW)
    assert target is not None
    return target.upstream.name


async def test_two_pools_choose_alike_whatever_they_served() -> None:
    (one, first), (_, second) = made({"a": {}, "b": {}, "c": {}}), made({"c": {}, "a": {}, "b": {}})
    one[0].virtual_time, one[1].in_flight = 7.0, 3
    for key in KEYS[:200]:
        assert chosen(asked(first, key)) == chosen(asked(second, key))


async def test_an_upstream_that_is_out_has_the_same_successor() -> None:
    pools = [made({"a": {}, "b": {}, "c": {}}) for _ in range(2)]
    before = {key: chosen(asked(pools[0][1], key)) for key in KEYS[:200]}
    for upstreams, _ in pools:
        out(stated(), MODEL)(upstreams[0])
    for key in KEYS[:200]:
        now = [chosen(asked(route, key)) for _, route in pools]
        assert now[0] == now[1] != "a"
        assert now[0] == before[key] or before[key] == "a"
        assert home_of(asked(pools[0][1], key)).upstream.name == before[key]


async def test_a_binding_comes_before_the_hash() -> None:
    upstreams, route = made({"a": {}, "b": {}, "c": {"priority": 1}})
    for key in KEYS[:20]:
        assert chosen(asked(route, key, "c")) == "c"
    out(stated(), MODEL)(upstreams[2])
    for key in KEYS[:20]:
        assert chosen(asked(route, key, "c")) == home_of(asked(route, key)).upstream.name


async def test_the_hash_stays_within_the_best_priority() -> None:
    upstreams, route = made({"a": {}, "b": {}, "c": {"priority": 1}, "d": {"priority": 1}})
    assert {chosen(asked(route, key)) for key in KEYS[:50]} == {"a", "b"}
    for upstream in upstreams[:2]:
        out(stated(), MODEL)(upstream)
    assert {chosen(asked(route, key)) for key in KEYS[:50]} == {"c", "d"}
    assert {home_of(asked(route, key)).upstream.name for key in KEYS[:50]} == {"a", "b"}

"""A conversation stays with its upstream as long as its prompt cache lasts."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from relay.pool.affinity import Bindings

KEEP, LONG = 300.0, 3600.0


def bound(bindings: Bindings, now: float) -> bool:
    found = bindings.find("c", b"k", now)
    return found is not None and found.until > now


def test_a_binding_expires_unless_a_request_renews_it() -> None:
    bindings = Bindings(KEEP)
    bindings.hold(("c", b"k"), "up", "anthropic", 0.0)
    assert bound(bindings, 299.0)
    assert not bound(bindings, 300.0)
    bindings.hold(("c", b"k"), "up", "anthropic", 299.0)
    found = bindings.find("c", b"k", 598.0)
    assert found is not None
    assert (found.upstream, found.family) == ("up", "anthropic")
    assert (found.mixed, found.until) == (False, 599)


def test_the_one_hour_cache_binds_a_conversation_for_an_hour() -> None:
    bindings = Bindings(KEEP)
    bindings.hold(("c", b"k"), "up", "anthropic", 0.0, long=True)
    assert bound(bindings, 3599.0)
    assert not bound(bindings, 3600.0)


def test_another_duration_applies_from_the_next_request_on() -> None:
    bindings = Bindings(10.0)
    bindings.hold(("c", b"k"), "up", "x", 0.0)
    bindings.keep_for(30.0)
    assert bindings.counts(9.0) == {"up": 1}
    assert bindings.counts(10.0) == {}
    bindings.hold(("c", b"k"), "up", "x", 10.0)
    assert bindings.counts(39.0) == {"up": 1}
    assert bindings.counts(40.0) == {}


def test_a_conversation_belongs_to_one_caller() -> None:
    bindings = Bindings(KEEP)
    bindings.hold(("a", b"k"), "up", "anthropic", 0.0)
    assert bindings.find("b", b"k", 0.0) is None


def test_a_conversation_with_two_families_stays_mixed() -> None:
    bindings = Bindings(KEEP)
    for family, mixed in [("x", False), ("x", False), ("y", True), ("y", True), ("x", True)]:
        bindings.hold(("c", b"k"), "up", family, 0.0)
        found = bindings.find("c", b"k", 0.0)
        assert found is not None
        assert found.mixed is mixed


def test_the_family_outlives_the_binding_by_an_hour() -> None:
    for now, mixed in [(KEEP + LONG - 1, True), (KEEP + LONG, False)]:
        bindings = Bindings(KEEP)
        bindings.hold(("c", b"k"), "up", "x", 0.0)
        assert (bindings.find("c", b"k", now) is not None) is mixed
        bindings.hold(("c", b"k"), "other", "y", now)
        found = bindings.find("c", b"k", now)
        assert found is not None
        assert found.mixed is mixed


def test_the_least_recently_held_conversation_is_evicted_first() -> None:
    bindings = Bindings(KEEP, capacity=2)
    for key in (b"a", b"b", b"a", b"c"):
        bindings.hold(("c", key), "up", "x", 0.0)
    assert [bindings.find("c", key, 0.0) is not None for key in (b"a", b"b", b"c")] == [1, 0, 1]
    assert bindings.counts(0.0) == {"up": 2}


def test_sweeps_remove_every_expired_conversation_in_small_steps() -> None:
    bindings = Bindings(KEEP)
    for number in range(10):
        bindings.hold(("c", b"%d" % number), "up", "x", 0.0)
    sizes = []
    for _ in range(4):
        bindings.sweep(KEEP + LONG, limit=4)
        sizes.append(len(bindings))
    assert sizes == [6, 2, 0, 0]


def test_the_repr_counts_the_bindings_of_each_upstream() -> None:
    bindings = Bindings(KEEP, capacity=9)
    assert repr(bindings) == "<Bindings 0 of at most 9: none bound>"
    bindings.hold(("c", b"k"), "up", "x", 0.0)
    assert repr(bindings) == "<Bindings 1 of at most 9: 1 with up>"


@dataclass
class Known:
    upstream: str
    family: str
    mixed: bool
    until: float


NAMES = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([b"1", b"2", b"3"]))
UPSTREAMS = st.sampled_from(["one", "two", "three"])
CAPACITY = 4


class SessionsAgainstModel(RuleBasedStateMachine):
    """The model is a plain dict, scanned at every step."""

    @initialize()
    def begin(self) -> None:
        self.bindings = Bindings(10.0, 40.0, CAPACITY)
        self.known: dict[tuple[str, bytes], Known] = {}
        self.now = 0

    @rule(name=NAMES, upstream=UPSTREAMS, family=st.sampled_from("xy"), long=st.booleans())
    def hold(self, name: tuple[str, bytes], upstream: str, family: str, long: bool) -> None:
        self.bindings.hold(name, upstream, family, self.now, long)
        previous = self.known.pop(name, None)
        if previous is None and len(self.known) == CAPACITY:
            del self.known[next(iter(self.known))]
        recent = previous is not None and previous.until + 40 > self.now
        mixed = recent and previous is not None and (previous.mixed or previous.family != family)
        self.known[name] = Known(upstream, family, mixed, self.now + (40 if long else 10))

    @rule(seconds=st.sampled_from([1, 9, 10, 40, 100]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(limit=st.integers(0, 3))
    def sweep(self, limit: int) -> None:
        self.bindings.sweep(self.now, limit)
        for name in list(self.known)[:limit]:
            if self.known[name].until + 40 > self.now:
                break
            del self.known[name]

    @invariant()
    def conversations_and_counts_are_those_of_the_model(self) -> None:
        if not hasattr(self, "known"):
            return
        assert len(self.bindings) == len(self.known) <= CAPACITY
        counts: dict[str, int] = {}
        for caller in ("a", "b"):
            for key in (b"1", b"2", b"3"):
                found = self.bindings.find(caller, key, self.now)
                want = self.known.get((caller, key))
                if want is None or want.until + 40 <= self.now:
                    assert found is None
                    continue
                assert found is not None
                assert (found.upstream, found.family) == (want.upstream, want.family)
                assert (found.mixed, found.until) == (want.mixed, want.until)
                if want.until > self.now:
                    counts[want.upstream] = counts.get(want.upstream, 0) + 1
        assert self.bindings.counts(self.now) == counts


TestSessionsAgainstModel = SessionsAgainstModel.TestCase
TestSessionsAgainstModel.settings = settings(max_examples=50, stateful_step_count=40)

"""No window is overdrawn by its nodes, whatever is lost, late, doubled or killed.

Three nodes draw from two stacked windows, for requests and for slots of workers. Claims and grants
are values in flight, which the machine delivers in any order, twice, or never; nodes die with and
without their disk, clocks step, sizes change. The count of what was admitted is kept beside, by
window.
"""

from collections import Counter
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay.quota.share.claims import Claim, Grant
from relay.quota.share.leased_window import LeasedWindow
from relay.quota.share.shared_window import LEASE_TIME, SharedWindow, acquire

HOUR = 3_600_000
SIZES = {"5h": 12, "7d": 20}
PERS = {"5h": 5 * HOUR, "7d": 168 * HOUR}
LIMITS = tuple(SIZES)
NODES = ("a", "b", "c")
START = 1_775_649_660_000

nodes = st.sampled_from(NODES)
places = st.integers(0, 1_000_000)  # one of those in flight


class Sent(NamedTuple):
    """Claims on their way to the owner."""

    node: "Node"
    claims: tuple[tuple[str, Claim], ...]


class Answered(NamedTuple):
    """Grants on their way back."""

    node: "Node"
    grants: tuple[tuple[str, Grant], ...]


class Node:
    """A node since its last start."""

    def __init__(self, name: str, start: int) -> None:
        self.lease = f"{name}/{start}"
        self.windows = {limit: LeasedWindow(self.lease, SIZES[limit]) for limit in LIMITS}
        self.requests: list[dict[str, int]] = []  # the epoch of each limit, by request
        self.slots: list[dict[str, int]] = []  # and by slot that no request has used

    def journalled(self) -> dict[str, Claim]:
        """The last claims of a process that was killed, from its journal."""
        return {
            limit: Claim(self.lease, 2**40, window.epoch, window.spent, window.spent, 0, 0)
            for limit, window in self.windows.items()
        }


class Cluster(RuleBasedStateMachine):
    """Three nodes, one owner, and what is in flight between them."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = START  # of the owner
        self.time = 0  # monotonic
        self.starts = 0
        self.shared = {limit: SharedWindow(SIZES[limit], PERS[limit]) for limit in LIMITS}
        self.nodes = {name: self.started(name) for name in NODES}
        self.claims: list[Sent] = []
        self.grants: list[Answered] = []
        self.admitted: Counter[tuple[str, int]] = Counter()  # by limit and epoch
        self.largest: dict[tuple[str, int], int] = {}  # the largest size in that epoch
        self.gone: set[str] = set()  # leases whose node never reports again
        self.killed: list[Node] = []  # whose journal is read at the next start

    def started(self, name: str) -> Node:
        self.starts += 1
        return Node(name, self.starts)

    def send(self, node: Node, claims: dict[str, Claim]) -> None:
        if claims:
            self.claims.append(Sent(node, tuple(claims.items())))

    # --- requests ---------------------------------------------------------------------

    @rule(name=nodes)
    def request(self, name: str) -> None:
        node = self.nodes[name]
        if any(window.left(self.time) < 1 for window in node.windows.values()):
            self.send(node, {k: w.claim(self.time, need=1) for k, w in node.windows.items()})
            return
        for limit, window in node.windows.items():
            assert window.take(1, self.time)
            self.admitted[limit, window.epoch] += 1
        node.requests.append({limit: window.epoch for limit, window in node.windows.items()})

    @rule(name=nodes, count=st.integers(1, 4))
    def requests_on_a_good_day(self, name: str, count: int) -> None:
        """Claims and grants arrive at once."""
        for _ in range(2 * count):
            self.request(name)
            while self.claims and self.claims[-1].node is self.nodes[name]:
                self.answer(self.claims.pop())
                for limit, grant in self.grants.pop().grants:
                    self.nodes[name].windows[limit].granted(grant)

    @rule(name=nodes, place=places)
    def refund(self, name: str, place: int) -> None:
        node = self.nodes[name]
        if not node.requests:
            return
        request = node.requests.pop(place % len(node.requests))
        for limit, epoch in request.items():
            node.windows[limit].give_back(1, epoch)
            self.admitted[limit, epoch] -= 1

    @rule(name=nodes, count=st.integers(1, 4))
    def lend(self, name: str, count: int) -> None:
        node = self.nodes[name]
        for _ in range(count):
            if any(window.left(self.time) < 1 for window in node.windows.values()):
                return
            for window in node.windows.values():
                assert window.take(1, self.time)
                window.lend(1, window.epoch)
            node.slots.append({limit: window.epoch for limit, window in node.windows.items()})

    @rule(name=nodes, place=places)
    def use_a_slot(self, name: str, place: int) -> None:
        node = self.nodes[name]
        if not node.slots:
            return
        slot = node.slots.pop(place % len(node.slots))
        for limit, epoch in slot.items():
            node.windows[limit].lend(-1, epoch)
            self.admitted[limit, epoch] += 1
        node.requests.append(slot)

    @rule(name=nodes)
    def slots_come_back(self, name: str) -> None:
        node = self.nodes[name]
        for slot in node.slots:
            for limit, epoch in slot.items():
                node.windows[limit].lend(-1, epoch)
                node.windows[limit].give_back(1, epoch)
        node.slots.clear()

    @rule(name=nodes)
    def ask_ahead(self, name: str) -> None:
        node = self.nodes[name]
        low = {k: w for k, w in node.windows.items() if w.is_low(self.time)}
        self.send(node, {limit: window.claim(self.time) for limit, window in low.items()})

    @rule(name=nodes)
    def recall(self, name: str) -> None:
        node = self.nodes[name]
        self.send(node, {limit: w.release(self.time) for limit, w in node.windows.items()})

    @rule(name=nodes)
    def give_up_waiting(self, name: str) -> None:
        for window in self.nodes[name].windows.values():
            window.lost(window._number)

    # --- the network ------------------------------------------------------------------

    @precondition(lambda self: self.claims)
    @rule(place=places, twice=st.booleans())
    def deliver_claims(self, place: int, twice: bool) -> None:
        at = place % len(self.claims)
        sent = self.claims[at] if twice else self.claims.pop(at)
        self.answer(sent)

    def answer(self, sent: Sent) -> None:
        grants = acquire(
            [(self.shared[limit], claim) for limit, claim in sent.claims], self.clock, len(NODES)
        )
        answers = zip((limit for limit, _ in sent.claims), grants, strict=True)
        self.grants.append(Answered(sent.node, tuple(answers)))
        self.note_sizes()

    @precondition(lambda self: self.grants)
    @rule(place=places, twice=st.booleans())
    def deliver_grants(self, place: int, twice: bool) -> None:
        at = place % len(self.grants)
        answered = self.grants[at] if twice else self.grants.pop(at)
        for limit, grant in answered.grants:
            answered.node.windows[limit].granted(grant)

    @precondition(lambda self: self.claims)
    @rule(place=places)
    def lose_claims(self, place: int) -> None:
        self.claims.pop(place % len(self.claims))

    @precondition(lambda self: self.grants)
    @rule(place=places)
    def lose_grants(self, place: int) -> None:
        self.grants.pop(place % len(self.grants))

    # --- faults -----------------------------------------------------------------------

    @rule(name=nodes, keeps_disk=st.booleans())
    def kill(self, name: str, keeps_disk: bool) -> None:
        node = self.nodes[name]
        self.nodes[name] = self.started(name)
        if keeps_disk:
            self.killed.append(node)
            self.send(node, node.journalled())
        else:
            self.gone.add(node.lease)

    @rule(seconds=st.sampled_from([0.1, 1, 5, 9, 15, 3600, 5 * 3600, 168 * 3600]))
    def wait(self, seconds: float) -> None:
        self.clock += round(seconds * 1000)
        self.time += round(seconds * 1000)

    @rule(seconds=st.sampled_from([-7200, -30, -1, 1, 30]))
    def step_clock(self, seconds: int) -> None:
        self.clock += seconds * 1000

    @rule(limit=st.sampled_from(LIMITS), size=st.integers(6, 24))
    def resize(self, limit: str, size: int) -> None:
        self.shared[limit].resize(size)
        self.note_sizes()

    def note_sizes(self) -> None:
        for limit, window in self.shared.items():
            key = (limit, window.epoch)
            self.largest[key] = max(self.largest.get(key, SIZES[limit]), window.size)

    # --- promises ---------------------------------------------------------------------

    @invariant()
    def no_window_is_overdrawn(self) -> None:
        for key, admitted in self.admitted.items():
            assert 0 <= admitted <= self.largest.get(key, SIZES[key[0]]), key

    @invariant()
    def leases_fit_into_their_window(self) -> None:
        for limit, window in self.shared.items():
            total = window.size - window.free
            assert total <= self.largest.get((limit, window.epoch), SIZES[limit])

    @invariant()
    def leases_cover_what_was_admitted(self) -> None:
        for limit, window in self.shared.items():
            assert self.admitted[limit, window.epoch] <= window.size - window.free

    @rule()
    def what_is_idle_comes_back(self) -> None:
        """Once nothing is lost any more, all is free that was not used."""
        while self.claims:
            self.answer(self.claims.pop(0))
        self.grants.clear()
        for node in self.killed:
            self.answer(Sent(node, tuple(node.journalled().items())))
        for name, node in self.nodes.items():
            self.slots_come_back(name)
            claims = {limit: window.release(self.time) for limit, window in node.windows.items()}
            self.answer(Sent(node, tuple(claims.items())))
        for answered in self.grants:
            for limit, grant in answered.grants:
                answered.node.windows[limit].granted(grant)
        self.grants.clear()
        for limit, window in self.shared.items():
            if self.gone & window.leases.keys() or not window.end:
                continue
            assert window.size - window.free == self.admitted[limit, window.epoch]


TestCluster = Cluster.TestCase
TestCluster.settings = settings(
    max_examples=max(75, settings().max_examples), stateful_step_count=80
)


def test_a_lease_of_a_silent_node_counts_as_used() -> None:
    shared = SharedWindow(40, 5 * HOUR)
    node = LeasedWindow("a/1", 40)
    [grant] = acquire([(shared, node.claim(0, need=1))], START, 2)
    node.granted(grant)
    assert node.take(1, 0)
    assert (shared.free, shared.used) == (40 - grant.ceiling, 0)
    shared.advance(START + LEASE_TIME + 2_000)
    assert shared.used == grant.ceiling
    node.granted(acquire([(shared, node.release(60_000))], START + 60_000, 2)[0])
    assert (shared.free, shared.used) == (39, 1)

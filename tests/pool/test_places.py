"""The bank of places: the cap holds, and no place is idle while a request waits."""

from collections import Counter, deque
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from relay.pool.places import PlaceBank

PLACE = "a http://upstream.invalid"
CALLERS = ("ann", "ben", "cem")


class Process:
    """A process that holds places; what it sends and gets is on its way for a while."""

    def __init__(self, bank: "PlaceBank[Process]") -> None:
        self.bank = bank
        self.places = self.in_flight = 0
        self.waiting: deque[str] = deque()
        self.wanted: Counter[str] = Counter()
        self.demanded = self.is_dead = False
        self.inbox: deque[Callable[[], None]] = deque()
        self.outbox: deque[Callable[[], None]] = deque()
        self.served: list[str] = []

    def ask(self, caller: str) -> None:
        self.waiting.append(caller)
        self.serve(())

    def serve(self, callers: tuple[str, ...]) -> None:
        for caller in callers:
            if caller in self.waiting:
                self.waiting.remove(caller)
                self.waiting.appendleft(caller)
        while self.waiting and self.in_flight < self.places:
            self.served.append(self.waiting.popleft())
            self.in_flight += 1
        wanted = Counter(self.waiting)
        if wanted != self.wanted:
            self.wanted = wanted
            self.send(lambda: self.bank.want(self, PLACE, wanted))

    def end(self) -> None:
        if self.in_flight:
            self.in_flight -= 1
            if self.demanded:
                self.give_back(reply=False)
            self.serve(())

    def give_back(self, *, reply: bool) -> None:
        idle = self.places - self.in_flight
        self.places -= idle
        if idle or reply:
            self.send(lambda: self.bank.give_back(self, PLACE, idle, reply=reply))

    def send(self, message: Callable[[], None]) -> None:
        self.outbox.append(message)

    def lent(self, callers: list[str], more: int) -> None:
        self.places += len(callers) + more
        self.wanted -= Counter(callers)
        self.serve(tuple(callers))
        if self.demanded:
            self.give_back(reply=False)

    def asked_back(self, *, on: bool) -> None:
        self.demanded = on
        if on:
            self.give_back(reply=True)


class Lending:
    """Leaves messages on their way."""

    def __init__(self) -> None:
        self.informed: Counter[Process] = Counter()

    def lend(self, to: Process, place: str, callers: list[str], more: int) -> None:
        to.inbox.append(lambda: to.lent(callers, more))

    def demand(self, of: Process, place: str, *, on: bool) -> None:
        of.inbox.append(lambda: of.asked_back(on=on))

    def none_free(self, to: Process, place: str) -> None:
        self.informed[to] += 1


def opened(cap: int, processes: int) -> tuple["PlaceBank[Process]", list[Process]]:
    bank: PlaceBank[Process] = PlaceBank(Lending())
    bank.configure({PLACE: cap})
    made = [Process(bank) for _ in range(processes)]
    for one in made:
        bank.join(one)
    return bank, made


def deliver_all(processes: list[Process]) -> None:
    while any(one.inbox or one.outbox for one in processes):
        for one in processes:
            for box in (one.inbox, one.outbox):
                if box:
                    box.popleft()()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "end", "get", "get", "send", "send", "die"]),
        st.integers(0, 3),
        st.sampled_from(CALLERS),
    ),
    max_size=120,
)


@given(st.integers(1, 7), st.integers(1, 4), STEPS)
def test_lent_places_never_exceed_the_cap(
    cap: int, number: int, steps: list[tuple[str, int, str]]
) -> None:
    bank, processes = opened(cap, number)
    for step, which, caller in steps:
        one = processes[which % len(processes)]
        if step == "ask":
            one.ask(caller)
        elif step == "end":
            one.end()
        elif step == "die" and len(processes) > 1:
            processes.remove(one)
            bank.leave(one)
        else:
            box = one.inbox if step == "get" else one.outbox
            if box:
                box.popleft()()
        assert sum(one.places for one in processes) <= sum(bank.held(PLACE).values()) <= cap
    deliver_all(processes)
    assert {one: one.places for one in processes if one.places} == bank.held(PLACE)
    if any(one.waiting for one in processes):
        assert sum(one.in_flight for one in processes) == cap
    while any(one.in_flight for one in processes):
        for one in processes:
            one.end()
        deliver_all(processes)
    assert not any(one.waiting for one in processes)


def test_callers_take_turns_wherever_their_requests_wait() -> None:
    _, (one, other) = opened(1, 2)
    one.ask("ann")
    deliver_all([one, other])
    for _ in range(4):
        one.ask("ann")
        other.ask("ann")
    other.ask("ben")
    other.ask("cem")
    deliver_all([one, other])
    order: list[str] = []
    one.served, other.served = [], []
    while one.in_flight or other.in_flight:
        (one if one.in_flight else other).end()
        deliver_all([one, other])
        order += one.served + other.served
        one.served, other.served = [], []
    assert order[:3] == ["ann", "ben", "cem"]
    assert order[3:] == ["ann"] * 7


def test_a_process_learns_that_no_place_is_free() -> None:
    bank, (one, other) = opened(2, 2)
    lending = bank._lending
    assert isinstance(lending, Lending)
    for _ in range(2):
        one.ask("ann")
    deliver_all([one, other])
    other.ask("ben")
    other.outbox.popleft()()
    assert lending.informed == {}  # the other process may have one
    deliver_all([one, other])
    assert lending.informed == {other: 1}


def test_an_unknown_upstream_has_no_place() -> None:
    bank, (one,) = opened(1, 1)
    bank.want(one, "elsewhere", {"ann": 1})
    bank.give_back(one, "elsewhere", 1, reply=True)
    bank.claim(one, "elsewhere", 1)
    assert bank.held("elsewhere") == {}
    assert isinstance(bank._lending, Lending)
    assert bank._lending.informed == {one: 1}


def test_a_smaller_cap_takes_back_what_is_idle() -> None:
    bank, (one, other) = opened(16, 2)
    one.ask("ann")
    deliver_all([one, other])
    assert one.places > 1
    bank.configure({PLACE: 1})
    deliver_all([one, other])
    assert (one.places, bank.held(PLACE)) == (1, {one: 1})
    bank.configure({})
    assert bank.held(PLACE) == {}

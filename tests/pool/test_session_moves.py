"""Which moves of conversations are sent, by a clock of the test's own."""

from relay.cluster.states import Move
from relay.pool.affinity import Binding, Bindings
from relay.pool.session_moves import SessionMoves

TTL = 300.0


class Machine:
    """The bindings of one machine. `woken`: how often there was something to send."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.woken = 0
        self.bindings = Bindings(TTL)
        self.moves = SessionMoves(self.bindings, self._wake, lambda: self.now)

    def _wake(self) -> None:
        self.woken += 1

    def hold(
        self, upstream: str, *, moved: bool | None = None, key: bytes = b"k", caller: str = "c"
    ) -> None:
        self.bindings.hold((caller, key), upstream, "anthropic", self.now, moved=moved)

    def find(self, key: bytes = b"k") -> Binding | None:
        binding = self.bindings.find("c", key, self.now)
        return binding if binding is not None and binding.until > self.now else None


def sent(one: Machine, other: Machine) -> list[Move]:
    """Carry what is to be sent from one machine to another."""
    moves = one.moves.take_moves()
    other.moves.take(moves)
    return moves


def all_sent(one: Machine) -> list[Move]:
    moves: list[Move] = []
    while more := one.moves.take_moves():
        moves += more
    return moves


def test_a_conversation_at_home_is_not_sent() -> None:
    one = Machine()
    one.hold("a", moved=False)
    one.hold("a")
    assert (one.woken, one.moves.take_moves()) == (0, [])


def test_a_move_is_followed_elsewhere() -> None:
    one, other = Machine(), Machine()
    one.hold("b", moved=True)
    [move] = sent(one, other)
    assert (move.upstream, move.moved, move.age) == ("b", True, 0)
    found = other.find()
    assert found is not None
    assert (found.upstream, found.since) == ("b", 1000.0)
    assert other.moves.take_moves() == []  # no echo


def test_a_move_back_is_followed_too() -> None:
    one, other = Machine(), Machine()
    one.hold("b", moved=True)
    sent(one, other)
    one.now = other.now = 1010.0
    other.hold("a", moved=False)
    sent(other, one)
    found = one.find()
    assert found is not None
    assert (found.upstream, found.moved) == ("a", False)
    one.hold("a")
    assert sent(one, other) == []


def test_a_long_conversation_is_sent_once_in_a_while() -> None:
    one, other, number = Machine(), Machine(), 0
    one.hold("b", moved=True)
    for second in range(3600):
        one.now = other.now = 1000.0 + second
        if second % 20 == 0:
            one.hold("b")
        number += len(sent(one, other))
        mine, theirs = one.find(), other.find()
        assert mine is not None
        assert theirs is not None
    assert number <= 3600 / (TTL / 2) + 1


def test_a_slow_conversation_is_known_until_its_end() -> None:
    one, other = Machine(), Machine()
    one.hold("b", moved=True)
    for _ in range(10):
        sent(one, other)
        one.now = other.now = one.now + TTL - 1
        assert other.find() is not None
        one.hold("b")


def test_the_later_of_two_machines_decides() -> None:
    one, other = Machine(), Machine()
    one.hold("b", moved=True)
    other.now = 1001.0
    other.hold("a", moved=False)  # at home, so it was not sent
    one.now = 1002.0
    other.now = 1002.0
    sent(one, other)
    found = other.find()
    assert found is not None
    assert found.upstream == "a"
    sent(other, one)
    found = one.find()
    assert found is not None
    assert found.upstream == "a"


def test_what_was_not_sent_is_sent_later() -> None:
    one, other = Machine(), Machine()
    one.hold("b", moved=True)
    moves = one.moves.take_moves()
    one.moves.put_back(moves)
    one.now = 1001.0
    one.hold("c", moved=True)
    [move] = sent(one, other)
    assert move.upstream == "c"


def test_moves_of_a_key_and_in_all_are_bounded() -> None:
    one = Machine()
    for number in range(700):
        one.hold("b", moved=True, key=b"%d" % number)
    assert len(one.moves.take_moves()) == 500
    assert one.moves.take_moves() == []
    for number in range(21_000):
        one.hold("b", moved=True, caller=f"key {number % 100}", key=b"%d" % number)
    assert 19_000 < len(all_sent(one)) <= 20_000
    one.now += 2 * TTL  # all of them are over
    for number in range(21_000):
        one.hold("b", moved=True, caller=f"later {number % 100}", key=b"%d" % number)
    for number in range(10):
        one.hold("b", moved=True, key=b"later %d" % number)
    moves = all_sent(one)
    assert 19_000 < len(moves) <= 20_000
    assert sum(move.caller == "c" for move in moves) == 10


def test_a_binding_that_is_over_is_not_sent() -> None:
    one = Machine()
    one.hold("b", moved=True)
    one.now += 2 * TTL
    assert one.moves.take_moves() == []


def foreign(number: int, *, left: int = 400_000, caller: str = "c") -> Move:
    return Move(caller, b"foreign %d" % number, "b", "anthropic", False, True, left, 5)


def test_a_move_that_ends_while_it_is_read_is_followed() -> None:
    bindings, now = Bindings(TTL), iter(range(1000))
    moves = SessionMoves(bindings, lambda: None, lambda: next(now))
    moves.take([foreign(1, left=1), foreign(2, left=60_000)])
    assert len(bindings) == 2


def test_moves_of_others_do_not_count_for_a_key() -> None:
    one = Machine()
    one.moves.take([foreign(number) for number in range(600)])
    one.hold("b", moved=True)
    [move] = one.moves.take_moves()
    assert move.key == b"k"


def test_a_move_that_others_made_too_counts_once() -> None:
    one = Machine()
    for number in range(500):
        one.hold("b", moved=True, key=b"%d" % number)
    moves = one.moves.take_moves()
    one.now += 1
    later = [move._replace(upstream="a", age=0) for move in moves]
    one.moves.take(later)
    for number in range(500, 1200):
        one.hold("b", moved=True, key=b"%d" % number)
    assert len(one.moves.take_moves()) == 500


def test_moves_of_others_push_out_none_of_this_machine() -> None:
    one = Machine()
    one.hold("b", moved=True)
    one.moves.take([foreign(number, caller=f"key {number % 100}") for number in range(21_000)])
    assert [move.key for move in one.moves.take_moves()] == [b"k"]
    one.hold("b")
    assert one.moves.take_moves() == []

"""Where a body ends: by its length or with the connection, at any split."""

from hypothesis import given
from hypothesis import strategies as st

from relay.wire.body import Sized, UntilClose

from .feeding import Read, Waits, body, octet_by_octet, split_at


@given(st.binary(max_size=60), st.integers(1, 60), st.lists(st.integers(0, 60), max_size=5))
def test_a_sized_body_ends_at_its_length_at_any_split(
    octets: bytes, length: int, cuts: list[int]
) -> None:
    for pieces in ([octets], split_at(octets, cuts), octet_by_octet(octets)):
        passed, result = body(lambda: Sized(length), pieces)
        assert passed == octets[:length]
        if len(octets) < length:
            assert isinstance(result, Waits)
        else:
            assert result == Read(passed, octets[length:])


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_a_body_until_close_never_ends_by_itself(octets: bytes, cuts: list[int]) -> None:
    passed, result = body(UntilClose, split_at(octets, cuts))
    assert passed == octets
    assert isinstance(result, Waits)


def test_a_body_of_no_octets_is_done_at_once() -> None:
    nothing = Sized(0)
    assert nothing.done
    assert nothing.rest == b""
    assert nothing.at_boundary()


def test_a_sized_body_passes_on_the_same_object() -> None:
    piece = b"x" * 1000
    sized = Sized(2000)
    assert sized.feed(piece) is piece
    assert sized.left == 1000
    assert sized.feed(piece) is piece
    assert sized.done


def test_a_sized_body_has_no_boundary_before_its_end() -> None:
    sized = Sized(3)
    assert not sized.at_boundary()
    sized.feed(b"ab")
    assert not sized.at_boundary()
    sized.feed(b"cd")
    assert sized.at_boundary()
    assert sized.rest == b"d"


def test_a_body_until_close_has_a_boundary_anywhere() -> None:
    until_close = UntilClose()
    until_close.feed(b"x")
    assert until_close.at_boundary()

"""The free text of a call comes through whole, however its arguments are cut and spelled."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.translate.free_text import FreeText
from tests.wire.feeding import split_at

CUTS = st.lists(st.integers(0, 400), max_size=8)


def inside(text: str, *, ascii_only: bool = True) -> bytes:
    """The inside of a JSON string."""
    return json.dumps(text, ensure_ascii=ascii_only).encode()[1:-1]


def passed(pieces: list[bytes]) -> str:
    """The text that came through, which must be the inside of a JSON string at every moment."""
    free = FreeText()
    shown = []
    for piece in pieces:
        shown.append(free.feed(piece))
        json.loads(b'"%b"' % shown[-1])
    text = json.loads(b'"%b"' % b"".join(shown))
    assert isinstance(text, str)
    return text


def arguments_cut(arguments: str, cuts: list[int], ascii_only: bool) -> list[bytes]:
    """Pieces of the arguments as an upstream streams them, each a valid inside of a string."""
    pieces = split_at(arguments.encode("utf-32-le"), [4 * cut for cut in cuts])
    return [inside(one.decode("utf-32-le"), ascii_only=ascii_only) for one in pieces]


@given(st.text(max_size=60), CUTS, st.booleans(), st.booleans())
def test_a_text_comes_through_at_any_cut(
    text: str, cuts: list[int], ascii_only: bool, escaped: bool
) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=escaped)
    assert passed(arguments_cut(arguments, cuts, ascii_only)) == text


@pytest.mark.parametrize("half", [chr(0xD83D), chr(0xDFFF)], ids=ascii)
def test_half_a_character_within_a_piece_ends_the_text(half: str) -> None:
    """No later piece can make a text of it."""
    free = FreeText()
    assert free.feed(inside('{"input":"before')) == b"before"
    assert free.feed(inside(half + "more")) == b""
    assert free.feed(inside('and more"}')) == b""


@given(st.text(), st.lists(st.text(st.sampled_from('\\"\n\r\x00\x1fuUdD8eqn/:é ')), max_size=6))
@example("", ["\n\nevent: response.completed\ndata: {}\n\n"])
@example("", ["\\", "d+"])
@example("", ["\\ud83d", "x"])
@example("", ["\\u12", "3z"])
def test_whatever_comes_the_pieces_are_insides_of_strings(first: str, pieces: list[str]) -> None:
    """A model may write arguments that are no JSON; its caller still gets events that are."""
    free = FreeText()
    for piece in ['{"input":"', first, *pieces]:
        shown = free.feed(inside(piece))
        json.loads(b'"%b"' % shown)


@pytest.mark.parametrize(
    "wrong", ["\n", "\r", "\x00", "\x1f", "\\d", "\\x41", "\\u12g4", "\\ud83dx"], ids=ascii
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_text_ends_where_its_arguments_are_no_json(wrong: str, size: int) -> None:
    arguments = '{"input":"before' + wrong + 'after"}'
    pieces = [inside(arguments[at : at + size]) for at in range(0, len(arguments), size)]
    assert passed(pieces) == "before"


@pytest.mark.parametrize(
    "arguments",
    ['{"other":"x"}', "[1]", '{"input":7}', '"text"', " " * 3000 + '{"input":"x"}'],
    ids=["other", "array", "number", "text", "far"],
)
@pytest.mark.parametrize("size", [1, 5, 1030])
def test_other_arguments_have_no_text(arguments: str, size: int) -> None:
    pieces = [inside(arguments[at : at + size]) for at in range(0, len(arguments), size)]
    free = FreeText()
    assert {free.feed(piece) for piece in pieces} == {b""}


@given(st.text(max_size=20), CUTS)
def test_nothing_after_the_text_is_part_of_it(text: str, cuts: list[int]) -> None:
    arguments = json.dumps({"input": text, "more": "later", "input2": "x"})
    assert passed(arguments_cut(arguments, cuts, True)) == text

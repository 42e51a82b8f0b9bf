"""Searches in long texts go piece by piece, and find the same as in one."""

import pytest

from relay.translate.raw_json import count, find, lower

PIECE = 1024 * 1024
WORD = b'"Word"'
BORDERS = [0, 1, PIECE - len(WORD), PIECE - 3, PIECE - 1, PIECE, 2 * PIECE - 2, 2 * PIECE + 9]


@pytest.mark.parametrize("at", BORDERS)
def test_a_word_at_any_border_is_found(at: int) -> None:
    text = b"x" * at + WORD + b"X" * (3 * PIECE - at)
    assert find(text, WORD) == text.find(WORD) == at
    assert count(text, WORD) == 1
    assert find(text, WORD, at + 1) == -1
    assert lower(text) == text.lower()


def test_short_texts_are_searched_at_once() -> None:
    text = b"x" + WORD
    assert (find(text, WORD), find(text, WORD, 2), count(text, WORD)) == (1, -1, 1)
    assert lower(text) == text.lower()

"""Bodies with halves of characters are mended, and nothing else in them changes."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.translate.halves import mended

PIECES = ("\\", "\\\\", "\\ud83d", "\\ude00", "\\uD83D", "\\uDE00", "ud83d", "\\u0041", "x", "\\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\ud83d", r"\ufffd"),
        (r"\ude00", r"\ufffd"),
        (r"\ud83d\ude00", r"\ud83d\ude00"),
        (r"\ud83d\ud83d\ude00", r"\ufffd\ud83d\ude00"),
        (r"\ude00\ud83d", r"\ufffd\ufffd"),
        (r"\\ud83d", r"\\ud83d"),
        (r"\\\ud83d", r"\\\ufffd"),
        # The first is text, so the second is half of nothing.
        (r"\\ud83d\ude00", r"\\ud83d\ufffd"),
        (r"\ud83d\\ude00", r"\ufffd\\ude00"),
        (r"\n\n\ude00", r"\n\n\ufffd"),  # at the sixth octet
    ],
)
def test_a_half_is_replaced_and_a_pair_is_kept(text: str, expected: str) -> None:
    assert mended(f'"{text}"'.encode()) == f'"{expected}"'.encode()


@pytest.mark.parametrize("before", [1024 * 1024 - n for n in range(14)])
def test_a_half_is_found_where_pieces_meet(before: int) -> None:
    for text, expected in ((r"\ud83d!", r"\ufffd!"), (r"\ud83d\ude00", r"\ud83d\ude00")):
        assert mended(b"a" * before + text.encode()) == b"a" * before + expected.encode()


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_mended_texts_are_read_as_python_reads_them(text: str) -> None:
    octets = f'"{text}"'.encode()
    try:
        read = json.loads(octets)
    except ValueError:
        return  # it is no JSON, mended or not
    # As ASCII, since a report of a failure has to be writable.
    assert ascii(json.loads(mended(octets))) == ascii(re.sub("[\ud800-\udfff]", "\ufffd", read))

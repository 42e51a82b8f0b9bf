"""Long texts are decoded and encoded in pieces, with the result of one step."""

import json
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.errors import RelayError
from relay.translate import pacing, raw_json
from relay.translate.raw_json import (
    count,
    decode_string,
    encode_string,
    find,
    has_text,
    lower,
    utf8,
)

PIECES = [
    *("a", "é", "日", "🌍", r"\n", r"\"", r"\\", r"\u00e9", r"\ud83c\udf0d", r"\\\\", r"\\n"),
    r"\\ud83c",
]


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_json, "_PIECE_OCTETS", 16)
        yield


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_a_long_text_is_decoded_in_pieces_as_at_once(content: str) -> None:
    octets = f'"{content}"'.encode()
    text = json.loads(octets)
    assert decode_string(octets, "x") == text
    assert utf8(msgspec.Raw(octets), "x") == text.encode()


@example("a" * 16)
@example("é" * 17 + "\n" * 16)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_a_long_text_is_encoded_in_pieces_as_at_once(text: str) -> None:
    assert encode_string(text) == msgspec.json.encode(text)


@given(st.text("ab", max_size=80), st.text("ab", min_size=1, max_size=4), st.integers(0, 90))
def test_a_word_is_found_in_a_long_text_as_at_once(text: str, word: str, start: int) -> None:
    octets, sought = text.encode(), word.encode()
    assert find(octets, sought, start) == octets.find(sought, start)
    assert count(octets, sought) >= octets.count(sought)


@pytest.mark.parametrize("word", [b"x", b"xy", b"xyzxyz", b"x" * 20], ids=len)
@pytest.mark.parametrize("length", [15, 16, 17, 32, 33, 48, 70])
def test_a_word_is_found_at_every_place_of_a_long_text(length: int, word: bytes) -> None:
    for at in range(length):
        text = (b"-" * at + word)[:length].ljust(length, b"-")
        for start in range(length + 1):
            assert find(text, word, start) == text.find(word, start)
        assert count(text, word) == text.count(word)


@given(st.binary(max_size=80))
def test_a_long_text_is_put_in_small_letters_as_at_once(octets: bytes) -> None:
    assert lower(octets) == octets.lower()
    letters = octets.replace(b" ", "É".encode()) + b"aBcXyZ" * 12
    assert lower(letters) == letters.lower()


@pytest.mark.parametrize("octets", [b'"%b\xff"', b"[%b]", b'"%b\\udf0d\\ud83c"', b'"%b\n"'])
def test_a_long_value_that_is_no_text_is_refused(octets: bytes) -> None:
    with pytest.raises(RelayError):
        decode_string(octets % (b"1" * 100), "x")


@pytest.mark.parametrize("octets", [b"5", b"[]", b"{}", b"true"])
def test_a_value_that_is_no_text_has_none(octets: bytes) -> None:
    with pytest.raises(RelayError, match="must be a text"):
        has_text(msgspec.Raw(octets), "x")


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100])
def test_parts_are_freed_in_slices_where_work_pauses(count: int) -> None:
    parts, kept = [*range(count)], [*range(count)]
    pauses: list[int] = []

    def work() -> None:
        pacing.free(parts)

    pacing.run(work, lambda: pauses.append(len(parts)))
    pacing.free(kept)
    assert (parts, len(kept)) == ([], count)

"""The elements of a JSON text are counted exactly, however it is cut, and bounded."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import RelayError
from relay.translate import elements
from relay.translate.elements import ElementCounter, check_elements, is_light

TEXTS = st.text(st.sampled_from('ab,[]{}":\\\n\u00e9\U0001f600')) | st.text()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)


def number_of_elements(value: Any) -> int:
    """By the definition: each container, and each comma between its values."""
    if not isinstance(value, list | dict):
        return 0
    inner = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(0, len(inner) - 1) + sum(number_of_elements(one) for one in inner)


def counted(octets: bytes, size: int) -> int:
    counter = ElementCounter()
    for start in range(0, len(octets), size):
        counter.feed(octets[start : start + size])
    return counter.elements


@given(VALUES, st.booleans(), st.sampled_from([(",", ":"), (", ", " : ")]))
def test_elements_are_those_of_the_document(value: Any, ascii: bool, marks: Any) -> None:
    octets = json.dumps(value, ensure_ascii=ascii, separators=marks).encode()
    wanted = number_of_elements(value)
    for size in (1, 2, 3, 7, len(octets)):
        assert counted(octets, size) == wanted


@given(st.binary(), st.integers(1, 5))
def test_any_octets_can_be_counted_in_any_pieces(octets: bytes, size: int) -> None:
    assert counted(octets, size) == counted(octets, max(1, len(octets)))


@pytest.mark.parametrize(
    ("octets", "fits"),
    [
        (b"[" + b"1," * (elements.MAX_ELEMENTS - 1) + b"1]", True),
        (b"[" + b"1," * elements.MAX_ELEMENTS + b"1]", False),
        (b"[" * elements.MAX_ELEMENTS, True),
        (b"{" * (elements.MAX_ELEMENTS + 1), False),
        (b'["' + b",[{" * elements.MAX_ELEMENTS + b'"]', True),
        (b'["' + b'\\",' * (elements.MAX_ELEMENTS + 1) + b'"]', True),
        (b'["\\\\"' + b"," * (elements.MAX_ELEMENTS + 1) + b"]", False),
        (b'"' + b"\\n" * elements.MAX_BACKSLASHES + b'"', True),
        (b'"' + b"\\n" * (elements.MAX_BACKSLASHES + 1) + b'"', False),
    ],
    ids=[
        "commas",
        "one comma too many",
        "arrays",
        "one object too many",
        "in a text",
        "after quotation marks",
        "after a backslash",
        "escapes",
        "one escape too many",
    ],
)
def test_a_body_with_too_many_elements_is_refused(octets: bytes, fits: bool) -> None:
    if fits:
        check_elements(octets)
        return
    with pytest.raises(RelayError) as refused:
        check_elements(octets)
    assert refused.value.kind.status == 413
    assert "more than" in refused.value.message


def test_only_a_body_with_few_elements_is_light() -> None:
    assert is_light(b'{"a":[1,2]}')
    assert not is_light(b"[" + b"1," * 8001 + b"1]")
    assert not is_light(b'"' + b"a" * (1 << 20) + b'"')

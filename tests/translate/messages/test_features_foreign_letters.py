"""Letters whose capital or small form is an ASCII letter hide no feature.

Go's encoding/json folds `ſ` and the Kelvin sign (Unicode, CaseFolding.txt, status C), Java's
String.equalsIgnoreCase also the two Turkish letters.
"""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.translate.messages.features import FEATURES, Features
from tests.translate.messages.test_features import BODY, IDS, UNBOUNDED, USED, encoded

FOREIGN = {"s": "\u017f", "k": "\u212a", "i": "\u0130\u0131"}
TURKISH = "Işığı söndür, İstanbul'da kış: ılık bir akşam \\ \n"
FRAKTUR = "daſs ein Schlüſſel 300 \u212a warm iſt \\ \n"


@st.composite
def foreign(draw: st.DrawFn, octets: bytes) -> bytes:
    """The same JSON with other capitals in its strings, as UTF-8 or as escapes."""
    text = octets.decode()
    written = []
    in_string = False
    every = draw(st.booleans())
    choose = draw(st.randoms(use_true_random=False))
    for letter in text:
        if letter == '"':
            in_string = not in_string
        one = letter
        if in_string and letter in FOREIGN and (every or choose.random() < 0.5):
            one = choose.choice(FOREIGN[letter])
            if choose.random() < 0.5:
                one = choose.choice(["\\u%04x", "\\u%04X"]) % ord(one)
        written.append(one)
    return "".join(written).encode()


def test_every_letter_that_some_parser_folds_is_known() -> None:
    letters = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    found = {
        one
        for one in map(chr, range(128, 0x110000))
        if one.upper() in letters or one.lower()[0] in letters
    }
    assert found == set("".join(FOREIGN.values()))


@pytest.mark.matrix(share=4)
@pytest.mark.parametrize(("feature", "_field", "more"), USED, ids=IDS)
@given(data=st.data())
def test_no_foreign_capitals_hide_a_feature(
    feature: str, _field: str, more: dict[str, Any], data: st.DataObject
) -> None:
    octets = data.draw(foreign(encoded(**more)))
    json.loads(octets)
    assert feature in Features(octets).used


@pytest.mark.matrix(share=4)
@pytest.mark.parametrize("more", UNBOUNDED, ids=lambda more: str(more)[:60])
@given(data=st.data())
def test_no_foreign_capitals_hide_content_of_unknown_length(
    more: dict[str, Any], data: st.DataObject
) -> None:
    assert Features(data.draw(foreign(encoded(**more)))).fills_context


@pytest.mark.parametrize("translated", [False, True])
@given(data=st.data())
def test_no_foreign_capitals_hide_a_search_of_a_translated_body(
    translated: bool, data: st.DataObject
) -> None:
    tools = encoded(tools=[{"type": "web_search_preview"}])
    assert "web_search" in Features(data.draw(foreign(tools)), translated=translated).used
    options = data.draw(foreign(encoded(web_search_options={})))
    assert "web_search" in Features(options, translated=True).used


@pytest.mark.parametrize(
    "octets",
    [
        '{"ſpeed":"fast"}',
        '{"SPEED":1,"ſpeed":"standard"}',
        '{"speed":"standard","ſpeed":"fast"}',
        '{"ſpeed":"fast","speed":"standard"}',
        r'{"\u017fpeed":"fast","speed":"standard"}',
        r'{"speed":"standard","\u017FPEED":"fast"}',
        r'{"a":"\\\\","\u017fpeed":"fast"}',
        r'{"a":"\\u017f","\u017fpeed":"fast"}',
        r'{"a":"\"","\u017fp\u0065ed":"fast"}',
    ],
)
def test_no_repetition_in_foreign_capitals_hides_a_feature(octets: str) -> None:
    assert "fast" in Features(octets.encode()).used


@pytest.mark.parametrize("text", [TURKISH, FRAKTUR], ids=["turkish", "fraktur"])
@pytest.mark.parametrize("plain_ascii", [True, False], ids=["escaped", "utf-8"])
@pytest.mark.parametrize("translated", [False, True])
def test_texts_in_foreign_letters_use_nothing(
    text: str, plain_ascii: bool, translated: bool
) -> None:
    """Python's json writes them as escapes."""
    document = {**BODY, "system": text * 20, "metadata": {text: text + '"speed":1'}}
    octets = json.dumps(document, ensure_ascii=plain_ascii).encode()
    found = Features(octets, translated=translated)
    assert (found.used, found.escaped, found.fills_context) == ({}, False, False)


@given(st.lists(st.sampled_from(["\\\\", '\\"', "\\n", "\\u017f", "\\u0131", "ſ", "a"])))
@example(["\\\\", "\\u017f"])
def test_escaped_backslashes_before_letters_break_no_body(pieces: list[str]) -> None:
    octets = '{{"model":"m","a":"{}"}}'.format("".join(pieces))
    json.loads(octets)
    found = Features(octets.encode()).used
    assert set(FEATURES).isdisjoint(found)

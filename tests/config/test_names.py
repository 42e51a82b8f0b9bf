"""The model that a requested name means: ids, aliases, patterns, the suffix [1m]."""

import re
import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import config
from relay.config.names import check_names

HOUSE: list[dict[str, object]] = [
    {"id": "claude-opus-4-8", "aliases": ["claude-opus-*", "opus", "*"]},
    {"id": "claude-sonnet-4-7", "aliases": ["claude-*", "claude-opus-4-1"]},
    {"id": "claude-haiku-4-5", "aliases": ["claude-haiku-*", "claude-opus-4-8-mini*"]},
    {"id": "MiniMax-M3[1m]"},
]


def models(*rows: dict[str, object]) -> list[config.ModelSettings]:
    return msgspec.convert(list(rows), list[config.ModelSettings])


@pytest.mark.parametrize(
    ("name", "entry", "model"),
    [
        ("claude-opus-4-8", "claude-opus-4-8", "claude-opus-4-8"),
        ("claude-opus-5-5", "claude-opus-*", "claude-opus-4-8"),
        ("claude-opus-", "claude-opus-*", "claude-opus-4-8"),
        ("claude-opus-4-8-mini-2", "claude-opus-4-8-mini*", "claude-haiku-4-5"),
        ("claude-opus-4-1", "claude-opus-4-1", "claude-sonnet-4-7"),  # an alias precedes a pattern
        ("claude-haiku-4-5", "claude-haiku-4-5", "claude-haiku-4-5"),
        ("claude-fable-5", "claude-*", "claude-sonnet-4-7"),
        ("gpt-5", "*", "claude-opus-4-8"),
        ("claude-opus-*", "claude-opus-*", "claude-opus-4-8"),  # a name like any other
        ("Claude-opus-5", "*", "claude-opus-4-8"),  # names have capitals or not
        ("opus[1m]", "opus", "claude-opus-4-8"),
        ("claude-opus-4-1[1M]", "claude-opus-4-1", "claude-sonnet-4-7"),
        ("claude-haiku-9[1m]", "claude-haiku-*", "claude-haiku-4-5"),
        ("MiniMax-M3[1m]", "MiniMax-M3[1m]", "MiniMax-M3[1m]"),  # its id has the suffix
        ("MiniMax-M3", "*", "claude-opus-4-8"),
        ("[1m]", "", ""),
        ("", "", ""),
        ("a b", "", ""),
        ('a"b', "", ""),
        ("ü", "", ""),
        ("claude-opus-\n", "", ""),
        ("claude-opus-" + "x" * 117, "", ""),  # longer than a name may be
    ],
)
def test_a_name_means_its_longest_match(name: str, entry: str, model: str) -> None:
    names = config.ModelNames(models(*HOUSE))
    assert (names.entry(name), names.model_id(name)) == (entry, model)


def test_without_a_catch_all_other_names_are_unknown() -> None:
    names = config.ModelNames(models({"id": "m", "aliases": ["house-*"]}))
    assert names.model_id("house-9") == "m"
    for name in ("hous", "m2", "m-", "xhouse-9", "house"):
        assert (names.entry(name), names.model_id(name)) == ("", "")


# Few letters, so that names and patterns meet often.
TEXTS = st.text("ab-[1mM]", min_size=1, max_size=5)
ALIASES = st.one_of(TEXTS, TEXTS.map(lambda text: text + "*"), st.just("*"))
ROWS = st.lists(st.tuples(TEXTS, st.lists(ALIASES, max_size=4)), max_size=4)
NAMES = st.one_of(
    TEXTS,
    st.builds(lambda text, end: text + end, TEXTS, st.sampled_from(["[1m]", "[1M]", "[1m][1m]"])),
    st.text(string.printable, max_size=6),
)


def reference(rows: list[config.ModelSettings], name: str) -> tuple[str, str]:
    """Try every id and alias in turn."""
    entries = [(entry, row.id) for row in rows for entry in (row.id, *row.aliases)]
    plain = re.sub(r"\[1m\]\Z", "", name, count=1, flags=re.IGNORECASE)
    for wanted in (name, plain):
        for entry, id in entries:
            if entry == wanted and not entry.endswith("*"):
                return entry, id
    if not re.fullmatch(r"[!-~]{1,128}", plain) or '"' in plain or "\\" in plain:
        return "", ""
    matching = [
        (entry, id)
        for entry, id in entries
        if entry.endswith("*") and re.match(re.escape(entry[:-1]), plain)
    ]
    return max(matching, key=lambda match: len(match[0]), default=("", ""))


@given(rows=ROWS, asked=st.lists(NAMES, max_size=8))
def test_any_name_means_what_trying_all_would_find(
    rows: list[tuple[str, list[str]]], asked: list[str]
) -> None:
    seen: set[str] = set()
    given: list[dict[str, object]] = []
    for id, aliases in rows:
        if id in seen:
            continue
        unique = [one for one in dict.fromkeys(aliases) if one not in seen and one != id]
        seen |= {id, *unique}
        given.append({"id": id, "aliases": unique})
    settings = models(*given)
    check_names(settings)
    names = config.ModelNames(settings)
    for name in (*asked, *seen):
        assert (names.entry(name), names.model_id(name)) == reference(settings, name)

"""Upstreams in a relay.toml: read, merged and written without touching anything else."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config import masked_upstream
from relay.transfer import TransferError
from relay.transfer.upstream_tables import MASK, as_toml, merged, read_tables, rewritten

A = {"name": "a", "base_url": "https://a.example", "api_key": "env:A"}
B = {"name": "b", "base_url": "https://b.example", "api_key": "secret-b", "weight": 2}
FILE = """# Settings of the house.
[server]
public_url = "https://relay.example"  # where people reach it

# The first one.
[[upstream]]
name = "a"  # ours
base_url = "https://a.example"
api_key = "env:A"
# weight = 1

# The second one.
[[upstream]]
name = "b"
base_url = "https://b.example"
api_key = "secret-b"
weight = 2   # twice as much
limits = [
  { requests = 600, per = "5h" },
]

[upstream.headers]
x-team = "red"

# Models follow.
[[model]]
id = "claude-sonnet-4-7"
"""
LIMITS = [{"requests": 600, "per": "5h"}]
IN_FILE: list[dict[str, Any]] = [A, {**B, "limits": LIMITS, "headers": {"x-team": "red"}}]


def lines_of(text: str) -> set[str]:
    return set(text.splitlines())


def test_the_same_tables_change_nothing() -> None:
    assert rewritten(FILE, IN_FILE) == FILE


def test_a_value_changes_in_its_line_alone() -> None:
    new = [A, {**IN_FILE[1], "weight": 5}]
    result = rewritten(FILE, new)
    assert lines_of(result) ^ lines_of(FILE) == {
        "weight = 2   # twice as much", "weight = 5  # twice as much",
    }  # fmt: skip


def test_settings_are_added_and_removed() -> None:
    b = {name: value for name, value in IN_FILE[1].items() if name != "limits"}
    result = rewritten(FILE, [{**A, "priority": 1}, {**b, "egress": "http://proxy:3128"}])
    assert tomllib.loads(result)["upstream"] == [
        {**A, "priority": 1}, {**b, "egress": "http://proxy:3128"},
    ]  # fmt: skip
    for line in ('name = "a"  # ours', "# weight = 1", "# The second one.", "[upstream.headers]"):
        assert line in result
    assert "requests" not in result


def test_new_upstreams_follow_the_last_one() -> None:
    new: dict[str, Any] = {**A, "name": "c", "headers": {"a b": '"'}}
    result = rewritten(FILE, [*IN_FILE, new])
    assert tomllib.loads(result)["upstream"][2] == new
    assert lines_of(FILE) <= lines_of(result)
    assert result.index('name = "c"') < result.index("# Models follow.")


def test_an_upstream_goes_with_its_comments() -> None:
    result = rewritten(FILE, [IN_FILE[1]])
    assert "ours" not in result
    assert "# weight = 1" not in result
    assert "# The second one." in result
    assert tomllib.loads(result)["upstream"] == [IN_FILE[1]]


def test_a_table_below_is_replaced_with_its_block() -> None:
    new = {**IN_FILE[1], "headers": {"x-team": "blue"}}
    result = rewritten(FILE, [A, new])
    assert tomllib.loads(result)["upstream"] == [A, new]
    assert "# Models follow." in result


@pytest.mark.parametrize("space", ["\x85", "\u2028", "\x7f", "\t"])
def test_a_value_may_hold_any_character(space: str) -> None:
    new = {**A, "headers": {f"x{space}y": f"a{space}b"}}
    assert tomllib.loads(rewritten(rewritten(FILE, [new]), [new, B]))["upstream"] == [new, B]


@pytest.mark.parametrize("before", ["", "[server]\n", FILE.replace("\n", "\r\n")])
def test_any_file_takes_upstreams(before: str) -> None:
    result = rewritten(before, [A])
    tree = tomllib.loads(before)
    assert tomllib.loads(result) == {**tree, "upstream": [A]}


@pytest.mark.parametrize(
    "before",
    [
        'upstream = [{ name = "a", base_url = "https://a.example", api_key = "env:A" }]\n',
        '[server]\nnote = """\n[[upstream]]\n"""\n[[upstream]]\nname = "a"\n',
    ],
)
def test_what_is_written_unusually_is_left_alone(before: str) -> None:
    with pytest.raises(TransferError, match="by hand"):
        rewritten(before, [B])


def test_the_shipped_file_keeps_its_text() -> None:
    before = (Path(__file__).parents[2] / "relay.toml").read_text()
    present = tomllib.loads(before)["upstream"]
    result = rewritten(before, [*present, B])
    assert lines_of(before) <= lines_of(result)
    assert rewritten(result, present).split() == before.split()


_NAMES = st.text("abcxyz-", min_size=1, max_size=8)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
_TABLES = st.dictionaries(_NAMES, st.dictionaries(_NAMES, _VALUES, max_size=4), max_size=4).map(
    lambda found: [{**values, "name": name} for name, values in found.items()]
)


@given(_TABLES, _TABLES)
def test_the_new_text_has_the_new_tables(before: list[Any], after: list[Any]) -> None:
    text = "# Top.\n[server]\nx = 1\n\n" + as_toml(before) + "\n# Last.\n[[model]]\nid = 'm'\n"
    order = {one["name"]: place for place, one in enumerate(before)}
    after = sorted(after, key=lambda one: order.get(one["name"], len(order)))
    result = rewritten(text, after)
    tree = tomllib.loads(result)
    assert tree.pop("upstream", []) == after
    assert tree == {"server": {"x": 1}, "model": [{"id": "m"}]}
    assert {"# Top.", "# Last."} <= lines_of(result)


# --- reading ---


@pytest.mark.parametrize(
    "text",
    [
        as_toml([A]),
        "\n# a comment\n" + as_toml([A]),
        '[{"name": "a", "base_url": "https://a.example", "api_key": "env:A"}]',
        json.dumps({"upstream": [{**A, "ca": None}]}),
    ],
)  # fmt: skip
def test_json_and_toml_are_read(text: str) -> None:
    assert read_tables(text) == [A]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no list"), ("x", "neither"), ("[1]", "no list"), ("[]", "no list"), ("{", "neither"),
        ('[{"base_url": "x"}]', "has no name"), ('[{"name": "a"}, {"name": "a"}]', "twice"),
        ("[server]\nlisten = []\n", "'server'"), ('{"upstream": {"name": "a"}}', "no list"),
        ("[" * 5000, "neither"),
    ],
)  # fmt: skip
def test_any_other_text_is_refused(text: str, words: str) -> None:
    with pytest.raises(TransferError, match=words):
        read_tables(text)


# --- secrets ---


def test_what_was_taken_out_changes_nothing_when_put_in() -> None:
    fields = {"x-key": "k", "x-a": "1"}
    present: list[dict[str, Any]] = [
        A, {**B, "egress": "http://me:pw@proxy:3128", "headers": fields},
    ]  # fmt: skip
    out = read_tables(as_toml([masked_upstream(one) for one in present]))
    assert out[1]["api_key"] == MASK
    assert "pw" not in str(out)
    assert out[1]["headers"] == {"x-key": MASK, "x-a": "1"}
    assert merged(present, out, masked_upstream, only=True) == present


def test_a_missing_secret_is_named() -> None:
    with pytest.raises(TransferError, match=r"upstream new\.api_key"):
        merged([A, B], [{**B, "name": "new", "api_key": MASK}], masked_upstream, only=False)
    with pytest.raises(TransferError, match=r"upstream a\.api_key"):
        merged([A, B], [{**A, "api_key": MASK}], masked_upstream, only=False)


def test_others_stay_unless_only_these_are_wanted() -> None:
    new = {**A, "weight": 3}
    assert merged([A, B], [new], masked_upstream, only=False) == [new, B]
    assert merged([A, B], [new], masked_upstream, only=True) == [new]

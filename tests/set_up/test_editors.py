"""The editors of setup.sh change one place of a file, and their edits back undo it."""

import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import relay

FOLDER = Path(relay.__file__).parent / "web" / "set_up"
AWKS = [
    [path, *rest]
    for name, *rest in (["awk"], ["mawk"], ["gawk"], ["original-awk"], ["busybox", "awk"])
    if (path := shutil.which(name))
]
BODY = '[model_providers.relay]\nbase_url = "u"\n\n[model_providers.relay.auth]\nargs = ["x"]'


class Edited(NamedTuple):
    text: str
    back: list[list[str]]


class RefusedError(Exception):
    """The editor left the file alone."""


def edit(
    kind: str, text: str, operation: str, place: str, value: str = "", awk: list[str] = AWKS[0]
) -> Edited:
    """Change a text by an editor; `value` has \n between its lines."""
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [*awk, "-f", str(FOLDER / f"edit_{kind}.awk")],
            input=text.encode(),
            capture_output=True,
            pass_fds=[writing],
            env={
                "LC_ALL": "C", "OP": operation, "AT": place, "VALUE": value.replace("\n", "\x1e"),
                "BACK": f"/dev/fd/{writing}",
            },
        )  # fmt: skip
    finally:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            back = pipe.read().decode()
    if done.returncode == 3:
        raise RefusedError(done.stderr.decode().strip())
    assert (done.returncode, done.stderr) == (0, b"")
    return Edited(done.stdout.decode(), [line.split("\t", 2) for line in back.split("\n")[:-1]])


def taken_back(kind: str, edited: Edited) -> str:
    text = edited.text
    for operation, place, value in edited.back:
        text = edit(kind, text, operation, place, value.replace("\x1e", "\n")).text
    return text


# --- JSON ---

NAMES = st.sampled_from("abcd")
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=8),
    st.sampled_from(['a"b', "\\", "// no comment", "x,}", "é中"]),
)  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=4)
FORMS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "indent": st.sampled_from([None, 1, 2, 4, "\t"]),
        "ensure_ascii": st.booleans(),
        "separators": st.sampled_from([None, (",", ":")]),
    }
)
PLACES = st.lists(NAMES, min_size=1, max_size=3)


def owner_of(document: Any, place: list[str], *, make: bool) -> Any:
    """The object that has or gets the member; None: the place cannot be."""
    for name in place[:-1]:
        if not isinstance(document, dict) or not (make or name in document):
            return None
        document = document.setdefault(name, {})
    return document if isinstance(document, dict) else None


def is_element(one: object, value: object) -> bool:
    return type(one) is type(value) and one == value


@given(DOCUMENTS, FORMS, PLACES, st.sampled_from(["set", "del", "add", "drop"]), LEAVES)
def test_one_place_of_json_changes_and_nothing_else(
    document: dict[str, Any], form: dict[str, Any], place: list[str], operation: str, value: Any
) -> None:
    text = json.dumps(document, **form) + "\n"
    expected = json.loads(text)
    owner = owner_of(expected, place, make=operation in ("set", "add"))
    name = place[-1]
    refused = owner is None and operation in ("set", "add")
    if owner is not None and operation == "set":
        owner[name] = value
    elif owner is not None and operation == "del":
        owner.pop(name, None)
    elif owner is not None and (name in owner or operation == "add"):
        found = owner.setdefault(name, [])
        refused = not isinstance(found, list)
        if not refused and operation == "drop":
            found[:] = [one for one in found if not is_element(one, value)]
        elif not refused and not any(is_element(one, value) for one in found):
            found.append(value)
    arguments = (operation, "/".join(place), json.dumps(value, ensure_ascii=form["ensure_ascii"]))
    if refused:
        with pytest.raises(RefusedError):
            edit("json", text, *arguments)
        return
    edited = edit("json", text, *arguments)
    assert json.loads(edited.text) == expected
    assert edit("json", edited.text, *arguments) == (edited.text, [])
    assert json.loads(taken_back("json", edited)) == document
    if operation == "set":
        assert taken_back("json", edited) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{\n  // mine\n  "a": 1\n}', "a comment in line 2"),
        ('{ "a": 1, /* mine */ "b": 2 }', "a comment in line 1"),
        ('{ "a": 1, }', "a comma before a closing brace"),
        ('{ "a": [1, ] }', "a comma before a closing bracket"),
        ('\ufeff{ "a": 1 }', "a byte order mark at its beginning"),
        ('{ "a": 1 } x', "something that is not JSON in line 1"),
        ('{ "a": 1 } {}', "something after its end"),
        ('{ "a": 1', "a comma is missing"),
        ("{ 'a': 1 }", "something that is not JSON in line 1"),
        ('{ "a": "b\n" }', "a text that does not end, in line 1"),
        ("[1]", "no object at its top"),
        ('{ "env": 1 }', "the member env is no object"),
        ('{ "env": {}, "env": {} }', "the name env twice"),
        ('{ "\\u0065nv": {} }', "a name with \\u in it"),
    ],
)
@pytest.mark.parametrize("awk", AWKS, ids=[Path(awk[0]).name for awk in AWKS])
def test_json_that_it_would_spoil_is_refused(awk: list[str], text: str, reason: str) -> None:
    with pytest.raises(RefusedError) as refused:
        edit("json", text, "set", "env/A", '"x"', awk)
    assert str(refused.value) == reason


@pytest.mark.parametrize("awk", AWKS, ids=[Path(awk[0]).name for awk in AWKS])
def test_new_members_look_like_their_neighbours(awk: list[str]) -> None:
    text = '{\r\n    "a": {"x": 1},\r\n    "c": "é"\r\n}\r\n'
    new = edit("json", text, "set", "env/A", '{\n  "b": 1\n}', awk)
    added = '    "env": {\r\n      "A": {\r\n        "b": 1\r\n      }\r\n    }\r\n}\r\n'
    assert new.text == text[:-5].rstrip() + ",\r\n" + added
    assert new.back == [["del", "env/A", ""], ["prune", "env", ""]]
    assert edit("json", "", "set", "a", "1", awk).text == '{\n  "a": 1\n}\n'
    assert edit("json", '{"a":{}}', "set", "a/b", "1", awk).text == '{"a":{"b": 1}}\n'


def test_a_large_document_takes_no_time_to_speak_of() -> None:
    document = {"projects": {f"/p/{n}": {"history": ["x" * 200] * 5} for n in range(2000)}}
    for indent in (None, 2):
        text = json.dumps(document, indent=indent)
        edited = edit("json", text, "set", "hasCompletedOnboarding", "true")
        assert json.loads(edited.text) == {**document, "hasCompletedOnboarding": True}


# --- TOML ---

KEYS = st.sampled_from(
    ['model = "old"', "model='old' # mine", 'other = 1', 'list = [\n  "[x]",\n  "model = 1",\n]',
     'text = """\n[model_providers.relay]\nmodel = 2\n"""', "# model = 3", "", "a.b = 1"]
)  # fmt: skip
TABLES = st.sampled_from(
    ["[tools]\nmodel = 1", "[[list]]\nx = 1", '[model_providers.other]\nname = "o"',
     '[model_providers.relay]\nname = "r"\n', '[ model_providers . "relay" . auth ]\nx = 1',
     "[model_providers.relayed]\nx = 1", "# about tools\n[more]", "[p.'/a [b]']\nx = '''\n[y]\n'''"]
)  # fmt: skip


def parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


@given(st.lists(KEYS, max_size=4), st.lists(TABLES, max_size=4), st.booleans(), st.booleans())
def test_a_key_of_toml_changes_and_nothing_else(
    keys: list[str], tables: list[str], crlf: bool, removes: bool
) -> None:
    text = "\n".join([*keys, *tables, ""])
    before = parsed(text)
    if before is None:
        return
    text = text.replace("\n", "\r\n") if crlf else text
    arguments = ("del", "model") if removes else ("set", "model", '"new"')
    edited = edit("toml", text, *arguments)
    expected = {name: value for name, value in before.items() if name != "model"}
    if not removes:
        expected["model"] = "new"
    after = parsed(edited.text)
    assert after == expected
    assert edit("toml", edited.text, *arguments) == (edited.text, [])
    assert parsed(taken_back("toml", edited)) == before


@given(st.lists(KEYS, max_size=3), st.lists(TABLES, max_size=5), st.booleans())
def test_a_table_of_toml_is_replaced_and_nothing_else(
    keys: list[str], tables: list[str], removes: bool
) -> None:
    text = "\n".join([*keys, *tables, ""])
    before = parsed(text)
    if before is None:
        return
    place = "[model_providers.relay]"
    arguments = ("del", place) if removes else ("set", place, BODY)
    edited = edit("toml", text, *arguments)
    after, expected = parsed(edited.text), parsed(text)
    assert after is not None
    assert expected is not None
    expected.setdefault("model_providers", {}).pop("relay", None)
    if not removes:
        expected["model_providers"]["relay"] = tomllib.loads(BODY)["model_providers"]["relay"]
    after.setdefault("model_providers", {})
    assert after == expected
    assert edit("toml", edited.text, *arguments) == (edited.text, [])
    assert parsed(taken_back("toml", edited)) == before
    assert text.count("# about tools") == edited.text.count("# about tools")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model_providers = { relay = {} }\n", "the key model_providers in line 1"),
        ("model_providers.relay.name = 'x'\n", "the key model_providers.relay.name in line 1"),
        ("[model_providers]\nrelay = { name = 'x' }\n", "the key relay in line 2"),
        ("[[model_providers.relay]]\n", "[[model_providers.relay]]"),
        ('a = """\n', "something that does not end"),
        ("\ufeffa = 1\n", "a byte order mark at its beginning"),
    ],
)
@pytest.mark.parametrize("awk", AWKS, ids=[Path(awk[0]).name for awk in AWKS])
def test_toml_that_it_would_spoil_is_refused(awk: list[str], text: str, reason: str) -> None:
    with pytest.raises(RefusedError) as refused:
        edit("toml", text, "set", "[model_providers.relay]", BODY, awk)
    assert str(refused.value) == reason


# --- YAML and variables ---

MAPPINGS = st.sampled_from(
    ["model:\n  default: old # mine\n  other: [1]\n", "model: {}\n", "model:\n", "other: 1\n",
     "providers:\n    relay:\n        name: r\n        list:\n        - 1\n    x:\n        y: 1\n",
     "# model: 1\n", "list:\n- model: 2\n- relay: 3\n", "text: |\n  model:\n    relay: 1\n", "\n",
     "model:\n  # which\n  provider: 'x'\n\n  deep:\n    default: 4\n"]
)  # fmt: skip


@given(
    st.lists(MAPPINGS, max_size=4, unique=True),
    st.sampled_from(["model/default", "providers/relay"]),
    st.sampled_from(["new", "\n  name: Relay\n  api: x"]),
    st.booleans(),
)
def test_a_member_of_yaml_changes_and_nothing_else(
    parts: list[str], place: str, value: str, removes: bool
) -> None:
    text = "".join(parts)
    if sum(part.startswith("model:") for part in parts) > 1:
        return
    before = yaml.safe_load(text) or {}
    arguments = ("del", place) if removes else ("set", place, value)
    edited = edit("yaml", text, *arguments)
    expected = yaml.safe_load(text) or {}
    top, name = place.split("/")
    if not removes:
        expected[top] = {**(expected.get(top) or {}), name: yaml.safe_load(value)}
    elif expected.get(top):
        expected[top].pop(name, None)
    assert empty_as_none(yaml.safe_load(edited.text) or {}) == empty_as_none(expected)
    assert edit("yaml", edited.text, *arguments) == (edited.text, [])
    assert empty_as_none(yaml.safe_load(taken_back("yaml", edited)) or {}) == empty_as_none(before)
    if not removes:
        assert text.count("#") - edited.text.count("#") <= ("# mine" in text)


def empty_as_none(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value or None for name, value in document.items()}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model: gpt\n", "model in line 1 is no mapping of several lines"),
        ("model: {a: 1}\n", "model in line 1 is no mapping of several lines"),
        ("model:\n- a\n", "model is a list"),
        ("model:\n  a: 1\nmodel:\n  b: 1\n", "the name model twice"),
        ("model:\n\ta: 1\n", "a tab in line 2"),
        ("{model: {}}\n", "line 1"),
        ("a: 1\n---\nb: 1\n", "line 2"),
    ],
)
@pytest.mark.parametrize("awk", AWKS, ids=[Path(awk[0]).name for awk in AWKS])
def test_yaml_that_it_would_spoil_is_refused(awk: list[str], text: str, reason: str) -> None:
    with pytest.raises(RefusedError) as refused:
        edit("yaml", text, "set", "model/default", "x", awk)
    assert str(refused.value) == reason


@pytest.mark.parametrize("text", ["", "A=1\n", "export KEY=old\nA=1\n", "# KEY=1\nKEYS=2\r\n"])
def test_a_variable_changes_and_nothing_else(text: str) -> None:
    edited = edit("env", text, "set", "KEY", "new")
    lines = edited.text.splitlines()
    assert [line for line in lines if "KEY=" not in line or "#" in line] == [
        line for line in text.splitlines() if "KEY=" not in line or "#" in line
    ]
    assert "KEY=new" in lines
    assert edit("env", edited.text, "set", "KEY", "new") == (edited.text, [])
    assert taken_back("env", edited).replace("KEY=old", "export KEY=old") == text

"""A body is read without its tree, and only its model's name is replaced."""

import json
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import RelayError
from relay.translate.messages.peek import around_model, peek, with_model

DECIDING = ("model", "stream", "max_tokens", "messages")
SPACE = st.sampled_from(["", "", " ", "\n", "\t ", "\r\n  "])
NAMES = st.sampled_from(["claude-sonnet-4-7", "m", 'a"b', "a\\b", "ü🌍", "~0000", "model", "a/b:c"])
TEXTS = st.one_of(
    st.sampled_from(
        [
            "model",
            '"model"',
            '"model":"x"',
            '\\"model\\"',
            "~0000",
            '{"model": "y"}',
            "ü🌍",
            "\n",
            "",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
KEYS = st.one_of(
    st.sampled_from(["a", "models", "mode", "x-model", "message", "", 'x"model', "~", "é"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
).filter(lambda key: key.casefold() not in DECIDING and not key.startswith("~"))
STYLES = st.booleans()


@st.composite
def literals(draw: st.DrawFn, value: st.SearchStrategy[str] = TEXTS) -> str:
    return json.dumps(draw(value), ensure_ascii=draw(STYLES))


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    """An object of JSON text, whose keys may well be "model"."""
    members = draw(
        st.dictionaries(
            st.one_of(st.sampled_from(["model", "Model", "messages"]), KEYS), values, max_size=4
        )
    )
    inner = ",".join(
        draw(SPACE)
        + json.dumps(key, ensure_ascii=draw(STYLES))
        + f"{draw(SPACE)}:{draw(SPACE)}{value}"
        for key, value in members.items()
    )
    return "{" + inner + draw(SPACE) + "}"


@st.composite
def arrays(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    return "[" + ",".join(draw(SPACE) + one for one in draw(st.lists(values, max_size=3))) + "]"


VALUES = st.recursive(
    st.one_of(literals(), st.sampled_from(["null", "true", "-1.5e3", "0"])),
    lambda inner: st.one_of(objects(inner), arrays(inner)),
    max_leaves=8,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, str, str]:
    """(what comes before the model's value, the value, what comes after, the model)."""
    before = draw(st.dictionaries(KEYS, VALUES, max_size=3))
    after = draw(st.dictionaries(KEYS, VALUES, max_size=3))
    model = draw(NAMES)

    def members(of: dict[str, str]) -> list[str]:
        return [
            f"{draw(SPACE)}{json.dumps(key, ensure_ascii=draw(STYLES))}:{draw(SPACE)}{value}"
            for key, value in of.items()
        ]

    front = draw(SPACE) + "{" + "".join(one + "," for one in members(before))
    front += f'{draw(SPACE)}"model"{draw(SPACE)}:{draw(SPACE)}'
    back = draw(SPACE) + "".join("," + one for one in members(after)) + draw(SPACE) + "}"
    return front, json.dumps(model, ensure_ascii=draw(STYLES)), back + draw(SPACE), model


@given(requests(), NAMES)
def test_a_mapped_name_replaces_the_old_one_and_nothing_else(
    parts: tuple[str, str, str, str], name: str
) -> None:
    front, value, back, model = parts
    body = (front + value + back).encode()
    json.loads(body)  # what the test made is JSON
    assert peek(body).model == model
    mapped = with_model(body, name)
    assert mapped == front.encode() + msgspec.json.encode(name) + back.encode()
    assert peek(mapped).model == name
    assert b"".join(around_model(body, name)) == mapped


@pytest.mark.parametrize(
    "before",
    [
        "",
        '"max_tokens":1,"temperature":-1.5e3,"stream":true,"a":"\\"}{[,","x":null,',
        '"messages":[{"role":"user","content":"{\\"model\\":\\"b\\"},"}],',
        '"system":"s","tools":[{"model":"b"}],"messages":[],',
        '"system":["a"],"system":["b"],',
        '"metadata":{"model":"b"},',
        '"a":[{"model":"b"}],"messages":[1],',
    ],
)
def test_a_name_is_replaced_behind_any_other_members(before: str) -> None:
    body = f'{{{before}"model":"a","b":[2]}}'.encode()
    assert peek(body).model == "a"
    expected = f'{{{before}"model":"c","b":[2]}}'.encode()
    assert b"".join(around_model(body, "c")) == with_model(body, "c") == expected


def test_what_follows_a_replaced_name_is_not_copied() -> None:
    body = b'{"max_tokens":1,"messages":["%b"],"model":"a","z":"%b"}' % (b"x" * 999, b"y" * 999)
    beginning, rest = around_model(body, "b")
    assert rest.obj is body
    assert beginning.endswith(b'"model":"b"')


@pytest.mark.parametrize(
    "body",
    [
        '{"model":"a","model":"b"}',
        '{"model":"a","x":1,"model":"a"}',
        r'{"mod\u0065l":"a"}',
        r'{"model":"a","mod\u0065l":"b"}',
        r'{"\u006dodel":"b","model":"a"}',
        '{"model":["a"],"model":"b"}',
    ],
)
def test_a_body_with_two_possible_models_is_refused(body: str) -> None:
    with pytest.raises(RelayError) as refused:
        with_model(body.encode(), "mapped")
    assert refused.value.kind.status == 400
    assert refused.value.param == "model"
    assert "once" in refused.value.message


def test_a_key_that_is_not_utf_8_is_refused_for_a_mapped_name() -> None:
    assert peek(b'{"\xff":1,"model":"a"}').model == "a"
    body = b'{"\xff":1,"model":"a","b":{"model":"a"}}'
    for read in (peek, lambda body: with_model(body, "b")):
        with pytest.raises(RelayError) as refused:
            read(body)
        assert refused.value.kind.status == 400


def test_a_model_among_thousands_of_nested_ones_is_found() -> None:
    nested = ",".join(f'{{"model":"{number}"}}' for number in range(2000))
    body = f'{{"a":[{nested}],"model":"x","b":[{nested}]}}'.encode()
    assert with_model(body, "y") == body.replace(b'"model":"x"', b'"model":"y"')


def test_a_body_with_more_models_than_that_is_refused() -> None:
    nested = ",".join('{"model":"n"}' for _ in range(4096))
    with pytest.raises(RelayError, match="once"):
        with_model(f'{{"a":[{nested}],"model":"x"}}'.encode(), "y")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "is empty"),
        (b"{", "not valid JSON"),
        (b'{"model":"a"', "not valid JSON"),
        (b'{"model":"a"}x', "not valid JSON"),
        (b"{'model':'a'}", "not valid JSON"),
        (b'{"model":"\xff"}', "not valid JSON"),
        (b'{"model":NaN}', "not valid JSON"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'[{"model":"a"}]', "must be a JSON object"),
        (b'"model"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"{}", "model: Field required"),
        (b'{"model":null}', "model: Field required"),
        (b'{"model":""}', "model: Input should be"),
        (b'{"model":7}', "model: Input should be"),
        (b'{"model":["a"]}', "model: Input should be"),
    ],
)
def test_a_body_without_a_model_is_refused_with_the_fault(body: bytes, text: str) -> None:
    with pytest.raises(RelayError) as refused:
        peek(body)
    assert refused.value.kind.status == 400
    assert text in refused.value.message


def test_only_the_model_of_a_body_is_checked() -> None:
    summary = peek(b'{"model":"a","stream":"yes","max_tokens":-1,"messages":7,"unheard_of":{}}')
    assert (summary.model, summary.stream, summary.max_tokens) == ("a", "yes", -1)


@pytest.mark.parametrize(
    ("thread", "expected"),
    [
        ('{"type":"continue"}', b'{"type":"continue"}'),
        ("null", b""),
        ('{"type":"%s"}' % ("x" * 5000), b"{}"),
    ],
    ids=["short", "null", "long"],
)
def test_a_thread_keeps_no_body_in_memory(thread: str, expected: bytes) -> None:
    body = b'{"model":"m","thread":%b,"messages":"%b"}' % (thread.encode(), b"a" * 100)
    before = sys.getrefcount(body)
    summary = peek(body)
    assert bytes(summary.thread) == expected
    assert sys.getrefcount(body) == before

"""A body that two JSON parsers could read as two requests is refused; any other passes."""

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.errors import RelayError
from relay.translate.messages.peek import peek
from relay.translate.messages.second_reading import not_json_error
from tests.fakes.memory import peak_octets

NAMES = st.sampled_from(["model", "stream", "max_tokens", "messages", "thread"])
VALUES = {"model": "a", "stream": False, "max_tokens": 5, "messages": [], "thread": {}}
FOLDED = {"s": "sS\u017f", "k": "kK\u212a"}
LONG = "word " * 60
MIB = 1024 * 1024


def refused(body: bytes) -> RelayError | None:
    try:
        peek(body)
    except RelayError as error:
        return error if error.kind.status == 400 else None
    return None


@st.composite
def spellings(draw: st.DrawFn, name: str) -> str:
    """A JSON string that some parser reads as `name`."""
    written = ""
    for letter in name:
        one = draw(st.sampled_from(FOLDED.get(letter, letter + letter.upper())))
        escaped = draw(st.integers(0, 3)) == 0
        code = f"{ord(one):04x}"
        written += "\\u" + (code.upper() if draw(st.booleans()) else code) if escaped else one
    return f'"{written}"'


@st.composite
def ambiguous(draw: st.DrawFn) -> tuple[str, bytes]:
    """A name, and a body in which it is given twice or in another spelling."""
    name = draw(NAMES)
    other = draw(spellings(name))
    members = [f'"{one}":{json.dumps(value)}' for one, value in VALUES.items()]
    if other != f'"{name}"' and name != "model" and draw(st.booleans()):
        members = [one for one in members if not one.startswith(f'"{name}"')]
    members.append(f"{other}{draw(st.sampled_from(['', ' ', chr(10)]))}:{json.dumps(VALUES[name])}")
    if draw(st.booleans()):
        members.append(f'"system":{json.dumps(draw(st.sampled_from(["x", LONG])))}')
    members = draw(st.permutations(members))
    return name, ("{" + ",".join(members) + "}").encode()


@given(ambiguous())
@example(("model", b'{"model":"not-served-here","model":"claude-haiku-4-5"}'))
@example(("model", rb'{"mod\u0065l":"a"}'))
@example(("thread", b'{"model":"a","thread":{"type":"continue"},"thread":{"type":"create"}}'))
@example(("thread", b'{"model":"a","Thread":{"type":"continue"}}'))
@example(("messages", b'{"model":"a","messages":["%b"],"messages":[]}' % (b"x" * 1000)))
@example(("stream", b'{"model":"a","x":"%b","stream":true,"STREAM":1}' % (b"x" * 100_000)))
def test_an_ambiguous_body_is_refused_with_the_field(case: tuple[str, bytes]) -> None:
    name, body = case
    error = refused(body)
    assert error is not None
    assert error.param == name
    assert error.message.startswith(f"{name}: ")


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A JSON string of any kind, often one that names a deciding field."""
    name = draw(NAMES)
    spelled = draw(spellings(name))
    plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    return draw(st.sampled_from([spelled, json.dumps(draw(plain)), json.dumps(spelled)]))


@given(texts(), texts(), texts(), st.booleans())
def test_content_may_have_the_names_in_any_spelling(
    text: str, key: str, other: str, long: bool
) -> None:
    filler = json.dumps(LONG * (300 if long else 1))
    body = (
        f'{{"model":"a","metadata":{{{key}:{text}}},"max_tokens":5,"stream":true,"x":{text},'
        f'"messages":[{{"role":"user","content":{other}}},{{{key}:{filler}}}],'
        f'"tools":[{{"input_schema":{{{key}:1,"model":2,"Stream":3}}}}]}}'
    )
    assert refused(body.encode()) is None


@pytest.mark.parametrize("value", ["[]", '{"a":1}', '"yes"', "1e3", "-1", "null", "1" * 40])
def test_odd_values_are_the_upstreams_concern(value: str) -> None:
    assert refused(f'{{"model":"a","stream":{value},"max_tokens":{value}}}'.encode()) is None


def test_a_body_with_thousands_of_members_at_its_top_is_refused() -> None:
    members = ",".join(f'"{number}":1' for number in range(100_000))
    error = refused(f'{{"model":"a",{members}}}'.encode())
    assert error is not None
    assert "256 members" in error.message


def many(one: bytes, count: int) -> bytes:
    return b",".join([one] * count)


BODIES: dict[str, Callable[[], bytes]] = {
    "members of a block": lambda: (
        b'{"model":"m","system":[{%b}],"messages":[]}'
        % b",".join(b'"%d":1' % number for number in range(2_000_000))
    ),
    "empty blocks": lambda: b'{"model":"m","system":[%b],"messages":[]}' % many(b"{}", 8_000_000),
    "members of the model": lambda: b'{"model":{%b}}' % many(b'"a":1', 2_000_000),
    "elements of max_tokens": lambda: b'{"model":"m","max_tokens":[%b]}' % many(b"1", 4_000_000),
    "a long model": lambda: '{{"model":"{}\U0001f600"}}'.format("m" * 8 * MIB).encode(),
    "members at the top": lambda: b'{"model":"m",%b}' % many(b'"a":1', 2_000_000),
    "a second model": lambda: (
        b'{"model":"m","system":"%b","tools":[{"model":1}]}' % (b"x" * 20 * MIB)
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_looking_at_a_body_takes_little_memory(name: str) -> None:
    body = BODIES[name]()
    assert peak_octets(lambda: refused(body)) <= len(body) + 4 * MIB


SHIFTED = b'":1,' + b" " * 600 + b'"'


@pytest.mark.parametrize(
    "body",
    [
        b'{"x%bmodel":"dear","model":"cheap","messages":[],"system":%b}' % (SHIFTED, SHIFTED),
        b'{"model":"m","messages":[],"x%bmax_tokens":64000,"max_tokens":1,"system":%b}'
        % (SHIFTED, SHIFTED),
    ],
    ids=["model", "max_tokens"],
)
def test_a_long_value_hides_no_second_reading(body: bytes) -> None:
    """Its octets stand twice: as keys, and as the text that holds them."""
    with pytest.raises(RelayError, match="give it once"):
        peek(body)


def test_escapes_beside_a_long_conversation_are_refused_unread() -> None:
    """To undo them one by one would take long; no JSON writer escapes letters."""
    long = f'"x":"{"word " * 20_000}"'
    for text, is_refused in [("\\u0073", True), ("\\u017f", True), ("\\u00e9", False)]:
        error = refused(f'{{"model":"a",{long},"y":"{text}"}}'.encode())
        assert (error is not None) is is_refused
        assert error is None or "without escapes" in error.message
    inside = f'{{"model":"a","messages":[{{"content":"\\u0073 {"word " * 20_000}"}}]}}'
    assert refused(inside.encode()) is None


@pytest.mark.parametrize(
    "members",
    [
        b'"stream":{},"model":"\xff"',
        b'"max_tokens":[],"model":"a","stream":"\xff"',
    ],
)
def test_an_odd_body_with_an_unreadable_value_is_refused(members: bytes) -> None:
    error = refused(b"{%b}" % members)
    assert error is not None
    assert "not valid JSON" in error.message


def test_half_a_surrogate_pair_is_named() -> None:
    for body in (rb'{"model":"m","x":"\ud83d"}', b'{"model":"m"'):
        with pytest.raises(msgspec.DecodeError) as caught:
            msgspec.json.decode(body)
        assert "half of a surrogate pair" in not_json_error(caught.value).message

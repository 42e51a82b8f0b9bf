"""A body is read or refused at every depth, wherever in the relay it is read.

Python counts the levels of a document and of the calls around it together, so one that `peek` has
read may be a level too deep for the next reader.
"""

from collections.abc import Callable
from typing import Any

import pytest

from relay.errors import RelayError
from relay.translate.messages.conversation_key import conversation_key
from relay.translate.messages.features import FEATURES, Features
from relay.translate.messages.peek import peek, with_model
from relay.translate.messages.usage import message_usage

DEPTHS = range(850, 1010)
MEMBERS = {
    "plain": b'"model":"a",',
    "a second model": b'"model":"a","x":"model","z":["model"],',
    "escaped": b'"model":"a","stre\\u0061mer":1,',
    "long": b'"model":"a","x":"%b",' % (b"x" * 70_000),
    "odd": b'"max_tokens":[],"model":"a",',
}


def nested(members: bytes, depth: int) -> bytes:
    return b'{%b"y":%b%b}' % (members, b"[" * depth, b"]" * depth)


def called(levels: int, work: Callable[[], Any]) -> Any:
    """Call it from this many functions."""
    return work() if levels == 0 else called(levels - 1, work)


def outcome(levels: int, work: Callable[[], object]) -> str:
    try:
        called(levels, work)
    except RelayError as error:
        return f"{error.kind.status}: {error.message}"
    return "read"


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("levels", [0, 7])
def test_a_body_is_read_or_refused_at_every_depth(name: str, levels: int) -> None:
    found = set()
    for depth in DEPTHS:
        body = nested(MEMBERS[name], depth)
        first = outcome(0, lambda: peek(body))  # noqa: B023 - called at once
        found.add(first)
        if first == "read":
            found.add(outcome(levels, lambda: with_model(body, "b")))  # noqa: B023
            called(levels, lambda: conversation_key({}, body))  # noqa: B023
    assert found == {"read", "400: The request body is not valid JSON: nested too deeply."}


def test_a_body_that_is_nested_too_deeply_uses_everything() -> None:
    used = {frozenset(Features(nested(b"", depth)).used) for depth in DEPTHS}
    assert used == {frozenset(), frozenset(FEATURES)}
    assert {bool(Features(nested(b"", depth), translated=True).used) for depth in DEPTHS} == {False}


def test_an_answer_of_any_depth_has_its_usage_or_none() -> None:
    members = b'"usage":{"input_tokens":5},'
    found = {message_usage(nested(members, depth)).input for depth in DEPTHS}
    assert found == {5, None}
    half = {message_usage(nested(b'"x":"\\ud83d",' + members, depth)).input for depth in DEPTHS}
    assert half <= {5, None}

"""Names and ids that the API accepts, the same in every turn, whatever their length."""

import re
import time

import pytest

from relay.translate.request.conversation import Conversation
from relay.translate.request.tool_names import function_name, plain_name

NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


@pytest.mark.parametrize("text", ["a", "a.b", "é" * 128, "a" * 128, "a" * 129, "a" * 128 + "é", ""])
def test_a_name_is_legal_and_stable(text: str) -> None:
    assert NAME.fullmatch(function_name(text))
    assert function_name(text) == function_name(text)


def test_long_names_that_begin_alike_differ() -> None:
    assert function_name("a" * 200) != function_name("a" * 201)
    assert plain_name("é" * 2000, 1024) != plain_name("è" * 2000, 1024)
    assert plain_name("a" * 1024, 1024) == "a" * 1024


def test_an_id_of_any_length_is_one_that_the_api_accepts() -> None:
    conversation = Conversation()
    blocks = [
        conversation.add_call(call_id, "f", b"{}")
        for call_id in ("é" * 5000, "é" * 5000, "é" * 5001)
    ]
    ids = [
        re.match(rb'{"type":"tool_use","id":"([a-zA-Z0-9_-]{1,1030})"', one.octets[0])
        for one in blocks
    ]
    assert len({found[1] for found in ids if found is not None}) == 3


@pytest.mark.alone
def test_a_huge_name_takes_little_time() -> None:
    name = "é" * 15_000_000
    began = time.process_time()
    function_name(name)
    assert time.process_time() - began < 0.4  # one substitution of all of it takes a second

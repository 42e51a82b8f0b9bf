"""Reading and writing take time in proportion to a request, however its parts are combined.

Each shape grows in two dimensions at once: doubling both may cost little more than the double. A
product of the two would cost four times as much.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from relay.config import Capabilities
from relay.errors import RelayError
from relay.translate.chat import request as chat
from relay.translate.free_text import FreeText
from relay.translate.messages.conversation_key import conversation_key
from relay.translate.messages.peek import peek, with_model
from relay.translate.messages.thinking_filter import without_thinking
from relay.translate.request.builder import TargetModel
from relay.translate.responses import request as responses
from relay.translate.responses.seal import Seal

FAMILIES = ("anthropic", "glm")
SEAL = Seal(b"k" * 32, "account")
GROWTH = 2.5
RUNS = 3
SAID = {"role": "user", "content": "x"}
KIB = 1024

Work = Callable[[], object]


def octets(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def read_chat(messages: list[Any], **more: Any) -> Work:
    body = octets({"model": "m", "messages": messages, **more})
    return lambda: write(chat.read(body).builder, body)


def read_responses(items: list[Any], before: list[Any] | None = None, **more: Any) -> Work:
    body = octets({"model": "m", "input": items, **more})
    kept = [msgspec.Raw(octets(item)) for item in before or []]
    return lambda: write(responses.read(body, SEAL, before=kept).builder, body)


def write(builder: Any, body: bytes) -> None:
    conversation_key({}, body)
    for family in FAMILIES:
        target = TargetModel("m", 1000, family, Capabilities())
        builder.octets(target, breakpoints=True, user=None)


def read_messages(**members: Any) -> Work:
    body = octets({"model": "m", "max_tokens": 1, **members})

    def work() -> None:
        peek(body)
        conversation_key({}, body)
        with_model(without_thinking(body), "n")

    return work


def thinking(details: list[Any], content: Any = "y") -> Work:
    answer = {"role": "assistant", "content": content, "reasoning_details": details}
    return read_chat([SAID, answer, SAID])


def place(characters: int) -> dict[str, Any]:
    return {
        "type": "reasoning.text",
        "id": f"thinking-{characters}-0",
        "format": "anthropic-claude-v1",
        "text": "b",
        "signature": "s",
    }


def calls(number: int, length: int) -> Work:
    call = {"id": "c" * length, "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "c" * length, "content": "x"}
    answer = {"role": "assistant", "tool_calls": [call] * number}
    return read_chat([SAID, answer, *[result] * number])


def dropped_turns(number: int, parts: int) -> Work:
    """Turns without blocks for one family: the user's turns around them become one."""
    asked = {"role": "user", "content": [{"type": "text", "text": "a"}] * parts}
    detail = {"type": "reasoning.text", "text": "b", "format": "other-v1"}
    answer = {"role": "assistant", "content": None, "reasoning_details": [detail]}
    return read_chat([asked, answer] * number + [SAID])


def late_outputs(number: int, more: int) -> Work:
    """Outputs of earlier calls, while many other calls wait for theirs."""
    first = [
        {"type": "function_call", "call_id": f"a{n}", "name": "f", "arguments": "{}"}
        for n in range(number)
    ]
    second = [
        {"type": "function_call", "call_id": f"b{n}", "name": "f", "arguments": "{}"}
        for n in range(more)
    ]
    outputs = [
        {"type": "function_call_output", "call_id": f"a{n}", "output": "x"} for n in range(number)
    ]
    return read_responses([SAID, *first, SAID, *second, *outputs])


def namespace(number: int, length: int) -> Work:
    tool = {"type": "function", "name": "f"}
    described = {"type": "namespace", "name": "n", "description": "d" * length}
    known = {"type": "namespace", "name": "n", "tools": [tool]}
    return read_responses([SAID], tools=[known, {**described, "tools": [tool] * number}])


def free_text(number: int, length: int) -> Work:
    piece = b"\\ude00" + b"a" * length + b"\\ud83d"

    def work() -> None:
        text = FreeText()
        text.feed(b'{\\"input\\":\\"\\ud83d')
        for _ in range(number):
            text.feed(piece)

    return work


SHAPES: dict[str, Callable[[int], Work]] = {
    "pieces of thinking beside a text": lambda n: thinking(
        [{"type": "reasoning.text", "index": 0, "text": "A" * n * 64 * KIB}]
        + [{"type": "reasoning.text", "index": 0, "text": "b"}] * n * 500
    ),
    "places in a text": lambda n: thinking(
        [place(number) for number in range(n * 60)], "é" * n * 256 * KIB
    ),
    "places among parts": lambda n: thinking(
        [place(number) for number in range(n * 30)], [{"type": "text", "text": "ab"}] * n * 3000
    ),
    "calls with one id": lambda n: calls(n * 1500, n * 10),
    "turns that become one": lambda n: dropped_turns(n * 300, 2 * n),
    "outputs beside open calls": lambda n: late_outputs(n * 700, n * 700),
    "equal tools of a namespace": lambda n: namespace(n * 700, n * 64 * KIB),
    "instructions late": lambda n: read_chat(
        [SAID, {"role": "system", "content": "a" * n * 10}] * n * 1000
    ),
    "tools": lambda n: read_chat(
        [SAID],
        tools=[
            {"type": "function", "function": {"name": f"f{m}", "description": "d" * n * 10}}
            for m in range(n * 2000)
        ],
    ),
    "parts of Responses": lambda n: read_responses(
        [{"role": "user", "content": [{"type": "input_text", "text": "a" * n}] * n * 300}] * 10
    ),
    "members of system": lambda n: read_messages(
        system=[{f"{m:0{8 * n}}": 1 for m in range(n * 3000)}] * 3, messages=[SAID]
    ),
    "thinking of Messages": lambda n: read_messages(
        messages=[
            SAID,
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "t" * n * 8}, {}]},
        ]
        * n
        * 700
    ),
    "models": lambda n: read_messages(z=["model"] * n * 400, messages=[SAID] * n * 2000),
    "pieces that end within a character": lambda n: free_text(n * 1500, n * 100),
}
# Octets grow with both dimensions: the double of each is four times as many.
AREAS = {
    "calls with one id",
    "turns that become one",
    "instructions late",
    "tools",
    "parts of Responses",
    "members of system",
    "thinking of Messages",
    "pieces that end within a character",
}


def seconds(*works: Work) -> list[float]:
    """The least CPU time of each, in turns, so that a slow moment of the machine meets all."""
    best = [1e9] * len(works)
    for _ in range(RUNS):
        for number, work in enumerate(works):
            before = time.process_time()
            work()
            best[number] = min(best[number], time.process_time() - before)
    return best


@pytest.mark.alone
@pytest.mark.parametrize("name", SHAPES)
def test_the_double_of_both_costs_little_more_than_the_double(name: str) -> None:
    shape = SHAPES[name]
    size = 1
    while seconds(shape(size))[0] < 0.005 and size < 4:
        size *= 2
    one, double = seconds(shape(size), shape(size * 2))
    # Where the octets themselves grow by four, so may the time, but not with their square.
    bound = GROWTH * 2 if name in AREAS else GROWTH
    assert double <= bound * one + 0.005, (size, one, double)


def test_a_message_has_at_most_256_thinking_blocks() -> None:
    thinking([place(0)] * 256)()
    pieces = [{"type": "reasoning.text", "index": 0, "text": "b"}] * 5000
    thinking(pieces)()  # one entry, as a client keeps the pieces of a stream
    with pytest.raises(RelayError) as refused:
        thinking([place(0)] * 257)()
    assert refused.value.kind.status == 400
    assert refused.value.param == "messages[1].reasoning_details"


def test_a_kept_item_can_be_referred_to_once() -> None:
    kept = {"type": "message", "id": "msg_1", "role": "user", "content": "a" * 100}
    reference = {"type": "item_reference", "id": "msg_1"}
    read_responses([reference], [kept])()
    with pytest.raises(RelayError) as refused:
        read_responses([reference, reference], [kept])()
    assert refused.value.param == "input[1]"

"""Reading and writing take time in proportion to a request, however its parts are combined.

Each shape grows in two dimensions at once: doubling both may cost little more than the double. A
product of the two would cost four times as much.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from relay.config import Capabilities
from relay.errors import RelayError
from relay.translate.chat import request as chat
from relay.translate.chat.answer import translate
from relay.translate.chat.render import AnswerMetadata
from relay.translate.free_text import FreeText, StreamedText
from relay.translate.halves import mended
from relay.translate.messages.conversation_key import conversation_key
from relay.translate.messages.peek import peek, with_model
from relay.translate.messages.thinking_filter import without_thinking
from relay.translate.request.builder import TargetModel
from relay.translate.request.tool_names import CallerTool
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


def read_references(number: int, length: int) -> Work:
    """References to kept items, among other items that look like some."""
    said = {"type": "message", "role": "user", "content": "a" * length}
    kept = {f"msg_{n}": msgspec.Raw(octets({**said, "id": f"msg_{n}"})) for n in range(number)}
    other = {"type": "message", "role": "user", "name": "item_reference", "content": "x"}
    items = [part for id in kept for part in ({"type": "item_reference", "id": id}, other)]
    body = octets({"model": "m", "input": items})

    def work() -> None:
        assert len(responses.referenced_items(body)) == number
        write(responses.read(body, SEAL, kept=kept).builder, body)

    return work


def read_mended(text: str, number: int) -> Work:
    """A body that is read only after it was mended."""
    body = octets({"model": "m", "messages": [{**SAID, "content": "HALF"}] * number})
    body = body.replace(b"HALF", text.encode())

    def work() -> None:
        summary = peek(body)
        assert summary.mended
        write(chat.read(summary.mended).builder, summary.mended)

    return work


def results_among_parts(number: int, length: int) -> Work:
    """Calls and their results as parts of messages, as the Messages API has them."""
    ids = [f"c{n}" for n in range(number)]
    uses = [{"type": "tool_use", "id": id, "name": "f", "input": {}} for id in ids]
    results = [
        {"type": "tool_result", "tool_use_id": id, "content": "r" * length} for id in reversed(ids)
    ]
    orphans = [{**one, "tool_use_id": "o" + one["tool_use_id"]} for one in results]
    answer = {"role": "assistant", "content": uses}
    return read_chat([SAID, answer, {"role": "user", "content": [*results, *orphans]}])


def old_functions(number: int, length: int) -> Work:
    """`functions`, `function_call` and messages of role function."""
    functions = [{"name": f"f{n}", "description": "d" * length} for n in range(number)]
    turns: list[Any] = [SAID]
    for function in functions:
        turns.append({"role": "assistant", "function_call": {"name": function["name"]}})
        turns.append({"role": "function", "name": function["name"], "content": "x"})
    return read_chat(turns, functions=functions, function_call="auto")


def custom_tools(number: int, length: int) -> Work:
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "g" * length}}
    names = [f"{n}.{'t' * length}" for n in range(number)]
    tools = [{"type": "custom", "custom": {"name": one, "format": grammar}} for one in names]
    chosen = [{"type": "custom", "custom": {"name": name}} for name in names]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": chosen}}
    return read_chat([SAID], tools=tools, tool_choice=choice)


def parts_of_mcp(number: int, length: int) -> Work:
    resource = {"type": "resource", "resource": {"uri": "file:///a", "text": "t" * length}}
    link = {"type": "resource_link", "name": "n", "uri": "u" * length}
    return read_chat([{"role": "user", "content": [resource, link] * number}])


def streamed_text(number: int, length: int, end: str = "") -> Work:
    """A custom tool's text that comes in pieces, and its rest."""
    pieces = [
        b'"{\\"input\\":\\""',
        *[b'"%b"' % (b"a" * length)] * number,
        b'"%b\\"}"' % end.encode(),
    ]

    def work() -> None:
        text = StreamedText()
        for piece in pieces:
            text.feed(piece)
        text.finish()
        assert len(text.text) >= number * length

    return work


def answered_calls(number: int, length: int) -> Work:
    """An answer whose calls have one id, of custom tools."""
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {"input": "a" * length}}
    document = {"type": "message", "role": "assistant", "content": [block] * number}
    payload = octets({**document, "id": "msg_1", "stop_reason": "tool_use"})
    metadata = AnswerMetadata("chatcmpl-1", 1, "m", "anthropic", {"f": CallerTool("custom", "f")})
    return lambda: translate(payload, metadata)


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
    "a run of backslashes": lambda n: partial(mended, b"\\" * n * 256 * KIB + b"ud83d"),
    "runs before halves": lambda n: partial(mended, (b"\\" * n * 20 + rb"\ud83d") * n * 2000),
    "pairs and halves": lambda n: partial(mended, rb"\ud83d\ude00\ude00" * n * 4000),
    "messages that are mended": lambda n: read_mended("\\ud83d" * n * 10, n * 500),
    "arguments that are mended": lambda n: read_chat(
        [
            SAID,
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "c", "function": {"arguments": '{"a":"%s"}' % ("\\ud83d" * n * 10)}}
                ]
                * n
                * 300,
            },
        ]
    ),
    "results among parts": lambda n: results_among_parts(n * 700, n * 10),
    "references": lambda n: read_references(n * 700, n * 10),
    "custom tools": lambda n: custom_tools(n * 500, n * 100),
    "functions": lambda n: old_functions(n * 700, n * 10),
    "parts of MCP": lambda n: parts_of_mcp(n * 700, n * 10),
    "a text of parts": lambda n: read_responses(
        [
            SAID,
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": json.dumps([{"type": "input_text", "text": "a" * n * 10}] * n * 2000),
            },
        ]
    ),
    "pieces of a custom tool's text": lambda n: streamed_text(n * 2000, n * 10),
    "a custom tool's text that ends in a half": lambda n: streamed_text(
        n * 2000, n * 10, "\\\\ud83d"
    ),
    "calls of an answer": lambda n: answered_calls(n * 1000, n * 10),
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
    "runs before halves",
    "messages that are mended",
    "arguments that are mended",
    "results among parts",
    "references",
    "custom tools",
    "functions",
    "parts of MCP",
    "a text of parts",
    "pieces of a custom tool's text",
    "a custom tool's text that ends in a half",
    "calls of an answer",
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

"""Section C: halves of characters, which models write and editors send."""

import json
from typing import Any

import pytest

from tests.fakes import answers
from tests.fakes.live import RelayWith
from tests.fakes.upstream import UpstreamWith
from tests.reports.asking import (
    HI,
    SONNET,
    Answered,
    desk,
    message,
    respond_with,
    tool_stream,
    tool_use,
)

HALF = "caf\\ud83d "
DIALECTS = ("messages", "chat", "responses")


def _bodies(dialect: str, text: str) -> bytes:
    """A request whose user says `text`, which is written into a JSON string as it is."""
    if dialect == "responses":
        return f'{{"model":"{SONNET}","input":"{text}"}}'.encode()
    turn = f'[{{"role":"user","content":"{text}"}}]'
    return f'{{"model":"{SONNET}","max_tokens":64,"messages":{turn}}}'.encode()


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_c01_half_a_character_in_an_answer(
    relay_with: RelayWith, upstream_with: UpstreamWith, dialect: str
) -> None:
    document = json.dumps(message({"type": "text", "text": "HERE"})).replace("HERE", HALF)
    it = await desk(relay_with, upstream_with, respond_with(document.encode()))
    answer = await it.ask(dialect, _bodies(dialect, "Hi"))
    assert answer.status == 200, answer.payload
    assert b"caf" in answer.payload
    assert it.b.requests == []
    if dialect == "messages":
        assert HALF.encode() in answer.payload


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_c01_half_a_character_in_a_stream(
    relay_with: RelayWith, upstream_with: UpstreamWith, dialect: str
) -> None:
    events = [event.replace(b"HERE", HALF.encode()) for event in answers.stream(["a", "HERE"])]
    it = await desk(relay_with, upstream_with, answers.chunked(events))
    body: Any = json.loads(_bodies(dialect, "Hi"))
    answer = await it.ask(dialect, {**body, "stream": True})
    assert answer.status == 200, answer.payload
    assert b"caf" in answer.payload
    assert b"error" not in answer.payload.replace(b'"error":null', b"")
    assert it.b.requests == []


@pytest.mark.parametrize("text", ["a\\ud83db", "a\\ude00b", "\\ud83d", "x\\uD83D\\uD83Dy"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_c03_half_a_character_in_a_request(
    relay_with: RelayWith, upstream_with: UpstreamWith, dialect: str, text: str
) -> None:
    it = await desk(relay_with, upstream_with)
    answer = await it.ask(dialect, _bodies(dialect, text))
    assert answer.status == 200, answer.payload
    if dialect == "messages":
        assert it.a.requests[-1].body == _bodies(dialect, text)


@pytest.mark.parametrize("dialect", ["messages", "chat"])
async def test_c03_half_a_character_in_a_call(
    relay_with: RelayWith, upstream_with: UpstreamWith, dialect: str
) -> None:
    """In the arguments that a model wrote, which come back in the history."""
    it = await desk(relay_with, upstream_with)
    if dialect == "messages":
        call = f'{{"type":"tool_use","id":"t","name":"f","input":{{"q":"{HALF}"}}}}'
        result = '{"type":"tool_result","tool_use_id":"t","content":"x"}'
        turns = f'{{"role":"assistant","content":[{call}]}},{{"role":"user","content":[{result}]}}'
    else:
        function = '{"name":"f","arguments":"{\\"q\\":\\"caf\\\\ud83d\\"}"}'
        call = f'{{"id":"t","type":"function","function":{function}}}'
        turns = (
            f'{{"role":"assistant","tool_calls":[{call}]}},'
            '{"role":"tool","tool_call_id":"t","content":"x"}'
        )
    first = '{"role":"user","content":"Hi"}'
    body = f'{{"model":"{SONNET}","max_tokens":64,"messages":[{first},{turns}]}}'
    answer = await it.ask(dialect, body.encode())
    assert answer.status == 200, answer.payload


@pytest.mark.parametrize("dialect", ["chat", "responses"])
async def test_c07_a_byte_order_mark_is_skipped(
    relay_with: RelayWith, upstream_with: UpstreamWith, dialect: str
) -> None:
    it = await desk(relay_with, upstream_with)
    answer = await it.ask(dialect, b"\xef\xbb\xbf" + _bodies(dialect, "Hi"))
    assert answer.status == 200, answer.payload


@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["chat", "responses"])
async def test_half_a_character_in_free_text_is_mended(
    relay_with: RelayWith, upstream_with: UpstreamWith, dialect: str, stream: bool, half: str
) -> None:
    """In the text of a custom tool, which a model wrote."""
    arguments = {"input": "caf HALF more"}
    if stream:
        answer = tool_stream("edit", arguments, text=("HALF", half))
    else:
        asked = json.dumps(message(tool_use("edit", arguments), stop="tool_use"))
        answer = respond_with(asked.replace("HALF", half).encode())
    it = await desk(relay_with, upstream_with, answer)
    tool: dict[str, Any] = {"type": "custom", "name": "edit"}
    body: dict[str, Any] = {"input": "Hi", "tools": [tool], "stream": stream}
    if dialect == "chat":
        body = {"messages": [HI], "tools": [{"type": "custom", "custom": {"name": "edit"}}]}
        body["stream"] = stream
    found = await it.ask(dialect, body)
    assert found.status == 200, found.payload
    assert _free_text(dialect, found, stream) == "caf \ufffd more"


def _free_text(dialect: str, found: Answered, stream: bool) -> str:
    if dialect == "responses":
        if stream:
            kind = "response.custom_tool_call_input.delta"
            return "".join(one["delta"] for one in found.events if one["type"] == kind)
        return str(found.document["output"][0]["input"])
    if not stream:
        return str(found.document["choices"][0]["message"]["tool_calls"][0]["custom"]["input"])
    deltas = [one["choices"][0]["delta"] for one in found.events if one["choices"]]
    return "".join(one["tool_calls"][0]["custom"]["input"] for one in deltas if "tool_calls" in one)

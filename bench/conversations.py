"""The conversations of agents: requests that grow by answers, tool calls and their results.

Decides how an answer's events become the next request, in each dialect. Must not know who plays a
conversation, nor when.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import orjson

from bench.dialects import CHAT, MESSAGES, RESPONSES, Dialect

JSON = dict[str, Any]
TOOL = "exec_command"
_SCHEMA: JSON = {
    "type": "object",
    "properties": {"cmd": {"type": "string"}},
    "required": ["cmd"],
}
_DESCRIPTION = "Runs a command."
_MAX_TOKENS = 8_000


class Conversation(Protocol):
    """One agent's conversation."""

    dialect: Dialect

    def say(self, text: str) -> None:
        """The user's next turn."""

    def body(self) -> bytes:
        """The request for the next answer."""

    def take(self, stream: bytes, result: str) -> bool:
        """Add a complete answer, and `result` for each call in it; whether there was one."""


def data(stream: bytes) -> Iterator[JSON]:
    """The data of each event."""
    for line in stream.split(b"\n"):
        if line.startswith(b"data: {"):
            yield orjson.loads(line[6:])


class _MessagesConversation:
    dialect = MESSAGES

    def __init__(self) -> None:
        self._turns: list[JSON] = []

    def say(self, text: str) -> None:
        self._turns.append({"role": "user", "content": [{"type": "text", "text": text}]})

    def body(self) -> bytes:
        tool = {"name": TOOL, "description": _DESCRIPTION, "input_schema": _SCHEMA}
        more = {"messages": self._turns, "tools": [tool], "max_tokens": _MAX_TOKENS}
        return orjson.dumps(MESSAGES.document(True, [""]) | more)

    def take(self, stream: bytes, result: str) -> bool:
        blocks: list[JSON] = []
        for event in data(stream):
            if event["type"] == "content_block_start":
                blocks.append(dict(event["content_block"]))
            elif event["type"] == "content_block_delta":
                _extend(blocks[-1], event["delta"])
        for block in blocks:
            if block["type"] == "tool_use":
                block["input"] = orjson.loads(block.pop("json", "") or "{}")
        self._turns.append({"role": "assistant", "content": blocks})
        calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        results = [
            {"type": "tool_result", "tool_use_id": call, "content": result} for call in calls
        ]
        if results:
            self._turns.append({"role": "user", "content": results})
        return bool(results)


def _extend(block: JSON, delta: JSON) -> None:
    """Add a delta to its block."""
    name = {
        "text_delta": "text",
        "thinking_delta": "thinking",
        "signature_delta": "signature",
        "input_json_delta": "partial_json",
    }[delta["type"]]
    kept = "json" if name == "partial_json" else name
    block[kept] = block.get(kept, "") + delta[name]


class _ChatConversation:
    dialect = CHAT

    def __init__(self) -> None:
        self._turns: list[JSON] = [CHAT.document(True, [""])["messages"][0]]

    def say(self, text: str) -> None:
        self._turns.append({"role": "user", "content": text})

    def body(self) -> bytes:
        function = {"name": TOOL, "description": _DESCRIPTION, "parameters": _SCHEMA}
        more = {
            "messages": self._turns,
            "tools": [{"type": "function", "function": function}],
            "max_completion_tokens": _MAX_TOKENS,
        }
        return orjson.dumps(CHAT.document(True, [""]) | more)

    def take(self, stream: bytes, result: str) -> bool:
        text = ""
        calls: dict[int, JSON] = {}
        for chunk in data(stream):
            for choice in chunk["choices"]:
                delta = choice["delta"]
                text += delta.get("content") or ""
                for call in delta.get("tool_calls") or ():
                    if "id" in call:
                        calls[call["index"]] = {
                            "id": call["id"],
                            "type": "function",
                            "function": {"name": call["function"]["name"], "arguments": ""},
                        }
                    function = calls[call["index"]]["function"]
                    function["arguments"] += call["function"].get("arguments") or ""
        turn: JSON = {"role": "assistant", "content": text or None}
        if calls:
            turn["tool_calls"] = list(calls.values())
        self._turns.append(turn)
        for call in calls.values():
            self._turns.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        return bool(calls)


class _ResponsesConversation:
    dialect = RESPONSES

    def __init__(self) -> None:
        self._items: list[JSON] = []

    def say(self, text: str) -> None:
        content = [{"type": "input_text", "text": text}]
        self._items.append({"type": "message", "role": "user", "content": content})

    def body(self) -> bytes:
        return orjson.dumps(RESPONSES.document(True, [""]) | {"input": self._items})

    def take(self, stream: bytes, result: str) -> bool:
        (done,) = (event for event in data(stream) if event["type"] == "response.completed")
        output: Sequence[JSON] = done["response"]["output"]
        self._items += output
        calls = [item["call_id"] for item in output if item["type"] == "function_call"]
        for call in calls:
            self._items.append({"type": "function_call_output", "call_id": call, "output": result})
        return bool(calls)


CONVERSATIONS: dict[str, Callable[[], Conversation]] = {
    "messages": _MessagesConversation,
    "chat": _ChatConversation,
    "responses": _ResponsesConversation,
}

"""Asks a relay in front of one or two upstreams, and reads what came to whom."""

import json
from dataclasses import dataclass
from typing import Any

from tests.fakes import answers
from tests.fakes.answers import event
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import Live, RelayWith, upstream_row
from tests.fakes.upstream import Upstream, UpstreamWith, always

SONNET = "claude-sonnet-4-7"
OPUS = "claude-opus-4-8"
FABLE = "claude-fable-5"
MODELS: list[dict[str, Any]] = [
    {"id": SONNET, "price": {"input": 3.0, "output": 15.0}},
    {"id": OPUS},
    {"id": FABLE},
]
PATHS = {
    "messages": "/v1/messages",
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
}
HI = {"role": "user", "content": "Hi"}
STOP_END = {"stop_reason": "end_turn", "stop_sequence": None}


def message(*content: dict[str, Any], stop: str = "end_turn") -> dict[str, Any]:
    """A whole answer of the Messages API."""
    return {
        "id": "msg_A1",
        "type": "message",
        "role": "assistant",
        "model": SONNET,
        "content": list(content) or [{"type": "text", "text": "Hello from A."}],
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }


def respond_with(document: Any) -> bytes:
    """It as a response."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return answers.sized(body)


def tool_use(name: str, arguments: dict[str, Any], number: int = 1) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": arguments}


def tool_stream(
    name: str, arguments: dict[str, Any], stop: str = "tool_use", text: tuple[str, str] = ("", "")
) -> bytes:
    """A stream that calls one tool; `text`: words of its arguments, and the JSON for them."""
    start = {**message(), "content": [], "stop_reason": None}
    block = {"type": "tool_use", "id": "toolu_1", "name": name, "input": {}}
    part = {"type": "input_json_delta", "partial_json": json.dumps(arguments).replace(*text)}
    return answers.chunked(
        [
            event("message_start", message=start),
            event("content_block_start", index=0, content_block=block),
            event("content_block_delta", index=0, delta=part),
            event("content_block_stop", index=0),
            event("message_delta", delta={**STOP_END, "stop_reason": stop}, usage={}),
            event("message_stop"),
        ]
    )


GOOD = respond_with(message({"type": "text", "text": "Hello from B."}))


@dataclass
class Answered:
    """What a caller got."""

    status: int
    fields: dict[bytes, bytes]
    payload: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.payload)

    @property
    def events(self) -> list[Any]:
        """The data of a stream's events, but for `[DONE]`."""
        lines = (line[6:] for line in self.payload.splitlines() if line.startswith(b"data: "))
        return [json.loads(line) for line in lines if line != b"[DONE]"]


@dataclass
class Desk:
    """A relay, and the upstreams A and B behind it; B is asked if A fails."""

    relay: Live
    a: Upstream
    b: Upstream

    async def ask(
        self, dialect: str, body: dict[str, Any] | bytes, *, fields: str = "", key: str = ""
    ) -> Answered:
        if isinstance(body, dict):
            body = {"model": SONNET, **body}
            if dialect == "messages":
                body = {"max_tokens": 64, "messages": [HI], **body}
        async with connected(self.relay.port) as (reader, writer):
            target = PATHS.get(dialect, dialect)
            octets = request(key or self.relay.key, body, target=target, fields=fields)
            writer.write(octets.replace(b"x-api-key: ", b"authorization: Bearer "))
            return Answered(*await read_answer(reader))

    @property
    def sent(self) -> Any:
        """The last body that upstream A received."""
        return json.loads(self.a.requests[-1].body)


async def desk(
    relay_with: RelayWith,
    upstream_with: UpstreamWith,
    answer: Any = None,
    b: Any = None,
    options: dict[str, Any] | None = None,
    **sections: Any,
) -> Desk:
    """`answer`, `b`: the octets, the document or the answerer of each upstream."""
    one = await upstream_with(_answerer(answer if answer is not None else message()))
    two = await upstream_with(_answerer(b if b is not None else GOOD))
    rows = [
        upstream_row("a", one, {"priority": 0, **(options or {})}),
        upstream_row("b", two, {"priority": 1, **(options or {})}),
    ]
    sections = {"model": MODELS, "pool": {"sticky": "off"}, **sections}
    relay = await relay_with(rows, **sections)
    return Desk(relay, one, two)


def _answerer(answer: Any) -> Any:
    if callable(answer):
        return answer
    return always(answer if isinstance(answer, bytes) else respond_with(answer))


LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
    },
}
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


def call(name: str, arguments: str, id: str = "call_1") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": id, "type": "function", "function": function}],
    }


def result(text: str = "bad arguments", id: str = "call_1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": text}


def blocks(sent: Any, kind: str) -> list[Any]:
    return [
        block
        for turn in sent["messages"]
        if isinstance(turn["content"], list)
        for block in turn["content"]
        if block["type"] == kind
    ]

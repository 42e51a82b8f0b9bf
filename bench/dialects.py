"""The dialects that clients speak: their requests, and the marks of a complete answer.

Decides the octets of a request and the marks that a client looks for in an answer. All dialects
ask for the same turn, with the header fields of a real client. Must not know which server
answers, nor how long it takes.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from bench.bodies import filled

HOST = "127.0.0.1"
MODEL = "claude-sonnet-4-7"

_SYSTEM = "You are a helpful assistant. Be brief."
_USER = (
    "Which of the four sorting methods in this module keeps equal items in order, and what does "
    "it cost for a list of a million names that is sorted already? Answer in one short paragraph."
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API: how a request is written, and how an answer is read."""

    name: str
    path: str
    fields: str  # header lines, with `{key}` where the caller's key belongs
    # The request's document: a stream or not, and the texts of user and model in turns.
    document: Callable[[bool, Sequence[str]], dict[str, Any]]
    mark: tuple[str, str]  # the member that identifies a JSON answer
    first: re.Pattern[bytes]  # stands in the first chunk that has content of the model
    last: bytes  # stands in the last event of a complete stream
    text: Callable[[Any], str]  # the text of a JSON answer
    piece: Callable[[Any], str]  # the text in the data of one event

    def request(
        self, port: int, key: str, simulate: str, *, stream: bool, body_size: int = 0
    ) -> bytes:
        """A turn as octets for the socket: a small one, or a body of exactly `body_size` octets.

        Raises:
            ValueError: `body_size` is less than the small turn has.
        """

        def build(turns: Sequence[str]) -> bytes:
            return orjson.dumps(self.document(stream, [*turns[:-1], turns[-1] + _USER]))

        body = filled(build, body_size) if body_size else build([""])
        return self.framed(port, key, simulate, body)

    def framed(self, port: int, key: str, simulate: str, body: bytes) -> bytes:
        """A request with this body as octets for the socket."""
        head = (
            f"POST {self.path} HTTP/1.1\r\n"
            f"Host: {HOST}:{port}\r\n"
            f"{self.fields.format(key=key)}"
            f"x-simulate: {simulate}\r\n"
            f"Content-Length: {len(body)}\r\n"
            "\r\n"
        )
        return head.encode() + body

    def stream_text(self, body: bytes) -> str:
        """The text of a complete stream.

        Raises:
            ValueError, KeyError, IndexError, TypeError: it is no stream of this dialect.
        """
        return "".join(map(self.piece, _data(body)))


def _data(body: bytes) -> Iterator[Any]:
    for line in body.split(b"\n"):
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            yield orjson.loads(line[6:])


def _roles(turns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each text with its role; the user has the first and the last one."""
    for number, text in enumerate(turns):
        yield ("assistant" if number % 2 else "user"), text


# As Claude Code sends them.
_MESSAGES_FIELDS = (
    "Accept: application/json\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Content-Type: application/json\r\n"
    "User-Agent: claude-cli/2.1.330 (external, sdk-cli)\r\n"
    "X-Claude-Code-Session-Id: af6c1616-9e8f-4acf-bd94-1b6944eca3a0\r\n"
    "X-Stainless-Arch: x64\r\n"
    "X-Stainless-Lang: js\r\n"
    "X-Stainless-OS: Linux\r\n"
    "X-Stainless-Package-Version: 0.128.0\r\n"
    "X-Stainless-Retry-Count: 0\r\n"
    "X-Stainless-Runtime: node\r\n"
    "X-Stainless-Runtime-Version: v24.3.0\r\n"
    "X-Stainless-Timeout: 600\r\n"
    "anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14,"
    "context-management-2025-06-27,mid-conversation-tool-changes-2026-07-01,"
    "thinking-token-count-2026-05-13,advanced-tool-use-2025-11-20,effort-2025-11-24\r\n"
    "anthropic-dangerous-direct-browser-access: true\r\n"
    "anthropic-version: 2023-06-01\r\n"
    "x-app: cli\r\n"
    "x-api-key: {key}\r\n"
)


def _messages_document(stream: bool, turns: Sequence[str]) -> dict[str, Any]:
    return {
        "model": MODEL,
        "max_tokens": 128_000 if stream else 1024,
        "stream": stream,
        "system": [{"type": "text", "text": _SYSTEM}],
        "metadata": {
            "user_id": '{"device_id":"3605c8a1","account_uuid":"",'
            '"session_id":"af6c1616-9e8f-4acf-bd94-1b6944eca3a0"}'
        },
        "messages": [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in _roles(turns)
        ],
    }


# As the openai SDK sends them.
_CHAT_FIELDS = (
    "Accept: application/json\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Connection: keep-alive\r\n"
    "Content-Type: application/json\r\n"
    "User-Agent: AsyncOpenAI/Python 3.2.0\r\n"
    "X-Stainless-Arch: x64\r\n"
    "X-Stainless-Async: async:asyncio\r\n"
    "X-Stainless-Lang: python\r\n"
    "X-Stainless-OS: Linux\r\n"
    "X-Stainless-Package-Version: 3.2.0\r\n"
    "x-stainless-raw-response: true\r\n"
    "x-stainless-read-timeout: 600\r\n"
    "x-stainless-retry-count: 0\r\n"
    "X-Stainless-Runtime: CPython\r\n"
    "X-Stainless-Runtime-Version: 3.11.2\r\n"
    "Authorization: Bearer {key}\r\n"
)


def _chat_document(stream: bool, turns: Sequence[str]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": _SYSTEM},
            *({"role": role, "content": text} for role, text in _roles(turns)),
        ],
        "max_completion_tokens": 128_000 if stream else 1024,
        "stream": stream,
    }
    if stream:  # agents ask for the usage of a stream, too
        document["stream_options"] = {"include_usage": True}
    return document


# As Codex CLI sends them.
_RESPONSES_FIELDS = (
    "Accept: text/event-stream\r\n"
    "Content-Type: application/json\r\n"
    "Authorization: Bearer {key}\r\n"
    "originator: codex_exec\r\n"
    "User-Agent: codex_exec/0.169.0 (Debian 12.0.0; x86_64) xterm (codex_exec; 0.169.0)\r\n"
    "session-id: 01a20899-68d3-7c30-9d3c-9a4d3d0c2f11\r\n"
    "thread-id: 01a20899-68d3-7c30-9d3c-9a4d3d0c2f11\r\n"
    "x-client-request-id: 01a20899-68d3-7c30-9d3c-9a4d3d0c2f11\r\n"
    "x-codex-window-id: 01a20899-68d3-7c30-9d3c-9a4d3d0c2f11:0\r\n"
    "x-codex-beta-features: remote_compaction_v2\r\n"
)


def _responses_document(stream: bool, turns: Sequence[str]) -> dict[str, Any]:
    """A prompt and one tool."""
    return {
        "model": MODEL,
        "instructions": _SYSTEM,
        "input": [
            {
                "type": "message",
                "role": role,
                "content": [
                    {"type": "input_text" if role == "user" else "output_text", "text": text}
                ],
            }
            for role, text in _roles(turns)
        ],
        "tools": [
            {
                "type": "function",
                "name": "exec_command",
                "description": "Runs a command.",
                "strict": False,
                "parameters": {
                    "type": "object",
                    "properties": {"cmd": {"type": "string"}},
                    "required": ["cmd"],
                    "additionalProperties": False,
                },
            }
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "store": False,
        "stream": stream,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01a20899-68d3-7c30-9d3c-9a4d3d0c2f11",
    }


def _messages_text(document: Any) -> str:
    return "".join(block.get("text", "") for block in document["content"])


def _messages_piece(data: Any) -> str:
    return str(data.get("delta", {}).get("text", ""))


def _chat_text(document: Any) -> str:
    return document["choices"][0]["message"]["content"] or ""


def _chat_piece(data: Any) -> str:
    if "error" in data:
        raise ValueError(f"an error came instead of a chunk: {data['error']}")
    return "".join(choice["delta"].get("content") or "" for choice in data["choices"])


def _responses_text(document: Any) -> str:
    return "".join(
        part["text"]
        for item in document["output"]
        if item["type"] == "message"
        for part in item["content"]
    )


def _responses_piece(data: Any) -> str:
    if data["type"] == "response.failed":
        raise ValueError(f"the response has failed: {data['response']['error']}")
    return str(data["delta"]) if data["type"] == "response.output_text.delta" else ""


MESSAGES = Dialect(
    name="messages",
    path="/v1/messages?beta=true",
    fields=_MESSAGES_FIELDS,
    document=_messages_document,
    mark=("type", "message"),
    first=re.compile(b"content_block_delta"),
    last=b"event: message_stop\n",
    text=_messages_text,
    piece=_messages_piece,
)
CHAT = Dialect(
    name="chat",
    path="/v1/chat/completions",
    fields=_CHAT_FIELDS,
    document=_chat_document,
    mark=("object", "chat.completion"),
    # A chunk before it has the role, and an empty content beside it; other gateways have the role
    # and the first content in one.
    first=re.compile(rb'"delta": ?{[^{}]*"content": ?"[^"]'),
    last=b"data: [DONE]\n\n",
    text=_chat_text,
    piece=_chat_piece,
)
RESPONSES = Dialect(
    name="responses",
    path="/v1/responses",
    fields=_RESPONSES_FIELDS,
    document=_responses_document,
    mark=("object", "response"),
    # Not every gateway names its events outside of their data.
    first=re.compile(rb'"type": ?"response.output_text.delta"'),
    last=b'"type":"response.completed"',
    text=_responses_text,
    piece=_responses_piece,
)

"""Random requests of all three dialects: valid by grammar, then mutated, then blown up.

Everything derives from one number, so a number that found a fault is its test case.
"""

import copy
import gzip
import json
import random
import zlib
from dataclasses import dataclass
from typing import Any

import zstandard

MODEL = "claude-sonnet-4-7"
PATHS = {
    "messages": "/v1/messages",
    "count_tokens": "/v1/messages/count_tokens",
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "input_tokens": "/v1/responses/input_tokens",
}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 10**30, 1e308, "", "x", "\u0000", "\U0001f600"),
    *([], {}, [None], [[]], {"": ""}, {"type": None}, {"type": "no-such"}, "auto", "http://[::1"),
]
MAX_OCTETS = 6 * 1024 * 1024  # of a body before it is compressed


@dataclass
class Case:
    """One request; `cut` is the share of its octets after which the caller leaves, if it does."""

    dialect: str
    body: bytes
    encoding: str
    cut: float | None

    def octets(self, key: str) -> bytes:
        """The request as it is sent."""
        fields = f"content-encoding: {self.encoding}\r\n" if self.encoding else ""
        head = (
            f"POST {PATHS[self.dialect]} HTTP/1.1\r\nhost: relay\r\nx-api-key: {key}\r\n"
            f"anthropic-version: 2023-06-01\r\ncontent-type: application/json\r\n{fields}"
            f"content-length: {len(self.body)}\r\nconnection: close\r\n\r\n"
        )
        return head.encode() + self.body


def case(number: int) -> Case:
    """The case of this number."""
    rng = random.Random(number)
    dialect = rng.choice(list(PATHS))
    tree = {
        "messages": _messages,
        "count_tokens": _messages,
        "chat": _chat,
        "responses": _responses,
        "input_tokens": _responses,
    }[dialect](rng)
    for _ in range(rng.choice([0, 0, 0, 1, 1, 3])):
        _mutate(rng, tree)
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        _blow_up(rng, tree)
    body = _text(rng, tree)
    encoding = rng.choice(["", "", "", "gzip", "zstd", "deflate"])
    if PATHS[dialect].startswith("/v1/messages"):
        encoding = ""
    if encoding == "gzip":
        body = gzip.compress(body, 1)
    elif encoding == "deflate":
        body = zlib.compress(body, 1)
    elif encoding == "zstd":
        body = zstandard.compress(body)
    if encoding and rng.random() < 0.1:
        body = body[: rng.randrange(len(body) + 1)]
    cut = rng.random() if rng.random() < 0.1 else None
    return Case(dialect, body, encoding, cut)


def _text(rng: random.Random, tree: Any) -> bytes:
    body = json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if len(body) > 2 * MAX_OCTETS:  # an element that is repeated was lengthened
        body = body[:MAX_OCTETS]
    if rng.random() < 0.05:
        body = body[: rng.randrange(len(body) + 1)]
    if rng.random() < 0.05:
        at = rng.randrange(len(body) + 1)
        body = (
            body[:at]
            + rng.choice([b"\xff", b"\x00", b'"', b"{", b"]", b"\xed\xa0\x80"])
            + body[at:]
        )
    if rng.random() < 0.03:  # a member twice, in other words
        name = rng.choice([b'"model"', b'"mod\\u0065l"', b'"Model"', b'"stream"', b'"max_tokens"'])
        body = b"{" + name + b":" + rng.choice([b'"x"', b"true", b"1"]) + b"," + body[1:]
    return body


def _word(rng: random.Random) -> str:
    words = ["hello", "Grüße", "日本", "a\nb", "\\u0041", '"quoted"', "🌍", ""]
    return rng.choice(words) * rng.choice([1, 1, 1, 20])


def _schema(rng: random.Random, depth: int = 3) -> Any:
    kind = rng.choice(["object", "array", "string", "integer", "boolean"])
    schema: dict[str, Any] = {"type": kind}
    if kind == "object" and depth:
        names = [f"f{number}" for number in range(rng.randrange(4))]
        schema["properties"] = {name: _schema(rng, depth - 1) for name in names}
        schema["required"] = names
        schema["additionalProperties"] = False
    if kind == "array" and depth:
        schema["items"] = _schema(rng, depth - 1)
    if rng.random() < 0.1:
        schema["$ref"] = "#"
    return schema


def _messages(rng: random.Random) -> dict[str, Any]:
    def block(role: str) -> dict[str, Any]:
        kinds: list[dict[str, Any]] = [
            {"type": "text", "text": _word(rng) or "x"},
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": _word(rng)},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ]
        if role == "assistant":
            kinds = [
                {"type": "text", "text": _word(rng) or "x"},
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": _word(rng)}},
                {"type": "thinking", "thinking": _word(rng), "signature": "c2ln"},
            ]
        chosen = rng.choice(kinds)
        if rng.random() < 0.1:
            chosen["cache_control"] = {"type": "ephemeral"}
        return chosen

    roles = ["user", "assistant"] * rng.randrange(4) + ["user"]
    tree: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": rng.choice([1, 100, 4096]),
        "messages": [
            {
                "role": role,
                "content": _word(rng) or "x"
                if rng.random() < 0.4
                else [block(role) for _ in range(rng.randrange(1, 4))],
            }
            for role in roles
        ],
    }
    if rng.random() < 0.5:
        tree["stream"] = True
    if rng.random() < 0.3:
        tree["system"] = rng.choice([_word(rng), [{"type": "text", "text": _word(rng) or "x"}]])
    if rng.random() < 0.4:
        tree["tools"] = [{"name": "f", "description": _word(rng), "input_schema": _schema(rng)}]
    if rng.random() < 0.2:
        tree["metadata"] = {"user_id": _word(rng)}
    if rng.random() < 0.2:
        tree["thinking"] = {"type": "enabled", "budget_tokens": 1024}
    return tree


def _chat(rng: random.Random) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    if rng.random() < 0.4:
        messages.append({"role": rng.choice(["system", "developer"]), "content": _word(rng)})
    for turn in range(rng.randrange(1, 5)):
        parts: list[dict[str, Any]] = [
            {"type": "text", "text": _word(rng) or "x"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        ]
        content = _word(rng) or "x" if rng.random() < 0.5 else rng.choices(parts, k=2)
        messages.append({"role": "user", "content": content})
        if rng.random() < 0.6:
            answer: dict[str, Any] = {"role": "assistant", "content": _word(rng) or "y"}
            if rng.random() < 0.5:
                arguments = json.dumps({"a": _word(rng)})
                answer["tool_calls"] = [
                    {
                        "id": f"call_{turn}",
                        "type": "function",
                        "function": {"name": "f", "arguments": arguments},
                    }
                ]
                messages.append(answer)
                messages.append(
                    {"role": "tool", "tool_call_id": f"call_{turn}", "content": _word(rng)}
                )
            else:
                if rng.random() < 0.5:
                    answer["reasoning_details"] = [
                        {"type": "reasoning.text", "index": 0, "text": _word(rng)} for _ in range(3)
                    ]
                messages.append(answer)
    messages.append({"role": "user", "content": "go on"})
    tree: dict[str, Any] = {"model": MODEL, "messages": messages}
    options: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 100,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": _schema(rng)}}],
        "tool_choice": rng.choice(["auto", "required", "none"]),
        "reasoning_effort": rng.choice(["low", "high", "none"]),
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "s", "schema": _schema(rng), "strict": True},
        },
        "stop": rng.choice(["x", ["x", "y"]]),
        "user": _word(rng),
        "metadata": {"a": _word(rng)},
        "temperature": rng.random(),
        "parallel_tool_calls": False,
    }
    for name in rng.sample(list(options), rng.randrange(6)):
        tree[name] = options[name]
    return tree


def _responses(rng: random.Random) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for turn in range(rng.randrange(1, 5)):
        kinds: list[list[dict[str, Any]]] = [
            [{"role": "user", "content": _word(rng) or "x"}],
            [
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": _word(rng) or "x"}],
                }
            ],
            [
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": _word(rng), "annotations": []}],
                }
            ],
            [
                {
                    "type": "function_call",
                    "call_id": f"call_{turn}",
                    "name": "f",
                    "arguments": json.dumps({"a": _word(rng)}),
                },
                {"type": "function_call_output", "call_id": f"call_{turn}", "output": _word(rng)},
            ],
            [{"type": "reasoning", "summary": [], "encrypted_content": "x" * 40}],
            [{"type": "no_such_item", "data": _word(rng)}],
        ]
        items += rng.choice(kinds)
    items.append({"role": "user", "content": "go on"})
    tree: dict[str, Any] = {"model": MODEL, "input": rng.choice([items, items, _word(rng) or "x"])}
    options: dict[str, Any] = {
        "stream": True,
        "instructions": _word(rng),
        "max_output_tokens": 100,
        "tools": [{"type": "function", "name": "f", "parameters": _schema(rng)}],
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "metadata": {"a": _word(rng)},
        "text": {"format": {"type": "json_schema", "name": "s", "schema": _schema(rng)}},
        "tool_choice": rng.choice(["auto", "required", "none"]),
        "truncation": "auto",
        "user": _word(rng),
        "previous_response_id": "resp_no_such",
    }
    for name in rng.sample(list(options), rng.randrange(6)):
        tree[name] = options[name]
    return tree


def _nodes(tree: Any) -> list[tuple[Any, Any]]:
    """Every container of a tree with one of its keys."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        keys: Any = node.keys() if isinstance(node, dict) else range(len(node))
        for key in keys:
            found.append((node, key))
            if isinstance(node[key], dict | list):
                waiting.append(node[key])
        if len(found) > 5_000:
            break
    return found


def _odd(rng: random.Random) -> Any:
    """An odd value, and a new one: later mutations change it."""
    return copy.deepcopy(rng.choice(ODD))


def _mutate(rng: random.Random, tree: dict[str, Any]) -> None:
    """Change one member: an odd value, no value, another member's value, or a wrong name."""
    nodes = _nodes(tree)
    if not nodes:  # an earlier change has emptied it
        return
    node, key = rng.choice(nodes)
    kind = rng.randrange(5)
    if kind == 0:
        node[key] = _odd(rng)
    elif kind == 1:
        del node[key]
    elif kind == 2:
        other, name = rng.choice(_nodes(tree))
        node[key] = json.loads(json.dumps(other[name]))
    elif kind == 3 and isinstance(node, dict):
        node[rng.choice(["type", "role", "content", "name", "id", "text", "index", key])] = node[
            key
        ]
    else:
        deep: Any = _odd(rng)
        for _ in range(rng.choice([1, 10, 200])):
            deep = [deep] if rng.random() < 0.5 else {"a": deep}
        node[key] = deep


def _blow_up(rng: random.Random, tree: dict[str, Any]) -> None:
    """Lengthen a text and repeat an element: two dimensions at once."""
    texts = [(node, key) for node, key in _nodes(tree) if isinstance(node[key], str)]
    if texts and rng.random() < 0.7:
        node, key = rng.choice(texts)
        length = rng.choice([2, 1_000, 100_000])
        node[key] = (node[key] or "x") * (length // (len(node[key]) or 1) or 1)
    lists = [(node, key) for node, key in _nodes(tree) if isinstance(node[key], list) and node[key]]
    if lists:
        node, key = rng.choice(lists)
        room = (MAX_OCTETS - len(json.dumps(tree))) // len(json.dumps(node[key]))
        node[key] = node[key] * max(1, min(rng.choice([2, 50, 1_000, 8_000]), room))

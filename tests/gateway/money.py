"""Requests of many shapes, what their upstream bills for them, and how callers leave them."""

import asyncio
import json
import math
import random
import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from tests.fakes import answers
from tests.fakes.caller import BODY
from tests.fakes.upstream import Seen

PATHS = {
    "messages": "/v1/messages",
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
}
CONTEXT = 200_000
_NUMBER = re.compile(rb"number-(\d+)-")
_INPUT, _OUTPUT, _READ = Fraction(3), Fraction(15), Fraction(3, 10)
_WRITE, _WRITE_1H, _SEARCH = Fraction(15, 4), Fraction(6), 10_000


@dataclass
class Case:
    """One request, the answer that its upstream gives, and what becomes of it."""

    number: int
    dialect: str
    stream: bool
    body: dict[str, Any]
    usage: dict[str, Any]
    words: int
    fault: str  # "", "400", "cut": of the upstream
    leaves: str  # "", "waiting", "reading": the caller
    received: bool = False
    started: bool = False  # the caller has read some of its content
    finished: bool = False  # the caller has read all of it
    read: int = 0  # octets of text that the caller has read
    status: int = 0
    octets: bytes = field(default=b"", repr=False)

    @property
    def prompt(self) -> int:
        """The tokens of the prompt, by its length."""
        return len(self.octets) // 4


def billed(usage: dict[str, Any]) -> int:
    """What the vendor bills, in micro-dollars."""
    total: Fraction = Fraction(0)
    for part in usage.get("iterations") or [usage]:
        hour = number(part.get("cache_creation", {}).get("ephemeral_1h_input_tokens", 0))
        total += number(part.get("input_tokens", 0)) * _INPUT
        total += number(part.get("output_tokens", 0)) * _OUTPUT
        total += number(part.get("cache_read_input_tokens", 0)) * _READ
        total += (number(part.get("cache_creation_input_tokens", 0)) - hour) * _WRITE
        total += hour * _WRITE_1H
    total *= 6 if usage.get("speed") == "fast" else 1
    total *= Fraction(11, 10) if usage.get("inference_geo") == "us" else 1
    total += _SEARCH * usage.get("server_tool_use", {}).get("web_search_requests", 0)
    return math.ceil(total)


def number(stated: Any) -> Fraction:
    """A count as the vendor means it: part tokens are whole ones."""
    return Fraction(math.ceil(Fraction(str(stated))))


def case(rng: random.Random, number: int) -> Case:
    """A random request and its answer."""
    dialect = rng.choice(["messages", "messages", "chat", "responses"])
    stream = rng.random() < 0.6
    limit = rng.choice([20, 100, 400])
    text = f"number-{number}- " + "some words of a prompt " * rng.randrange(60)
    body: dict[str, Any] = {"model": BODY["model"], "stream": stream}
    if dialect == "responses":
        body |= {"input": text, "max_output_tokens": limit}
    else:
        body |= {"messages": [{"role": "user", "content": text}], "max_tokens": limit}
    prompt, words = len(text) // 4, rng.randrange(1, limit)
    usage: dict[str, Any] = {"input_tokens": prompt, "output_tokens": words}
    dear = rng.random()
    if dialect == "messages" and dear < 0.2:
        usage = _dear(rng, body, usage)
    elif dear < 0.5:
        usage["input_tokens"] = rng.randrange(prompt)
        usage["cache_read_input_tokens"] = rng.randrange(prompt - usage["input_tokens"] + 1)
        usage["cache_creation_input_tokens"] = prompt - usage["input_tokens"]
    if rng.random() < 0.2:
        name = rng.choice(["input_tokens", "output_tokens"])
        usage[name] = rng.choice([str, float])(usage[name])
    return Case(
        number,
        dialect,
        stream,
        body,
        usage,
        words,
        rng.choice(["", "", "", "", "", "", "400", "cut"]),
        rng.choice(["", "", "", "waiting", "reading"]),
        octets=json.dumps(body).encode(),
    )


def _dear(rng: random.Random, body: dict[str, Any], usage: dict[str, Any]) -> dict[str, Any]:
    """A request that uses something with a price of its own."""
    match rng.randrange(5):
        case 0:
            body["speed"] = usage["speed"] = "fast"
        case 1:
            body["inference_geo"] = usage["inference_geo"] = "us"
        case 2:
            mark = {"type": "ephemeral", "ttl": "1h"}
            body["system"] = [{"type": "text", "text": "x" * 400, "cache_control": mark}]
            usage["cache_creation_input_tokens"] = 150
            usage["cache_creation"] = {"ephemeral_1h_input_tokens": rng.randrange(150)}
        case 3:
            body["tools"] = [{"type": "web_search_20250305", "name": "web_search"}]
            usage["input_tokens"] = rng.randrange(5 * CONTEXT)
            usage["server_tool_use"] = {"web_search_requests": rng.randrange(20)}
        case _:
            body["context_management"] = {"edits": [{"type": "compact_20260112"}]}
            counts = [rng.randrange(CONTEXT), rng.randrange(1000)]
            usage["iterations"] = [
                {"type": "compaction", "input_tokens": counts[0], "output_tokens": counts[1]},
                {"type": "message", **usage},
            ]
    return usage


class Vendor:
    """An upstream that gives each request the answer of its case."""

    def __init__(self, rng: random.Random) -> None:
        self.cases: dict[int, Case] = {}
        self._rng = rng

    async def answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        """See `tests.fakes.upstream.Answer`."""
        found = _NUMBER.search(seen.body)
        assert found is not None
        one = self.cases[int(found[1])]
        one.received = True
        # Half of the callers who leave are gone before the relay has an answer.
        slow = one.leaves == "waiting" and self._rng.random() < 0.5
        await asyncio.sleep(0.25 if slow else self._rng.random() * 0.01)
        if one.fault == "400":
            error = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
            writer.write(answers.sized(json.dumps(error).encode(), b"400 Bad Request"))
        elif json.loads(seen.body).get("stream"):
            await self._stream(writer, one)
        elif one.fault == "cut":
            octets = self._message(one)
            writer.write(octets[: len(octets) - 20])
            writer.close()
        else:
            writer.write(self._message(one))

    async def _stream(self, writer: asyncio.StreamWriter, one: Case) -> None:
        start = {**one.usage, "output_tokens": 1}
        start.pop("iterations", None)
        events = answers.stream(["word "] * one.words, start=start, end=one.usage)
        stop = len(events)
        if one.fault == "cut":
            stop = self._rng.randrange(1, stop - 2)
        writer.write(answers.chunked_head())
        for event in events[:stop]:
            writer.write(answers.chunk(event))
            if self._rng.random() < 0.1:
                await writer.drain()
                await asyncio.sleep(self._rng.random() * 0.003)
        if one.fault == "cut":
            writer.close()
            return
        writer.write(answers.LAST)

    @staticmethod
    def _message(one: Case) -> bytes:
        message = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": BODY["model"],
            "content": [{"type": "text", "text": "word " * one.words}],
            "stop_reason": "end_turn", "usage": one.usage,
        }  # fmt: skip
        return answers.sized(json.dumps(message).encode())

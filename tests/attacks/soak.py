"""Callers of every dialect, over HTTP/1.1 and HTTP/2, some of whom leave and some of whom meet a
fault of the upstream. Which one does what is random, by a seed.
"""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from hyperframe.frame import RstStreamFrame

from tests.fakes.caller import connected, read_answer, request
from tests.fakes.http2 import Http2Caller, http2_caller, post

ABORTS, FAULTS = 0.05, 0.02  # shares of the requests
ON_ONE_CONNECTION = 40  # requests
WAIT_SECONDS = 60.0
_MODEL = "claude-sonnet-4-7"
_TURNS: list[Any] = [{"role": "user", "content": "Hello, tell me something."}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/messages": {"model": _MODEL, "max_tokens": 60, "messages": _TURNS},
    "/v1/chat/completions": {"model": _MODEL, "max_completion_tokens": 60, "messages": _TURNS},
    "/v1/responses": {"model": _MODEL, "max_output_tokens": 60, "input": _TURNS},
}
ENDS = {
    "/v1/messages": b"event: message_stop",
    "/v1/chat/completions": b"data: [DONE]",
    "/v1/responses": b"event: response.completed",
}
FAULTS_OF_STREAMS = ("cut", "reset", "error", "status;status=529", "status;status=500")
FAULTS_OF_ANSWERS = ("cut", "reset", "close", "html", "status;status=529", "status;status=500")
_CANCEL = 8


@dataclass(frozen=True)
class Case:
    """One request. `leaves` is when its caller goes: after so many seconds; None: it stays."""

    path: str
    streamed: bool
    fault: str
    leaves: float | None

    @property
    def script(self) -> str:
        pace = "tokens=30;pace=600" if self.streamed else "tokens=30"
        return f"{pace};fault={self.fault}" if self.fault else pace

    @property
    def body(self) -> bytes:
        return json.dumps({**BODIES[self.path], "stream": self.streamed}).encode()


def case(dice: random.Random) -> Case:
    path, streamed = dice.choice(list(BODIES)), dice.random() < 0.7
    fault, leaves = "", None
    throw = dice.random()
    if throw < FAULTS:
        fault = dice.choice(FAULTS_OF_STREAMS if streamed else FAULTS_OF_ANSWERS)
    elif throw < FAULTS + ABORTS:
        leaves = dice.random() * 0.08
    return Case(path, streamed, fault, leaves)


@dataclass
class Load:
    """Callers at a rate for all, until a moment; `results` counts what each got."""

    port: int
    key: str
    until: float  # by time.monotonic
    pause: float  # seconds from one request of a caller to its next
    results: Counter[str] = field(default_factory=Counter)

    async def run(self, callers: int, seed: int = 0) -> None:
        """Run so many callers, half of them over HTTP/2."""
        kinds = (self._http1, self._http2)
        await asyncio.gather(
            *(kinds[one % 2](random.Random(f"{seed}-{one}")) for one in range(callers))
        )

    async def _http1(self, dice: random.Random) -> None:
        while time.monotonic() < self.until:
            async with connected(self.port, wait=600) as (reader, writer):
                async for one in self._cases(dice):
                    fields = f"x-simulate: {one.script}\r\n"
                    writer.write(request(self.key, one.body, target=one.path, fields=fields))
                    try:
                        async with asyncio.timeout(one.leaves or WAIT_SECONDS):
                            status, _, payload = await read_answer(reader)
                    except TimeoutError:
                        self._count(one, 0, b"")
                        break
                    except (OSError, asyncio.IncompleteReadError):
                        self._count(one, 0, b"")
                        break
                    self._count(one, status, payload)

    async def _http2(self, dice: random.Random) -> None:
        while time.monotonic() < self.until:
            async with http2_caller(self.port) as caller:
                async for one in self._cases(dice):
                    await self._on_stream(caller, one)

    async def _on_stream(self, caller: Http2Caller, one: Case) -> None:
        fields = post(self.key, ("x-simulate", one.script), path=one.path)
        stream = caller.request(fields, one.body)
        try:
            reply = await caller.answer(stream, one.leaves or WAIT_SECONDS)
        except TimeoutError:
            caller.send(RstStreamFrame(stream, error_code=_CANCEL))
            self._count(one, 0, b"")
        else:
            self._count(one, reply.status if reply.complete else 0, reply.payload)
            del caller.replies[stream]

    async def _cases(self, dice: random.Random) -> AsyncIterator[Case]:
        """The requests of one connection."""
        for _ in range(ON_ONE_CONNECTION):
            if time.monotonic() >= self.until:
                return
            began = time.monotonic()
            yield case(dice)
            with contextlib.suppress(ValueError):
                await asyncio.sleep(max(0.0, began + self.pause - time.monotonic()))

    def _count(self, one: Case, status: int, payload: bytes) -> None:
        self.results["requests"] += 1
        is_complete = status == 200 and (not one.streamed or ENDS[one.path] in payload)
        if one.leaves is not None:
            self.results["left" if not is_complete else "left too late"] += 1
        elif one.fault:
            self.results["faults"] += 1
        elif is_complete:
            self.results["complete"] += 1
        elif status == 503 and b"more requests than it can serve" in payload:
            self.results["shed"] += 1  # the loop was late: beside other work of the machine
        else:
            self.results[f"broken {one.path} {status} {payload[-200:]!r}"] += 1

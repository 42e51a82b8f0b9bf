"""Three upstreams of raw sockets that answer one caller's request in a bad way, and all others.

A request is the attacker's if its body has `MARK`. Every upstream answers other requests, probes
included, with a good document.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.fakes import answers
from tests.fakes.caller import BODY, request
from tests.fakes.live import Live, RelayWith, upstream_row
from tests.fakes.pool import Line, Reply
from tests.fakes.upstream import OK, Answer, Seen, Upstream, UpstreamWith

MARK = "DROP TABLE b;"
NAMES = ("one", "two", "three")
COUNT = "/v1/messages/count_tokens"
PROBED = answers.sized(b'{"input_tokens":7}')

Bad = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


def error(status: int, kind: str, message: str, *lines: bytes) -> bytes:
    document = {"type": "error", "error": {"type": kind, "message": message}}
    return answers.sized(json.dumps(document).encode(), b"%d No" % status, *lines)


def answering(bad: bytes | None, *, delay: float = 0.0) -> Answer:
    """Answer the attacker's request with `bad` octets, or close without any (None)."""

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        if MARK.encode() not in seen.body:
            writer.write(PROBED if b"count_tokens" in seen.head else OK)
        else:
            await asyncio.sleep(delay)
            if bad is None:
                writer.close()
            else:
                writer.write(bad)

    return answer


@dataclass
class Scene:
    """A relay, its three upstreams, an attacker and an honest caller of another account."""

    relay: Live
    upstreams: Sequence[Upstream]
    honest: str

    async def ask(
        self, text: str, *, key: str | None = None, target: str = "/v1/messages", **more: Any
    ) -> Reply:
        body = {**BODY, "messages": [{"role": "user", "content": text}], **more}
        line = await Line.open(self.relay.port)
        try:
            async with asyncio.timeout(8):
                return await line.ask(request(key or self.relay.key, body, target=target))
        finally:
            line.close()

    async def attack(self, times: int = 1, **more: Any) -> list[Reply]:
        return [await self.ask(MARK, **more) for _ in range(times)]

    def bad_requests(self) -> list[int]:
        """How often each upstream got the attacker's request."""
        return [
            sum(MARK.encode() in seen.body for seen in upstream.requests)
            for upstream in self.upstreams
        ]

    async def assert_nobody_else_is_harmed(self) -> None:
        """The honest caller is served at once, and every upstream is still used."""
        before = [len(upstream.requests) for upstream in self.upstreams]
        took = asyncio.get_running_loop().time()
        for number in range(6):
            reply = await self.ask(f"honest {number}", key=self.honest)
            assert reply.status == 200, reply
            counted = await self.ask(f"count {number}", key=self.honest, target=COUNT)
            assert counted.status == 200, counted
        assert asyncio.get_running_loop().time() - took < 2
        used = [
            len(upstream.requests) - number
            for upstream, number in zip(self.upstreams, before, strict=True)
        ]
        assert all(used), used
        rows = self.view()
        assert [row["state"] for row in rows] == ["ok"] * 3
        assert [row["models_out"] for row in rows] == [{}] * 3
        assert all(row["counts_tokens"] for row in rows)

    def view(self) -> list[dict[str, Any]]:
        """What the operator sees of the three upstreams."""
        return [row for row in self.relay.app.upstreams.view() if row["name"] in NAMES]


async def scene(
    upstream_with: UpstreamWith, relay_with: RelayWith, answer: Answer, **options: Any
) -> Scene:
    upstreams = [await upstream_with(answer) for _ in NAMES]
    rows = [
        upstream_row(name, upstream, options)
        for name, upstream in zip(NAMES, upstreams, strict=True)
    ]
    relay = await relay_with(rows)
    await relay.create_user("grace@example.com")
    return Scene(relay, upstreams, await relay.new_key("grace@example.com"))

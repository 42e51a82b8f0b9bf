"""A node as a process: reads one JSON object a line and writes one answer a line.

    python -m tests.cluster.node_program URL NAME ON_OUTAGE [JOURNAL]

With a journal it notes each change of a lease's use in it, as the relay does in its database, and
reports what an earlier process noted there.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

from relay.cluster.node import ClusterNode, ClusterSettings
from relay.cluster.windows import Held, LeaseUse, SharedLimit
from tests.cluster.nodes import outcome
from tests.fakes.until import until


class Program:
    """The node and what it admitted."""

    def __init__(self, node: ClusterNode, journal: Path | None) -> None:
        self.node = node
        self.held: list[Held] = []
        self._journal = -1
        if journal is not None:
            self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, held: Held) -> None:
        """One line a window."""
        if self._journal >= 0:
            lines = [json.dumps(use) + "\n" for use in held.uses()]
            os.write(self._journal, "".join(lines).encode())

    def report_earlier(self, journal: Path) -> None:
        """The latest use of each lease."""
        uses = [LeaseUse(*json.loads(line)) for line in journal.read_text().splitlines()]
        latest = {(use.lease, use.window): use for use in uses}
        self.node.limits.report_earlier(latest.values())

    async def request(
        self, plan: tuple[SharedLimit, ...], key: str, tokens: int = 0, account: str = "a"
    ) -> str:
        done = await outcome(self.node.limits, plan, key, account, tokens=tokens)
        if isinstance(done, Held):
            self.held.append(done)
            self.note(done)
            return "admitted"
        return done

    async def burst(
        self, limits: list[list[Any]], keys: list[str], count: int, tokens: int = 0
    ) -> dict[str, int]:
        """So many requests at once, of each key in turn."""
        plan = tuple([SharedLimit(*limit) for limit in limits])
        done = await asyncio.gather(
            *[self.request(plan, keys[number % len(keys)], tokens) for number in range(count)]
        )
        return {name: done.count(name) for name in set(done)}

    async def steady(
        self, limits: list[list[Any]], keys: list[str], rate: float, seconds: float
    ) -> dict[str, Any]:
        """Requests at an even pace, of each key in turn, each with an account of its own. Waits
        are in milliseconds."""
        plan = tuple([SharedLimit(*limit) for limit in limits])
        waits, started, number = [], time.monotonic(), 0
        refused = 0
        while (passed := time.monotonic() - started) < seconds:
            while number < passed * rate:
                began = time.perf_counter()
                key = keys[number % len(keys)]
                done = await self.request(plan, key, account=f"of {key}")
                waits.append((time.perf_counter() - began) * 1000)
                refused += done != "admitted"
                number += 1
            await asyncio.sleep(0.001)
        waits.sort()
        return {
            "requests": number,
            "refused": refused,
            "p50": waits[len(waits) // 2],
            "p99": waits[len(waits) * 99 // 100],
        }

    async def refund(self) -> int:
        """Give all back that is held."""
        for one in self.held:
            self.node.limits.refund(one)
            self.note(one)
        count, self.held = len(self.held), []
        return count

    async def epochs(self) -> dict[int, int]:
        """The number of requests that were admitted, by epoch of their first window."""
        return dict(sorted(Counter(one.taken[0][3] for one in self.held).items()))

    async def figures(self) -> dict[str, Any]:
        view = self.node.view()
        return {**view.counters, "leases": view.leases, "unused": view.unused,
                "nodes": view.nodes}  # fmt: skip


async def main(url: str, name: str, on_outage: Any, journal: str = "") -> None:
    node = await ClusterNode.open(ClusterSettings(url, name, on_outage), lambda kind, id: None)
    path = Path(journal) if journal else None
    program = Program(node, path)
    if path is not None:
        program.report_earlier(path)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await until(node.limits.reported, within=20)
    print('"ready"', flush=True)
    while line := await reader.readline():
        request = json.loads(line)
        answer = await getattr(program, request.pop("do"))(**request)
        print(json.dumps(answer), flush=True)
    await node.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))

"""A round of hand-overs: a reload, then a new process that takes the place of the running one.

Decides which clients are there meanwhile, and what they count: requests that failed and streams
that were cut. As a real client does, they open a new connection when an answer says that theirs
closes. Only builds of relay can do this. Must not know how a rival is configured.
"""

import asyncio
import os
import signal
from contextlib import ExitStack
from time import perf_counter

from bench.dialects import HOST, MESSAGES
from bench.headroom import check_outlived
from bench.loadgen import HEAD_END, OK, LoadError
from bench.process import BenchError, Process
from bench.rivals.relay import Relay
from bench.rivals.rival import Rival
from bench.stage import JSON_ANSWER, Figures, Stage, stream_load

_CLIENTS = 8  # of each kind
_HAND_OVERS = 2
_LISTENS = "listens on"
_READY_S = 30.0
_BETWEEN_S = 0.5
_ANSWER_S = 30.0  # in which any request is answered
# Of a request: no connection, no answer, none in time, or a wrong one.
_FAILURES = (OSError, EOFError, LoadError, ValueError)
_PACE = 5.0  # events a second of each stream
_LEAST_S = 10.0  # of a stream: longer than the hand-overs take


class _Clients:
    """Clients that ask one request after another, until they are stopped."""

    def __init__(self, port: int, payload: bytes) -> None:
        self._port = port
        self._payload = payload
        self.stopped = False
        self.answered = 0
        self.failures: list[str] = []
        self.slowest = 0.0  # seconds to connect and be answered

    async def keep_one_connection(self) -> None:
        """As SDKs do: the connection stays open until an answer says that it closes."""
        peer = None
        while not self.stopped:
            start = perf_counter()
            try:
                peer = peer or await asyncio.open_connection(HOST, self._port)
                if await self._ask(*peer):
                    peer[1].close()
                    peer = None
            except _FAILURES as error:
                self.failures.append(repr(error))
                peer = None
            self.slowest = max(self.slowest, perf_counter() - start)
        if peer is not None:
            peer[1].close()

    async def open_new_connections(self) -> None:
        """As scripts do: each request has a connection of its own."""
        while not self.stopped:
            start = perf_counter()
            try:
                peer = await asyncio.open_connection(HOST, self._port)
                await self._ask(*peer)
                peer[1].close()
            except _FAILURES as error:
                self.failures.append(repr(error))
            self.slowest = max(self.slowest, perf_counter() - start)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether its connection closes."""
        writer.write(self._payload)
        async with asyncio.timeout(_ANSWER_S):
            head = await reader.readuntil(HEAD_END)
            if not head.startswith(OK):
                raise LoadError(head[:200].decode(errors="replace"))
            fields = head.lower().split(b"\r\n")
            length = next((line for line in fields if line.startswith(b"content-length:")), b"")
            await reader.readexactly(int(length.partition(b":")[2]))
        self.answered += 1
        return b"connection: close" in fields


async def handover_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """Requests and streams, while the relay reloads its settings and is replaced twice."""
    assert isinstance(rival, Relay)
    streams = stage.settings.streams
    seconds = max(_LEAST_S, stage.settings.seconds)
    script = f"tokens={round(seconds * _PACE)};pace={_PACE:g}"
    expected = await stage.events_of(script)
    payload = MESSAGES.request(rival.json_port, rival.key, JSON_ANSWER, stream=False)
    clients = _Clients(rival.json_port, payload)
    load = stream_load(rival, script)
    with ExitStack() as held:
        try:
            await load.open(streams, 1.0)
            ways = (clients.keep_one_connection, clients.open_new_connections)
            tasks = [asyncio.ensure_future(way()) for way in ways for _ in range(_CLIENTS)]
            try:
                took = await _replace(stage, rival, process, held)
                # A stream that had ended shows nothing of the last hand-over.
                check_outlived(load.completed, "the last hand-over was over")
            finally:
                clients.stopped = True
                await asyncio.gather(*tasks)
            cut = 0
            try:
                await load.ended(seconds + 30.0)
            except LoadError as error:
                cut = streams - load.completed
                clients.failures.append(str(error))
            cut += sum(1 for count in load.counts if count != expected)
        finally:
            load.close()
    if clients.failures:
        stage.notes.append(f"handover: {clients.failures[0][:200]}")
    return {
        "cut_streams": cut,
        "failed_requests": len(clients.failures),
        "requests": clients.answered,
        "slowest_ms": clients.slowest * 1e3,
        "handover_ms": took * 1e3,
    }


async def _replace(stage: Stage, rival: Relay, process: Process, held: ExitStack) -> float:
    """A reload, then new processes; the seconds until the slowest of them served."""
    await asyncio.sleep(_BETWEEN_S)
    os.kill(process.pid, signal.SIGHUP)
    await asyncio.sleep(_BETWEEN_S)
    slowest = 0.0
    for number in range(_HAND_OVERS):
        log = rival.folder / f"successor-{number}.err"
        log.unlink(missing_ok=True)
        argv = [*rival.argv(), "--takeover"]
        start = perf_counter()
        successor = Process(rival.name, argv, stage.cores.proxy, log, rival.environment())
        held.enter_context(successor)
        while _LISTENS not in successor.tail(100):
            if not successor.running() or perf_counter() - start > _READY_S:
                raise BenchError(f"no hand-over within {_READY_S:g} s\n{successor.tail()}")
            await asyncio.sleep(0.01)
        slowest = max(slowest, perf_counter() - start)
        await asyncio.sleep(_BETWEEN_S)
    return slowest

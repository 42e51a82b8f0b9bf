"""A round of mixed agents: pauses, tool loops with growing conversations, and turns left early.

Decides what each agent does, from a fixed seed, so that every round plays the same traces: its
dialect, the length and the pace of its answers, when it thinks, calls a tool or leaves. Only a
rival with all dialects can play them. Must not know how a rival is configured.
"""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from random import Random
from time import perf_counter

import orjson

from bench.conversations import CONVERSATIONS, TOOL, Conversation
from bench.dialects import HOST
from bench.http import answer_of
from bench.loadgen import HEAD_END, OK, LoadError, quantile
from bench.process import Process
from bench.rivals.relay import Relay
from bench.rivals.rival import Rival
from bench.rounds import judged
from bench.stage import Figures, Stage, Window

_SEED = 20
_AGENTS = 24
_TURNS = 8
_PAUSE_S = (0.02, 0.4)
_TOKENS = (10, 120)
_PACE = (100, 400)  # events a second
_LEAVES = 0.12  # share of the turns that an agent leaves early, and asks again
_THINKS = 0.3
_CALLS = 0.5
_SETTLE_S = 10.0
_TURN_S = 30.0  # in which any turn is over
# Of a turn: no answer, none in time, a wrong one, and events that make no turn.
_FAILURES = (OSError, EOFError, LoadError, ValueError, LookupError, TypeError)
_PROMPT = "Read the module, run its tests, and say which of them fails first. "
_RESULT = "collected 41 items; 1 failed, 40 passed in 2.31s\n" * 6
# The simulator counts the output of complete answers only.
_LEDGER = """
SELECT count(*), coalesce(sum(input), 0), coalesce(sum(output) FILTER (WHERE outcome = 'whole'), 0),
    coalesce(sum(cache_read), 0), coalesce(sum(cache_write), 0) FROM usage WHERE number > ?
"""
_TOTALS = (
    "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
)  # fmt: skip


@dataclass(slots=True)
class _Counts:
    """The sums over all agents."""

    turns: int = 0
    left: int = 0
    failures: list[str] = field(default_factory=list)
    first: list[int] = field(default_factory=list)  # nanoseconds until the first event


class _Agent:
    """One agent on one connection, which it opens anew after it has left a stream."""

    def __init__(self, rival: Rival, number: int, counts: _Counts) -> None:
        self._random = Random(f"{_SEED}-{number}")  # noqa: S311 - the same traces each time
        names = sorted(CONVERSATIONS)
        self._talk: Conversation = CONVERSATIONS[names[number % len(names)]]()
        self._rival = rival
        self._counts = counts
        self._peer: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def play(self) -> None:
        random = self._random
        answered = True  # the user speaks next
        await asyncio.sleep(random.uniform(0, 1))
        for turn in range(_TURNS):
            if answered:
                self._talk.say(f"{turn}: {_PROMPT * random.randint(1, 20)}")
            script = self._script(answered)
            leaves = random.random() < _LEAVES
            try:
                async with asyncio.timeout(_TURN_S):
                    stream = await self._ask(script, leaves)
                if stream:
                    answered = not self._talk.take(stream, _RESULT)
            except _FAILURES as error:
                self._counts.failures.append(f"{self._talk.dialect.name}: {error!r}")
                self._leave()
                continue
            self._counts.turns += 1
            await asyncio.sleep(random.uniform(*_PAUSE_S))
        self._leave()

    def _script(self, from_user: bool) -> str:
        random = self._random
        pace = f"pace={random.randint(*_PACE)}"
        thinks = ";thinking=1" if random.random() < _THINKS else ""
        if from_user and random.random() < _CALLS:
            return f"tool={TOOL};{pace}{thinks}"
        return f"tokens={random.randint(*_TOKENS)};{pace}{thinks}"

    async def _ask(self, script: str, leaves: bool) -> bytes:
        """One turn: its stream, or nothing if the agent left it."""
        dialect, rival = self._talk.dialect, self._rival
        if self._peer is None:
            self._peer = await asyncio.open_connection(HOST, rival.sse_port, limit=1 << 24)
        reader, writer = self._peer
        start = perf_counter()
        writer.write(dialect.framed(rival.sse_port, rival.key, script, self._talk.body()))
        head = await reader.readuntil(HEAD_END)
        if not head.startswith(OK):
            more = await reader.read(2_000)
            raise LoadError((head + more)[:1_500].decode(errors="replace"))
        pieces: list[bytes] = []
        while size := int(await reader.readline(), 16):
            if not pieces:
                self._counts.first.append(round((perf_counter() - start) * 1e9))
            pieces.append((await reader.readexactly(size + 2))[:-2])
            if leaves and len(pieces) > 2:
                self._counts.left += 1
                self._leave()
                return b""
        await reader.readline()
        stream = b"".join(pieces)
        if dialect.last not in stream[-4_000_000:]:
            raise LoadError(f"a stream without its end: …{stream[-200:]!r}")
        return stream

    def _leave(self) -> None:
        if self._peer is not None:
            self._peer[1].transport.abort()
            self._peer = None


async def agents_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """CPU per turn, time to the first event, failures, and whether the ledger adds up."""
    assert isinstance(rival, Relay)
    testbed = stage.testbeds["simulator"]
    await answer_of(HOST, testbed.port, "/simulate/requests", method="DELETE")
    before = _newest(rival)
    counts = _Counts()
    window = Window(stage, process, testbed.upstream)
    async with asyncio.TaskGroup() as group:
        for number in range(_AGENTS):
            group.create_task(_Agent(rival, number, counts).play())
    figures = judged(rival, window.close(counts.turns, "turns"), busy=False)
    if counts.failures:
        stage.notes.append(f"agents: {counts.failures[0][:300]}")
    return figures | {
        "first_p50_us": quantile(counts.first, 0.50) / 1e3,
        "first_p99_us": quantile(counts.first, 0.99) / 1e3,
        "turns": counts.turns,
        "left": counts.left,
        "failures": len(counts.failures),
        "ledger_off": await _ledger_off(rival, testbed.port, before),
    }


def _newest(rival: Relay) -> int:
    with closing(sqlite3.connect(rival.database)) as database:
        return int(database.execute("SELECT coalesce(max(number), 0) FROM usage").fetchone()[0])


async def _ledger_off(rival: Relay, port: int, before: int) -> int:
    """How far the ledger is from the simulator's counts, in requests and in tokens.

    Of a stream that was left, only the input is compared.
    """
    deadline = perf_counter() + _SETTLE_S
    while True:
        report = orjson.loads(await answer_of(HOST, port, "/simulate/requests"))
        totals = report["totals"]
        expected = [totals["requests"], *(totals[name] for name in _TOTALS)]
        found = _ledger(rival, before)
        off: int = sum(abs(a - b) for a, b in zip(expected, found, strict=True))
        if not off or perf_counter() > deadline:
            return off
        await asyncio.sleep(0.2)


def _ledger(rival: Relay, before: int) -> list[int]:
    """Requests and tokens since a row, in the order of the simulator's totals."""
    with closing(sqlite3.connect(rival.database)) as database:
        row = database.execute(_LEDGER, (before,)).fetchone()
    return [int(value) for value in row]

"""No request, of whatever shape, keeps other callers waiting while it is read.

Each attack runs over real sockets beside a stream of another caller, while a watcher measures how
long the loop stands still.
"""

import asyncio
import contextlib
import gc
import gzip
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import NamedTuple

import pytest
import zstandard

from tests.fakes.caller import connected, read_answer, read_head, request
from tests.fakes.live import Live, RelayWith
from tests.fakes.until import until

MODEL = "claude-haiku-4-5"
STALL = 0.1  # seconds; twice the promise, for a busy machine
TRIES = 3  # other work on the machine counts as well
MIB = 1 << 20

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"


class Attack(NamedTuple):
    """A request; `encoding` names how its body is compressed."""

    path: str
    body: bytes
    encoding: str = ""
    chunk: int = 0  # octets in a chunk; 0 for no chunked coding
    statuses: tuple[int, ...] = (200, 400, 413)


def chat(messages: str, **more: str) -> bytes:
    members = "".join(f',"{name}":{value}' for name, value in more.items())
    return f'{{"model":"{MODEL}","messages":[{messages}]{members}}}'.encode()


def messages(content: str, **more: str) -> bytes:
    message = f'{{"role":"user","content":{content}}}'
    return chat(message, max_tokens="16", **more)


def responses(items: str, **more: str) -> bytes:
    members = "".join(f',"{name}":{value}' for name, value in more.items())
    return f'{{"model":"{MODEL}","input":{items}{members}}}'.encode()


def thought(details: str) -> str:
    said = '{"role":"user","content":"x"}'
    return f'{said},{{"role":"assistant","content":"y","reasoning_details":[{details}]}},{said}'


def pieces() -> bytes:
    """FINDINGS C1: a long text, and thousands of pieces that are joined to it."""
    first = '{"type":"reasoning.text","index":0,"text":"%s"},' % ("A" * 8 * MIB)
    return chat(
        thought(first + ",".join(['{"type":"reasoning.text","index":0,"text":"b"}'] * 8000))
    )


def places(count: int) -> bytes:
    """FINDINGS C1: a long text, and thousands of thoughts with places in it."""
    text = '"%s"' % ("é" * 2 * MIB)
    details = ",".join(
        f'{{"type":"reasoning.text","id":"thinking-{number}-0","format":"anthropic-claude-v1",'
        f'"text":"b","signature":"s"}}'
        for number in range(count)
    )
    said = '{"role":"user","content":"x"}'
    return chat(
        f'{said},{{"role":"assistant","content":{text},"reasoning_details":[{details}]}},{said}'
    )


def equal_calls(count: int) -> bytes:
    call = '{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}'
    result = '{"role":"tool","tool_call_id":"c","content":"x"}'
    asked = f'{{"role":"assistant","tool_calls":[{",".join([call] * count)}]}}'
    return chat(f'{{"role":"user","content":"x"}},{asked},{",".join([result] * count)}')


def many(element: str, octets: int) -> str:
    return ",".join([element] * (octets // (len(element) + 1)))


def text_parts(count: int) -> str:
    return "[" + ",".join(['{"type":"text","text":"a"}'] * count) + "]"


TURNS = '{"role":"user","content":"a"},{"role":"assistant","content":"a"}'

ATTACKS: dict[str, Callable[[], Attack]] = {
    "pieces of thinking": lambda: Attack(CHAT, pieces(), "gzip"),
    "places of thinking": lambda: Attack(CHAT, places(256), "gzip"),
    "equal call ids": lambda: Attack(CHAT, equal_calls(10_000), "gzip"),
    "unknown tools": lambda: Attack(
        CHAT, chat('{"role":"user","content":"x"}', tools=f"[{many(TOOL, 18 * MIB)}]"), "gzip"
    ),
    "text parts": lambda: Attack(
        CHAT, chat(f'{{"role":"user","content":{text_parts(640_000)}}}'), "gzip", statuses=(413,)
    ),
    "allowed text parts": lambda: Attack(
        CHAT, chat(f'{{"role":"user","content":{text_parts(33_000)}}}'), "gzip"
    ),
    "many items": lambda: Attack(RESPONSES, responses(f"[{','.join([TURNS] * 16_000)}]")),
    "empty blocks": lambda: Attack(
        MESSAGES, messages(f"[{many('{}', 24 * MIB)}]"), statuses=(413,)
    ),
    "empty items": lambda: Attack(RESPONSES, responses(f"[{many('{}', 140_000)}]")),
    "members of a block": lambda: Attack(
        MESSAGES,
        messages('"x"', system="[{{{}}}]".format(",".join(f'"{n}":1' for n in range(2_000_000)))),
        statuses=(413,),
    ),
    "allowed members of a block": lambda: Attack(
        MESSAGES,
        messages('"x"', system="[{{{}}}]".format(",".join(f'"{n}":1' for n in range(99_000)))),
    ),
    "models": lambda: Attack(MESSAGES, messages('"x"', z=f"[{many(MODEL_KEY, 20 * MIB)}]")),
    "brackets": lambda: Attack(MESSAGES, messages('"x"', z="[" * 30 * MIB)),
    "plain text": lambda: Attack(MESSAGES, messages('"%s"' % ("a" * 31 * MIB))),
    "plain text in chat": lambda: Attack(
        CHAT, chat('{"role":"user","content":"%s"}' % ("a" * 31 * MIB)), "zstd"
    ),
    "escapes": lambda: Attack(CHAT, chat('{"role":"user","content":"%s"}' % (r"\n" * 15 * MIB))),
    "allowed escapes": lambda: Attack(
        CHAT, chat('{"role":"user","content":"%s"}' % (r"\n" * 4_000_000)), "gzip"
    ),
    "words of a URL": lambda: Attack(
        CHAT,
        chat(
            '{"role":"user","content":[{"type":"image_url","image_url":"http://a/%s"}]}'
            % (r"\n" + " a" * 8 * MIB)
        ),
        "gzip",
    ),
    "small chunks": lambda: Attack(MESSAGES, messages('"%s"' % ("a" * 800_000)), chunk=1),
    "a bomb": lambda: Attack(CHAT, bytes(64 * MIB), "zstd", statuses=(413,)),
    "a bomb of gzip": lambda: Attack(CHAT, bytes(64 * MIB), "gzip", statuses=(413,)),
}
TOOL = '{"type":"z"}'
MODEL_KEY = '"model"'


def octets_of(attack: Attack, key: str) -> bytes:
    fields, body = "", attack.body
    if attack.encoding:
        compress = gzip.compress if attack.encoding == "gzip" else zstandard.compress
        body = compress(body)
        fields = f"content-encoding: {attack.encoding}\r\n"
    octets = request(key, body, target=attack.path, fields=fields)
    if attack.chunk:
        head = octets[: octets.index(b"content-length")]
        step = attack.chunk
        chunks = [
            b"%x\r\n%b\r\n" % (len(body[at : at + step]), body[at : at + step])
            for at in range(0, len(body), step)
        ]
        octets = head + b"transfer-encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n\r\n"
    return octets


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """The garbage collector as `relay serve` sets it."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


class Watcher:
    """`worst`: the longest time that the loop stood still, in seconds."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def watch(self) -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.001)
            now = time.monotonic()
            self.worst = max(self.worst, now - before - 0.001)
            before = now


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[Watcher]:
    watcher = Watcher()
    task = asyncio.create_task(watcher.watch())
    try:
        yield watcher
    finally:
        task.cancel()


def send(port: int, octets: bytes) -> bytes:
    """Sends a request; in a thread, so as not to occupy the loop."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with contextlib.suppress(ConnectionError):  # refused, and closed, before all was sent
            connection.sendall(octets)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                answer += data
                if b"\r\n\r\n" in answer:
                    return answer
        return answer


@pytest.fixture(scope="module")
def distant_upstream() -> Iterator[str]:
    """An upstream in a process of its own, so that its work is none of this loop's."""
    command = [sys.executable, "-m", "tests.attacks.distant"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


async def honest_stream(live: Live, gaps: list[float]) -> None:
    """Reads a stream without end, and notes the time between its events."""
    body = {"model": MODEL, "max_tokens": 9, "stream": True, "messages": []}
    async with connected(live.port, wait=60) as (reader, writer):
        writer.write(request(live.key, body))
        await read_head(reader)
        before = time.monotonic()
        while await reader.readuntil(b"\n\n"):
            gaps.append(time.monotonic() - before)
            before = time.monotonic()


async def honest_request(live: Live) -> None:
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key))
        assert (await read_answer(reader))[0] == 200


@pytest.mark.alone
@pytest.mark.parametrize("name", ATTACKS)
async def test_no_request_stops_another(
    name: str, distant_upstream: str, relay_with: RelayWith
) -> None:
    attack = ATTACKS[name]()
    live = await relay_with(distant_upstream, responses={"store": "off"})
    key = await live.new_key()
    octets = octets_of(attack, key)
    worst = []
    gaps: list[float] = []
    stream = asyncio.create_task(honest_stream(live, gaps))
    await until(lambda: len(gaps) > 5 or stream.done())
    for _ in range(TRIES):
        gaps.clear()
        async with watched() as watcher:
            attacker = asyncio.create_task(asyncio.to_thread(send, live.port, octets))
            while not attacker.done():
                await honest_request(live)
        answer = await attacker
        assert int(answer.split()[1]) in attack.statuses, answer
        worst.append((round(watcher.worst, 4), round(max(gaps), 4)))
        if max(worst[-1]) <= STALL:
            break
    assert not stream.done()
    stream.cancel()
    assert max(min(worst, key=max)) <= STALL, worst

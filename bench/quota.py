"""A round of quota: a thousand requests at once on a key that has forty left.

Decides what counts as admitted and as turned away; any other answer is a `LoadError`. Only builds
of relay have such keys. Must not know how a rival is configured.
"""

import asyncio
from collections import Counter

from bench.dialects import HOST, MESSAGES
from bench.http import answer_of
from bench.loadgen import HEAD_END, LoadError
from bench.process import Process
from bench.rivals.relay import SMALL_PLAN, SMALL_PLAN_REQUESTS, Relay
from bench.rivals.rival import Rival
from bench.stage import JSON_ANSWER, Figures, Stage

AT_ONCE = 1_000
_ANSWER_S = 30.0
_KNOWN_S = 10.0
_ADMITTED, _TURNED_AWAY = 200, 429


async def quota_round(stage: Stage, rival: Rival, process: Process) -> Figures:
    """How many of them are admitted, and how far that is from the number that the key had left."""
    assert isinstance(rival, Relay)
    number = len(stage.results.get("quota", {}).get(rival.name, ()))
    email = f"quota-{number}@example.com"
    key = await asyncio.to_thread(rival.new_key, email, SMALL_PLAN)
    await _known(rival, key)
    payload = MESSAGES.request(rival.json_port, key, JSON_ANSWER, stream=False)
    peers = [await asyncio.open_connection(HOST, rival.json_port) for _ in range(AT_ONCE)]
    try:
        for _, writer in peers:
            writer.write(payload)
        async with asyncio.timeout(_ANSWER_S):
            statuses = Counter(await asyncio.gather(*(_status(reader) for reader, _ in peers)))
    except TimeoutError:
        raise LoadError(f"{AT_ONCE} requests were not answered in {_ANSWER_S:g} s") from None
    finally:
        for _, writer in peers:
            writer.close()
    if others := {status: n for status, n in statuses.items() if status not in (200, 429)}:
        raise LoadError(f"instead of 200 or 429 came {others}")
    admitted = statuses[_ADMITTED]
    return {
        "admitted": admitted,
        "turned_away": statuses[_TURNED_AWAY],
        "off_by": abs(admitted - SMALL_PLAN_REQUESTS),
    }


async def _known(rival: Rival, key: str) -> None:
    """Wait until the running relay knows a new key."""
    deadline = asyncio.get_running_loop().time() + _KNOWN_S
    is_known = False
    while not is_known:
        try:
            await answer_of(HOST, rival.json_port, "/v1/usage", f"x-api-key: {key}\r\n")
            is_known = True
        except LoadError:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.05)


async def _status(reader: asyncio.StreamReader) -> int:
    try:
        head = await reader.readuntil(HEAD_END)
    except (OSError, asyncio.IncompleteReadError) as error:
        raise LoadError(f"a request was not answered: {error!r}") from None
    return int(head.split(b" ", 2)[1])

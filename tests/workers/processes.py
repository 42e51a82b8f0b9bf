"""The processes of one relay, as the operating system shows them, and many callers at once."""

import asyncio
from collections import Counter
from pathlib import Path

from tests.durability.process import Running
from tests.fakes.caller import read_answer, request


def children(pid: int) -> list[int]:
    """The processes that a process has started, and that have not ended."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    found = [int(one) for task in tasks for one in (task / "children").read_text().split()]
    return [one for one in found if is_alive(one)]


def nursery_of(running: Running) -> int:
    """The process that forks workers."""
    [nursery] = children(running.process.pid)
    return nursery


def workers_of(running: Running) -> list[int]:
    """The worker processes of a relay."""
    return children(nursery_of(running))


def is_alive(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def ask(port: int, key: str, times: int, statuses: Counter[int]) -> None:
    """Send so many requests over one connection, one after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for _ in range(times):
            writer.write(request(key))
            status, _, _ = await read_answer(reader)
            statuses[status] += 1
    finally:
        writer.transport.abort()


async def ask_at_once(port: int, keys: list[str], connections: int, each: int) -> Counter[int]:
    """Many callers at once, `connections` of each key; the statuses of all answers."""
    statuses: Counter[int] = Counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            for key in keys:
                group.create_task(ask(port, key, each, statuses))
    return statuses

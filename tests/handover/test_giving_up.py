"""A process that starts too slowly is refused the place, whatever it sends then."""

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest

from relay.handover.channel import KIND
from relay.handover.offer import Offer
from tests.fakes.caller import connected, read_answer, request
from tests.fakes.live import RelayWith


@pytest.mark.parametrize("steps", [1, 2], ids=["before it has begun", "once this one waits"])
async def test_a_process_that_was_given_up_gets_no_place(
    relay_with: RelayWith, tmp_path: Path, steps: int
) -> None:
    live = await relay_with()
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    offer = Offer(live.app, lock, [])
    offer.start()
    offer.give_up("nobody has asked")
    assert not offer.failed.is_set()
    with socket.socket(socket.AF_UNIX, KIND) as successor:
        await _ask(successor, tmp_path, steps)
        offer.give_up("it started too slowly")
        offer.give_up("a second time")
        with contextlib.suppress(OSError):
            successor.send(b'.["loaded"]')
        await asyncio.wait_for(offer.failed.wait(), 5)
    assert offer.failure == "it started too slowly"
    assert not offer.left.is_set()
    async with connected(live.port) as (reader, writer):
        writer.write(request(live.key))
        assert (await read_answer(reader))[0] == 200
    offer.failed.clear()
    with socket.socket(socket.AF_UNIX, KIND) as another:  # it may ask again
        await _ask(another, tmp_path, 2)
    await asyncio.wait_for(offer.failed.wait(), 5)
    offer.close()
    os.close(lock)


async def _ask(successor: socket.socket, folder: Path, steps: int) -> None:
    """Ask for the place, in so many steps, and get an answer to each."""
    loop = asyncio.get_running_loop()
    successor.setblocking(False)
    successor.connect(str(folder / "relay.db.handover"))
    for message in (b'.["take",1,"9.9"]', b'.["freeze"]')[:steps]:
        await loop.sock_sendall(successor, message)
        assert await asyncio.wait_for(loop.sock_recv(successor, 1 << 17), 5)

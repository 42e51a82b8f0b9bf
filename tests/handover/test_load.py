"""Hand-overs under load: nothing is refused, reset or cut, and the ledger balances."""

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.fakes.until import until
from tests.scoreboard import RecordProperty

from .relays import Load, Relays, balanced


@contextlib.contextmanager
def relays_in(folder: Path) -> Iterator[Relays]:
    relays = Relays(folder)
    try:
        yield relays
    finally:
        relays.kill()


async def hand_over(
    home: tuple[Path, str],
    *,
    times: int,
    clients: int,
    streams: int,
    script: str,
    requests: int = 0,
) -> Load:
    """Hand over so many times under load, and check what it cost. The relay that takes over first
    has the settings in relay.toml.next, if they are there."""
    folder, key = home
    path = folder / "relay.toml"
    path.write_text(path.read_text().replace("drain = 30", "drain = 600"))  # the default
    with relays_in(folder) as relays:
        await relays.start()
        load = Load(relays.port, key)
        started = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as group:
            for _ in range(streams):
                group.create_task(load.read_stream(script, started))
            for _ in range(streams):
                await started.acquire()
            for _ in range(clients):
                group.create_task(load.ask_on_one_connection())
                group.create_task(load.ask_on_new_connections())
            for number in range(1, times + 1):
                await until(partial(load.has_answers, requests * number // times), within=120)
                after = folder / "relay.toml.next"
                if after.exists():
                    after.rename(path)
                await relays.start()
            await asyncio.sleep(0.3)
            load.stopped.set()
        for number in range(times):
            assert await relays.ended(number) == 0
        relays.last.terminate()
        assert await relays.ended(-1) == 0
        reconnected = load.outcomes.pop("reconnected")
        print(dict(load.outcomes), f"{reconnected} reconnected, slowest {load.slowest:.3f} s")
        assert set(load.outcomes) == {"200"}
        assert len(load.streams) == streams
        assert all(b"message_stop" in one for one in load.streams)
        balanced(relays, load.outcomes["200"])
        for number in range(times):
            assert "requests in flight finish here" in relays.said(number)
            assert "ERROR" not in relays.said(number)
    return load


async def test_hand_overs_under_load_cost_nothing(
    metered: tuple[Path, str], record_property: RecordProperty
) -> None:
    load = await hand_over(
        metered, times=2, clients=3, streams=10, script="tokens=20;pace=4;seed=same"
    )
    record_property(
        "figure", f"2 hand-overs, {load.outcomes['200']} requests, slowest {load.slowest:.2f} s"
    )


@pytest.mark.long
async def test_twelve_hand_overs_under_load_cost_nothing(metered: tuple[Path, str]) -> None:
    load = await hand_over(
        metered,
        times=12,
        clients=8,
        streams=200,
        script="tokens=100;pace=2;seed=same",
        requests=50_000,
    )
    assert load.outcomes["200"] >= 50_000

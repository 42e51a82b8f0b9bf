"""No request, of whatever shape, keeps other callers waiting while it is read.

Each attack runs over real sockets beside a stream of another caller. The relay is a process of its
own. The longest turn of its loop is measured in CPU time, of which other work of the machine is no
part.
"""

import asyncio
from collections.abc import Iterator

import pytest

from tests.attacks.honest import HonestCaller, distant_upstream
from tests.attacks.large_bodies import ATTACKS, octets_of, send, send_and_leave
from tests.attacks.relay_process import RelayProcess, relay_process
from tests.fakes.live import upstream_row
from tests.fakes.until import until

STALL_SECONDS = 0.05  # of the loop's CPU time; for other threads' see test_single_calls.py
END_SECONDS = 0.015  # 9 ms on a machine with nothing else to do
TRIES = 4  # what a machine with other work does once, it does not do each time

# One of each kind; the others are run with `-m long`.
OFTEN = {
    *("pieces of thinking", "places of thinking", "allowed text parts", "plain text"),
    *("allowed members of a block", "a long call", "small chunks", "a bomb", "many items"),
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with distant_upstream() as url:
        yield url


@pytest.fixture(scope="module")
def relay(upstream: str) -> Iterator[RelayProcess]:
    """Two upstreams: then the relay looks for a request's conversation, too."""
    rows = [upstream_row(name, upstream) for name in ("one", "two")]
    plans = [{"id": "free", "max_keys": 100, "exclude": ["fast"]}]
    with relay_process(rows, responses={"store": "memory"}, plan=plans) as process:
        yield process


@pytest.mark.alone
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in OFTEN else pytest.mark.long) for n in ATTACKS]
)
async def test_no_request_stops_another(name: str, relay: RelayProcess) -> None:
    attack = ATTACKS[name]()
    honest = HonestCaller(relay.port, relay.key)
    octets = octets_of(attack, relay.new_key())
    honest.start()
    await until(lambda: len(honest.gaps) > 5)
    worst = []
    for _ in range(TRIES):
        relay.longest_turn()
        attacker = asyncio.create_task(asyncio.to_thread(send, relay.port, octets))
        while not attacker.done():
            assert await asyncio.to_thread(honest.ask) == 200
        answer = await attacker
        assert int(answer.split()[1]) in attack.statuses, answer
        worst.append(relay.longest_turn())
        if worst[-1] <= STALL_SECONDS:
            break
    assert honest.reads
    honest.stop()
    assert worst[-1] <= STALL_SECONDS, worst


@pytest.mark.alone
@pytest.mark.parametrize("name", ["many items", "allowed text parts", "plain text"])
@pytest.mark.parametrize("end", ["answered", "refused", "left"])
async def test_no_request_that_ends_stops_another(name: str, end: str, relay: RelayProcess) -> None:
    """Its parts are freed, copied and kept beside the loop, however it ends."""
    attack = ATTACKS[name]()
    if end == "refused":  # by the plan, once it has been read
        attack = attack._replace(body=attack.body[:-1] + b',"speed":"fast"}')
    octets = octets_of(attack, relay.new_key())
    worst = []
    for _ in range(TRIES):
        relay.longest_turn()
        if end == "left":
            await asyncio.to_thread(send_and_leave, relay.port, octets)
            await asyncio.sleep(1)
        else:
            await asyncio.to_thread(send, relay.port, octets)
            await asyncio.sleep(0.2)
        worst.append(relay.longest_turn())
        if worst[-1] <= END_SECONDS:
            break
    assert worst[-1] <= END_SECONDS, worst

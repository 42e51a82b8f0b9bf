"""Many requests at once on small balances: nothing is free that costs, nobody goes far below zero.

Upstreams bill in all shapes, upstreams fail, and callers leave at random moments.
"""

import asyncio
import contextlib
import random

import pytest

from tests.fakes.caller import connected, read_head, request
from tests.fakes.live import EMAIL, Live, RelayWith
from tests.fakes.until import until
from tests.fakes.upstream import UpstreamWith
from tests.gateway.metering import PAID, PRICED, beside, pay
from tests.gateway.money import PATHS, Case, Vendor, billed, case
from tests.quota.rows import balance_of

_TOP_UP = 1_500_000  # micro-dollars: little more than one request with a full context
_AT_ONCE = 12
# The text that a caller has read, less a tolerance: its length is computed, not counted.
_TOLERANCE_TOKENS = 12


async def ask_and_maybe_leave(relay: Live, one: Case, rng: random.Random) -> None:
    """Send one request; read its answer, or leave when the case says so."""
    async with connected(relay.port) as (reader, writer):
        fields = "connection: close\r\n"
        writer.write(request(relay.key, one.octets, target=PATHS[one.dialect], fields=fields))
        if one.leaves == "waiting":
            await asyncio.sleep(rng.random() * 0.012)
            return
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            one.status, _ = await read_head(reader)
            wanted = rng.randrange(1, one.words + 1) if one.leaves == "reading" else 10**9
            seen = b""
            while data := await reader.read(65536):
                seen += data
                one.read = 5 * seen.count(b"word ")
                one.started = one.started or one.read > 0
                if one.leaves and one.stream and one.read >= 5 * wanted:
                    return
            one.finished = not one.fault


def least(one: Case) -> int:
    """The micro-dollars that a request must have cost, by the rules of relay/docs/billing.md."""
    if one.status not in (0, 200) or one.fault == "400" or not one.received:
        return 0
    if one.finished:
        return billed(one.usage)
    if one.stream and one.started:
        start = {**one.usage, "output_tokens": max(1, one.read // 4 * 0.9 - _TOLERANCE_TOKENS)}
        start.pop("iterations", None)
        return billed(start)
    if one.fault or one.leaves != "waiting":
        return 0
    return min(3 * one.prompt, billed(one.usage))


def most(one: Case) -> int:
    """The micro-dollars that a request may have cost: its text may be thought 20 % longer."""
    if one.status not in (0, 200) or one.fault == "400" or not one.received:
        return 0
    if one.finished:
        return billed(one.usage)
    text = {**one.usage, "output_tokens": int(one.words * 1.5 * 1.2) + _TOLERANCE_TOKENS}
    return max(billed(one.usage), billed(text), 3 * one.prompt)


async def spend(relay: Live, vendor: Vendor, count: int, seed: int) -> list[Case]:
    """Run `count` requests, and pay in whenever the balance is used up."""
    rng = random.Random(seed)
    [account] = relay.app.ledger._balances or [""]
    cases: list[Case] = []
    lowest = 0

    async def worker() -> None:
        nonlocal lowest
        while len(cases) < count:
            one = case(rng, len(cases))
            cases.append(one)
            vendor.cases[one.number] = one
            await ask_and_maybe_leave(relay, one, rng)
            lowest = min(lowest, balance_of(relay.app.ledger, account))
            if balance_of(relay.app.ledger, account) < _TOP_UP // 4:
                await pay(relay, _TOP_UP - balance_of(relay.app.ledger, account))

    await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))
    dearest = max(billed(one.usage) for one in cases)
    assert -lowest <= dearest, "below zero by more than one answer"
    return cases


@pytest.mark.parametrize(
    "count", [500, pytest.param(10_000, marks=pytest.mark.long)], ids=["some", "many"]
)
async def test_nothing_is_free_that_an_upstream_bills(
    upstream_with: UpstreamWith, relay_with: RelayWith, count: int
) -> None:
    vendor = Vendor(random.Random(7))
    relay = await relay_with(await upstream_with(vendor.answer), plan=PAID, model=PRICED)
    await pay(relay, _TOP_UP)
    await until(lambda: relay.app.ledger._balances, within=2)
    cases = await spend(relay, vendor, count, seed=11)
    await until(lambda: not relay.app.upstreams[0].in_flight)
    [account] = relay.app.ledger._balances
    balance = relay.app.ledger._balances[account]
    await until(lambda: balance.held == 0)
    with beside(relay) as connection:

        def written() -> bool:
            [[charged]] = connection.execute("SELECT coalesce(sum(cost_micro), 0) FROM usage")
            return bool(charged == balance.charged)

        await until(written)
        rules = dict(connection.execute("SELECT rule, count(*) FROM usage GROUP BY 1"))
        [[micro]] = connection.execute("SELECT micro FROM balance WHERE user_id = ?", (account,))
    served = [one for one in cases if one.status == 200]
    assert len(served) > count // 3
    assert set(rules) >= {"reported", "partial", "left", "refunded"}
    assert sum(map(least, cases)) <= balance.charged <= sum(map(most, cases))
    assert micro == balance.amount
    print(f"{EMAIL}: {rules}, charged {balance.charged}, least {sum(map(least, cases))}")

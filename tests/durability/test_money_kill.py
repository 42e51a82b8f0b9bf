"""Statements, usage and balances agree to the micro-dollar, whatever happens: requests, credits,
refunds, redemptions, changes of plan, payments with their refunds, and kill -9, in random order."""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from relay import config
from relay.accounts import AccountError, codes, periods, users
from relay.accounts.codes import BatchOptions
from relay.payments.offers import offered
from relay.store import balance
from relay.store.codes import Grant
from relay.store.database import Database
from relay.store.payments import Payment, open_payment
from relay.store.periods import NewPeriod, present
from relay.store.users import User
from tests.payments.recorded import SECRET, event, signed
from tests.payments.test_kill import NO_TLS

from .conftest import EMAIL
from .metered import PRICE, opened
from .process import Running, data, serving, write_settings
from .test_metering_kill import Seen, one_caller

PLANS = """
[[plan]]
id = "paid"
billing = "per-token"
max_keys = 9
[[plan]]
id = "flat"
max_keys = 9
limits = [{ requests = 1_000_000, per = "5h" }]
"""
PAYMENTS = f"""
[payments]
stripe_key = "sk_test_canary"
webhook_secret = "{SECRET}"
[[payments.offer]]
id = "credit-odd"
title = "Odd credit"
price = 2_000
credit = 7.654321
[[payments.offer]]
id = "paid-day"
title = "A day"
price = 2_000
plan = "paid"
length = "1d"
then = "flat"
"""
CALLERS = 12
DAY = 86_400


class Operator:
    """Changes everything that money depends on, over a connection of its own."""

    def __init__(self, database: Database, settings: config.Settings, dice: random.Random) -> None:
        self._database = database
        self._settings = settings
        self._dice = dice
        self.done: Counter[str] = Counter()
        self.credited = 0
        self.url = ""  # of the relay that runs
        self.unsent: list[bytes] = []  # events that the relay has not taken in for sure

    async def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        actions = (
            self.credit, self.refund, self.redeem, self.change_plan, self.start, self.pay,
        )  # fmt: skip
        while time.monotonic() < until:
            action = self._dice.choice(actions)
            await action()
            self.done[action.__name__] += 1
            await asyncio.sleep(self._dice.random() * 0.03)

    async def _user(self) -> User:
        return await users.find(self._database, EMAIL)

    async def credit(self) -> None:
        amount = self._dice.randrange(1, 10_000_000) * self._dice.choice((1, 1, 1, -1))
        await balance.credit(self._database, (await self._user()).id, amount, "", time.time())
        self.credited += amount

    async def refund(self) -> None:
        rows = await self._database.select(
            "SELECT request_id, amount_micro FROM statement WHERE kind = 'charge' ORDER BY random()"
            " LIMIT 1"
        )
        for request_id, _ in rows:
            with contextlib.suppress(ValueError):  # given back before
                entry = await balance.refund(self._database, request_id, "", time.time())
                self.credited += entry.amount_micro

    async def redeem(self) -> None:
        grant = self._dice.choice(
            (
                Grant("credit", amount_micro=self._dice.randrange(1, 10**7)),
                Grant(
                    "plan", plan=self._dice.choice(("paid", "flat")), seconds=DAY, plan_then="flat"
                ),
            )
        )
        made = await codes.create(
            self._database, self._settings, grant, BatchOptions(), time.time()
        )
        user = await self._user()
        code, replace = made[0].code.reveal(), self._dice.random() < 0.5
        tries = [
            codes.redeem(self._database, user, code, time.time(), replace=replace) for _ in range(3)
        ]
        done = await asyncio.gather(*tries, return_exceptions=True)
        failures = sum(isinstance(one, AccountError) for one in done)
        assert failures == 2 or (failures == 3 and grant.kind == "plan")
        self.credited += grant.amount_micro

    async def change_plan(self) -> None:
        plan = self._dice.choice(("paid", "paid", "flat"))
        await users.set_plan(self._database, self._settings, EMAIL, plan)

    async def start(self) -> None:
        new = NewPeriod(self._dice.choice(("paid", "flat")), DAY, "paid", "test")
        await periods.start(self._database, self._settings, EMAIL, new, time.time())

    async def pay(self) -> None:
        """A payment with what Stripe says of it, in any order; the relay may die meanwhile."""
        purchase = self._dice.choice(list(offered(self._settings).purchases.values()))
        user = await self._user()
        has = present(user, time.time()) if self._dice.random() < 0.5 else None
        payment = await open_payment(self._database, user, purchase, time.time(), has)
        events = [event("session_paid", payment), *refund_events(payment, self._dice)]
        self._dice.shuffle(events)
        self.unsent += events
        await self.send(self._dice.randint(1, len(events)))

    async def send(self, most: int) -> None:
        """Send events as Stripe does: again and again until each is taken in."""
        async with httpx.AsyncClient(base_url=self.url, verify=NO_TLS, timeout=30) as client:
            for body in list(self.unsent[-most:]):
                fields = {"stripe-signature": signed(body)}
                try:
                    answer = await client.post("/payments/stripe", content=body, headers=fields)
                except httpx.TransportError:  # killed: sent again once it is back
                    return
                assert answer.status_code == 200, answer.text
                if self._dice.random() < 0.7:  # else once more
                    self.unsent.remove(body)


def refund_events(payment: Payment, dice: random.Random) -> list[bytes]:
    """Refunds, one of which fails and is made again: 333 of 2,000 are refunded in the end, or
    nothing was."""
    if dice.random() < 0.3:
        return []
    again = {"event": f"evt_again_{payment.id}", "created": 1_796_500_000}
    return [
        event("charge_refunded_part", payment),
        event("refund_failed", payment),
        event("charge_refunded_part", payment, **again),
    ]


def payments_agree(connection: sqlite3.Connection, sent: bool) -> int:
    """Check payments against the statement; returns what they have credited."""
    paid = connection.execute("SELECT * FROM payment WHERE fulfilled_at IS NOT NULL").fetchall()
    sums = dict(
        connection.execute("SELECT reason, sum(amount_micro) FROM statement GROUP BY 1").fetchall()
    )
    assert sums.get("payment", 0) == sum(one["credit_micro"] for one in paid)
    assert -sums.get("reversal", 0) == sum(one["reversed_micro"] for one in paid)
    for one in paid:
        assert one["reversed_micro"] == one["credit_micro"] * one["refunded"] // one["price"]
        assert not sent or one["refunded"] in (0, 333)
    granted = {one["id"] for one in paid if one["plan"]}
    periods = connection.execute("SELECT source FROM period WHERE source LIKE 'pay_%'").fetchall()
    assert sorted(granted) == sorted(source for (source,) in periods)
    return int(sums.get("payment", 0) + sums.get("reversal", 0))


def agrees(folder: Path, operator: Operator) -> int:
    """Check the database of a relay that was killed and started again; returns the charges."""
    with opened(folder) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        [account] = connection.execute("SELECT * FROM balance")
        entries = connection.execute("SELECT * FROM statement ORDER BY id").fetchall()
        running = 0
        for entry in entries:
            running += entry["amount_micro"]
            assert entry["balance_after"] == running
        assert running == account["micro"] == account["credited"] - account["charged"]
        charges = {e["request_id"]: -e["amount_micro"] for e in entries if e["kind"] == "charge"}
        assert account["charged"] == sum(charges.values())
        paid = payments_agree(connection, sent=not operator.unsent)
        assert account["credited"] == operator.credited + paid
        usage = {row["id"]: row for row in connection.execute("SELECT * FROM usage")}
        for request_id, amount in charges.items():
            assert usage[request_id]["cost_micro"] == amount
        refunds = [entry for entry in entries if entry["reason"] == "refund"]
        assert all(charges[one["about"]] == one["amount_micro"] for one in refunds)
        assert len({one["about"] for one in refunds}) == len(refunds)
        [[summed]] = connection.execute("SELECT coalesce(sum(cost_micro), 0) FROM usage_sums")
        assert summed == sum(row["cost_micro"] for row in usage.values())
        return len(charges)


async def killed(running: Running, key: str, operator: Operator, dice: random.Random) -> Seen:
    seen = Seen()
    callers = [
        asyncio.create_task(one_caller(running.port, key, seen, random.Random(dice.random())))
        for _ in range(CALLERS)
    ]
    operator.url = f"http://127.0.0.1:{running.port}"
    ended = asyncio.create_task(operator.run(0.1 + dice.random() * 0.6))
    if dice.random() < 0.5:  # in the middle of a payment, say
        await asyncio.sleep(0.1 + dice.random() * 0.4)
    else:
        await ended
    os.kill(running.process.pid, signal.SIGKILL)
    await running.exited(2)
    async with asyncio.timeout(5):
        await asyncio.gather(*callers, ended)
    return seen


async def money_agrees(folder: Path, key: str, rounds: int) -> None:
    settings = config.load(folder / "relay.toml")
    seed = int(os.environ.get("MONEY_SEED") or random.randrange(10**9))
    print(f"MONEY_SEED={seed}")
    dice = random.Random(seed)
    database = await Database.open(folder / "relay.db")
    operator = Operator(database, settings, dice)
    await operator.credit()
    await users.set_plan(database, settings, EMAIL, "paid")
    complete = charges = 0
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(serving(folder))
        for _ in range(rounds):
            seen = await killed(running, key, operator, dice)
            complete += len(seen.complete)
            running = stack.enter_context(serving(folder))
            assert running.said.startswith("relay"), running.said
            agrees(folder, operator)
            operator.url = f"http://127.0.0.1:{running.port}"
            while operator.unsent:
                await operator.send(len(operator.unsent))
            charges = agrees(folder, operator)
    await database.close()
    print(f"{rounds} kills: {complete} answers, {charges} charges, {dict(operator.done)}")
    assert complete > rounds
    assert charges
    assert len(operator.done) >= 3


@pytest.fixture
def priced(simulator: str, tmp_path: Path) -> tuple[Path, str]:
    write_settings(tmp_path, simulator)
    text = (tmp_path / "relay.toml").read_text()
    text = text.replace('id = "claude-sonnet-4-7"\n', f'id = "claude-sonnet-4-7"\n{PRICE}\n')
    (tmp_path / "relay.toml").write_text(text + PLANS + PAYMENTS)
    data(tmp_path, "user", "create", EMAIL)
    return tmp_path, data(tmp_path, "key", "create", "--user", EMAIL)["key"]


async def test_money_agrees_after_kills(priced: tuple[Path, str]) -> None:
    await money_agrees(*priced, rounds=2)


@pytest.mark.long
async def test_money_agrees_after_many_kills(priced: tuple[Path, str]) -> None:
    await money_agrees(*priced, rounds=25)


def test_the_database_counts_a_movement_once(priced: tuple[Path, str]) -> None:
    """No statement can enter a redemption, refund or payment twice, even with REPLACE."""
    folder, _ = priced
    columns = "(user_id, time, kind, amount_micro, balance_after, reason, about)"
    with opened(folder) as connection:
        insert = f"INTO statement {columns} VALUES ('u', 1.0, 'credit', 5, ?, 'refund', 'req_1')"
        connection.execute(f"INSERT {insert}", (5,))
        for verb in ("INSERT", "REPLACE", "INSERT OR REPLACE"):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(f"{verb} {insert}", (10,))
        [account] = connection.execute("SELECT micro FROM balance WHERE user_id = 'u'")
        assert account["micro"] == 5

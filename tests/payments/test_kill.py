"""kill -9 while Stripe sends events: after they were sent again, each has counted once."""

import asyncio
import random
import signal
import ssl
import time
from pathlib import Path

import httpx

from relay import config
from relay.payments.offers import offered
from relay.store.database import Database
from relay.store.payments import Payment, PaymentFilter, open_payment, payments
from relay.store.users import create_user
from tests.durability.process import Running, serving, write_settings
from tests.payments.recorded import SECRET, event, signed

PAYMENTS = f"""
[payments]
stripe_key = "sk_test_canary"
webhook_secret = "{SECRET}"
[[payments.offer]]
id = "credit-odd"
title = "Odd credit"
price = 2_000
credit = 7.654321
"""
SENDERS = 6
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the system's authorities takes 50 ms
NAMES = ("session_unpaid", "session_paid", "session_late_paid", "charge_refunded_part")


async def deliver(running: Running, bodies: list[bytes], most: int) -> int:
    """Send events, some at once, and kill the relay once it has taken so many; returns how many
    it has taken."""
    taken, waiting = 0, list(bodies)

    async def send(client: httpx.AsyncClient) -> None:
        nonlocal taken
        while waiting:
            body = waiting.pop()
            headers = {"stripe-signature": signed(body)}
            answer = await client.post("/payments/stripe", content=body, headers=headers)
            assert answer.status_code == 200, answer.text
            taken += 1
            if taken == most:
                running.signal(signal.SIGKILL)

    url = f"http://127.0.0.1:{running.port}"
    async with httpx.AsyncClient(base_url=url, verify=NO_TLS, timeout=30) as client:
        senders = [send(client) for _ in range(SENDERS)]
        for failure in await asyncio.gather(*senders, return_exceptions=True):
            assert failure is None or isinstance(failure, httpx.TransportError), failure
    return taken


async def opened(folder: Path, count: int) -> list[Payment]:
    """Payments of a new account."""
    settings = config.load(folder / "relay.toml")
    database = await Database.open(folder / "relay.db")
    now = time.time()
    user = await create_user(
        database, email="ada@example.com", plan="free", is_admin=False, now=now
    )
    assert user is not None
    purchase = offered(settings).purchases["credit-odd"]
    made = [await open_payment(database, user, purchase, now) for _ in range(count)]
    await database.close()
    return made


async def check(folder: Path, count: int) -> None:
    """All payments are paid and partly refunded, and the ledger agrees to the micro-dollar."""
    database = await Database.open(folder / "relay.db")
    rows = (await payments(database, PaymentFilter(), 100)).rows
    assert len(rows) == count
    taken = 7_654_321 * 333 // 2000
    assert {(one.shown, one.reversed_micro) for one in rows} == {("partly_refunded", taken)}
    assert sorted(one.invoice_number or 0 for one in rows) == list(range(1, count + 1))
    sums = await database.select(
        "SELECT reason, count(*), sum(amount_micro) FROM statement GROUP BY 1"
    )
    assert sums == [
        ("payment", count, 7_654_321 * count), ("reversal", count, -taken * count),
    ]  # fmt: skip
    [(micro,)] = await database.select("SELECT micro FROM balance")
    assert micro == (7_654_321 - taken) * count
    await database.close()


async def test_events_count_once_after_kills(tmp_path: Path) -> None:
    write_settings(tmp_path, "http://127.0.0.1:9")
    with (tmp_path / "relay.toml").open("a") as file:
        file.write(PAYMENTS)
    made = await opened(tmp_path, 12)
    dice = random.Random()
    bodies = [event(name, one) for name in NAMES for one in made]
    for _ in range(2):
        dice.shuffle(bodies)
        most = dice.randrange(1, len(bodies) // 2)
        with serving(tmp_path) as running:
            taken = await deliver(running, bodies, most)
            assert most <= taken < len(bodies)
    with serving(tmp_path) as running:
        assert await deliver(running, bodies, 0) == len(bodies)
    await check(tmp_path, len(made))

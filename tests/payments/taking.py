"""Events taken into a database, and what they have moved there."""

from relay.payments import events
from relay.store import balance
from relay.store.database import Database
from relay.store.payment_events import Offered, apply
from relay.store.payments import Payment, find_payment
from tests.payments.conftest import NOW, OFFERED

CREDIT = 20_000_000


async def take(
    database: Database, body: bytes, now: float = NOW, offered: Offered = OFFERED
) -> str:
    fact = events.read(body)
    return "none" if fact is None else await apply(database, fact, offered, now)


async def seen(database: Database, payment: Payment) -> Payment:
    found = await find_payment(database, payment.id)
    assert found is not None
    return found


async def moved(database: Database, user_id: str) -> list[int]:
    entries = await balance.statement(database, user_id)
    assert sum(one.amount_micro for one in entries) == await balance.balance_of(database, user_id)
    return [one.amount_micro for one in reversed(entries)]

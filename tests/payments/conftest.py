"""A database with people, and offers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from relay import config
from relay.payments.offers import offered
from relay.store.database import Database
from relay.store.payments import Payment, open_payment
from relay.store.users import User, create_user
from tests.payments.recorded import SECRET

NOW = 1_796_000_000.0
PLANS: list[dict[str, Any]] = [
    {"id": "free", "name": "Free", "max_keys": 10},
    {"id": "pro", "name": "Pro"},
    {"id": "paid", "name": "Prepaid", "billing": "per-token"},
]
OFFERS: list[dict[str, Any]] = [
    {"id": "credit-20", "title": "20 dollars of credit", "price": 2000, "credit": 20},
    {"id": "credit-odd", "title": "Odd credit", "price": 2000, "credit": 7.654321},
    {"id": "pro-month", "title": "Pro for 30 days", "price": 2000, "plan": "pro", "length": "30d"},
]
PAYMENTS: dict[str, Any] = {
    "stripe_key": "sk_test_canary",
    "webhook_secret": SECRET,
    "seller": "Example Ltd\n1 Example Street",
    "tax_percent": 19,
    "offer": OFFERS,
}
SETTINGS = config.parse({"plan": PLANS, "payments": PAYMENTS})
OFFERED = offered(SETTINGS)
Opens = Callable[..., Awaitable[Payment]]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(tmp_path / "relay.db")
    yield opened
    await opened.close()


@pytest.fixture
async def user(database: Database) -> User:
    made = await create_user(
        database, email="grace@example.com", plan="free", is_admin=False, now=NOW
    )
    assert made is not None
    return made


@pytest.fixture
def opens(database: Database, user: User) -> Opens:
    """Opens a payment for an offer."""

    async def open_one(offer: str = "credit-20") -> Payment:
        return await open_payment(database, user, OFFERED.purchases[offer], NOW)

    return open_one

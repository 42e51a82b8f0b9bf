"""A database with people, and offers."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relay import config
from relay.payments.offers import offered
from relay.store.database import Database
from relay.store.payments import Payment, open_payment
from relay.store.users import User, create_user
from tests.fakes.live import Live, RelayWith
from tests.payments.payment_service import Service, running_service
from tests.payments.recorded import SECRET
from tests.web.administration import MODELS
from tests.web.browser import browser
from tests.web.visitor import WEB, Visitor

__all__ = ["browser"]

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


# --- a relay with pages ---


@pytest.fixture
def service() -> Iterator[Service]:
    with running_service() as service:
        yield service


@pytest.fixture
async def shop(relay_with: RelayWith, service: Service) -> Live:
    """A relay that sells."""
    return await open_shop(relay_with, service)


async def open_shop(relay_with: RelayWith, service: Service) -> Live:
    """A relay whose payment service is this one."""
    paying = {**PAYMENTS, "api": service.url, "checkout": service.url}
    return await relay_with(web=WEB, plan=PLANS, payments=paying, model=MODELS)


@pytest.fixture
async def buyer(shop: Live) -> AsyncIterator[Visitor]:
    """A browser in which somebody is logged in."""
    visitor = Visitor(shop)
    await visitor.sign_up()
    yield visitor
    await visitor.aclose()

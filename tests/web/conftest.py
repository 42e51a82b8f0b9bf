"""Relays with pages, and their visitors."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.alerts.services import Mailbox, running_mailbox
from tests.fakes.live import Live, RelayWith
from tests.web.administration import MODELS, PLANS, new_admin
from tests.web.browser import browser
from tests.web.visitor import WEB, Visitor

__all__ = ["browser"]

NewVisitor = Callable[..., Visitor]


@pytest.fixture
async def site(relay_with: RelayWith) -> Live:
    """A relay where anybody may sign up."""
    return await relay_with(web=WEB)


@pytest.fixture
async def visitors(stack: contextlib.AsyncExitStack) -> AsyncIterator[list[Visitor]]:
    """All visitors of the test; closed at its end."""
    found: list[Visitor] = []
    yield found
    for one in found:
        await one.aclose()


@pytest.fixture
def visitor(site: Live, visitors: list[Visitor]) -> Visitor:
    """A browser that has no session yet."""
    visitors.append(Visitor(site))
    return visitors[-1]


@pytest.fixture
def another(visitors: list[Visitor]) -> NewVisitor:
    """Opens a further browser at a relay."""

    def open_browser(live: Live, **headers: str) -> Visitor:
        visitors.append(Visitor(live, **headers))
        return visitors[-1]

    return open_browser


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with running_mailbox() as mailbox:
        yield mailbox


@pytest.fixture
def mail(mailbox: Mailbox) -> dict[str, Any]:
    """The settings of a mail server."""
    return {"smtp": mailbox.address, "sender": "relay@example.com", "encryption": "off"}


@pytest.fixture
async def relay(relay_with: RelayWith, tmp_path: Path) -> Live:
    """A relay with plans, prices and a folder for backups."""
    backups = {"path": str(tmp_path / "backups")}
    return await relay_with(web=WEB, plan=PLANS, model=MODELS, backup=backups)


@pytest.fixture
async def admin(relay: Live, another: NewVisitor) -> Visitor:
    """A browser in which an administrator of it is logged in."""
    visitor = another(relay)
    await new_admin(relay, visitor)
    return visitor

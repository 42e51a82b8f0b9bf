"""Receivers of alerts on loopback."""

from collections.abc import Iterator

import pytest

from tests.alerts.services import Mailbox, Webhook, running_mailbox, running_webhook


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with running_webhook() as webhook:
        yield webhook


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with running_mailbox() as mailbox:
        yield mailbox

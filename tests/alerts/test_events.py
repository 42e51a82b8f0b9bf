"""What occurs reaches the receivers that name it, also over restarts."""

import hmac
import json
import time
from typing import Any

import pytest

from relay import config
from relay.alerts import monitor
from relay.store import balance, events
from relay.store.keys import live_keys
from tests.alerts.services import Webhook
from tests.fakes.live import EMAIL, Live, RelayWith
from tests.fakes.until import until
from tests.gateway import metering


def receiver(webhook: Webhook, **options: Any) -> dict[str, Any]:
    return {"name": "ops", "kind": "webhook", "url": webhook.url, "secret": "s3cret", **options}


def documents(webhook: Webhook) -> list[dict[str, Any]]:
    return [json.loads(body) for _, _, body in webhook.received]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(monitor, "_RETRY_SECONDS", (0.01, 0.02))


async def unsent(relay: Live) -> int:
    return len(await events.pending(relay.app.database, 0))


async def test_a_receiver_gets_the_events_that_it_names(
    relay_with: RelayWith, webhook: Webhook
) -> None:
    relay = await relay_with(
        alert=[receiver(webhook, events=["user", "payment", "window"], per_hour=1)],
        plan=metering.plan({"requests": 1, "per": "5h"}),
    )
    [key] = await live_keys(relay.app.database)
    await balance.credit(relay.app.database, key.user_id, 5, "", time.time())
    for _ in range(4):
        await metering.ask(relay)
    await until(lambda: len(webhook.received) == 3)
    found = documents(webhook)
    assert [(one["event"], one["state"], one["subject"]) for one in found] == [
        ("user", "occurred", EMAIL), ("payment", "occurred", EMAIL), ("window", "occurred", EMAIL),
    ]  # fmt: skip
    assert "1 request per 5 hours" in found[2]["text"]
    assert sorted({one["id"] for one in found}) == [one["id"] for one in found]
    _, headers, body = webhook.received[0]
    fields = {name.lower(): value for name, value in dict(headers).items()}
    signed = f"{fields['x-relay-timestamp']}.".encode() + body
    digest = hmac.digest(b"s3cret", signed, "sha256").hex()
    assert fields["x-relay-signature"] == f"sha256={digest}"
    await until_none(relay)


async def until_none(relay: Live) -> None:
    while await unsent(relay):
        await relay.app.refresh()


async def test_a_receiver_that_names_none_gets_none(
    relay_with: RelayWith, webhook: Webhook
) -> None:
    relay = await relay_with(alert=[receiver(webhook)])
    await until_none(relay)
    assert webhook.received == []


async def test_an_event_stays_until_it_is_taken(relay_with: RelayWith, webhook: Webhook) -> None:
    webhook.answers = [(500, b"")]
    relay = await relay_with(alert=[receiver(webhook, events=["user"])])
    await until(lambda: len(webhook.received) == 2)
    assert len({one["id"] for one in documents(webhook)}) == 1
    await until_none(relay)


async def test_an_event_that_may_not_repeat_is_written_once(relay_with: RelayWith) -> None:
    relay = await relay_with()
    event = events.Event("window", EMAIL, "x", "usr/requests/1/2")
    for _ in range(3):
        await events.write(relay.app.database, 1.0, event)
    found = [one for one in await events.pending(relay.app.database, 0) if one.kind == "window"]
    assert len(found) == 1


def test_events_are_checked() -> None:
    with pytest.raises(config.ConfigError, match="events"):
        config.parse({"alert": [{"name": "a", "kind": "slack", "url": "https://a.example/",
                                 "events": ["users"]}]})  # fmt: skip

"""The tasks behind alerts: order, repetition, caps, and a relay that alerts for real."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay import config
from relay.alerts import monitor, sources
from relay.alerts.monitor import Monitor, Receiver
from relay.alerts.rules import Alert, Condition
from relay.alerts.sources import upstream_conditions
from relay.config import AlertingSettings, AlertSettings
from relay.pool.health import Health
from relay.pool.vendor_errors import Scope, Verdict
from relay.store import scheduled_backup
from tests.alerts.services import Webhook
from tests.fakes.live import RelayWith
from tests.fakes.until import until


def alert(number: int, event: Any = "backup") -> Alert:
    return Alert(event, "backup", "firing", f"number {number}", 0.0, 0.0)


def texts(webhook: Webhook) -> list[str]:
    return [json.loads(body)["text"] for _, _, body in webhook.received]


@asynccontextmanager
async def running(receiver: Receiver) -> AsyncIterator[Receiver]:
    task = asyncio.create_task(receiver.run())
    try:
        yield receiver
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_RETRY_SECONDS", (0.01, 0.02, 0.03))


def receiver(webhook: Webhook, **options: Any) -> Receiver:
    settings = AlertSettings(name="ops", kind="webhook", url=webhook.url, **options)
    return Receiver(settings, "https://relay.example")


@pytest.mark.usefixtures("quick")
async def test_a_failed_attempt_is_repeated_and_the_order_kept(webhook: Webhook) -> None:
    webhook.answers = [(500, b""), (429, b"")]
    async with running(receiver(webhook)) as ops:
        ops.put(alert(1))
        ops.put(alert(2))
        await until(lambda: len(webhook.received) == 4 and not ops.failure)
    assert texts(webhook) == ["number 1", "number 1", "number 1", "number 2"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("answers", "attempts"), [([(500, b"")] * 9, 4), ([(404, b"")], 1)], ids=["retried", "final"]
)
async def test_an_alert_that_nobody_takes_is_logged_and_dropped(
    webhook: Webhook, caplog: pytest.LogCaptureFixture, answers: Any, attempts: int
) -> None:
    webhook.answers = answers
    async with running(receiver(webhook)) as ops:
        ops.put(alert(1))
        await until(lambda: "is not sent: refused with status" in caplog.text)
        webhook.answers = []
        ops.put(alert(2))
        await until(lambda: texts(webhook)[-1:] == ["number 2"])
    assert texts(webhook) == ["number 1"] * attempts + ["number 2"]
    assert "canary" not in caplog.text


async def test_more_alerts_than_an_hour_allows_are_counted(webhook: Webhook) -> None:
    now = [0.0]
    settings = AlertSettings(name="ops", kind="webhook", url=webhook.url, per_hour=2)
    async with running(Receiver(settings, "https://relay.example", lambda: now[0])) as ops:
        for number in range(5):
            ops.put(alert(number))
        await until(lambda: ops.left_out == 3 and len(webhook.received) == 2)
        now[0] = 3600.0
        ops.put(alert(5))
        await until(lambda: len(webhook.received) == 3)
    assert texts(webhook)[2] == "number 5\n3 alerts before this one were not sent."


async def test_a_receiver_gets_only_its_events(webhook: Webhook) -> None:
    async with running(receiver(webhook, events=["disk"])) as ops:
        ops.put(alert(1))
        ops.put(alert(2, "disk"))
        await until(lambda: webhook.received)
    assert texts(webhook) == ["number 2"]


async def test_a_receiver_that_hangs_keeps_no_other_waiting(webhook: Webhook) -> None:
    hanging, other = receiver(webhook), receiver(webhook, events=["disk"])
    webhook.answers = [(0, b"")]
    async with running(hanging), running(other):
        hanging.put(alert(1))
        await until(lambda: len(webhook.received) == 1)
        for number in range(200):  # its queue is bounded
            hanging.put(alert(number))
        assert len(hanging._queue) == 100
        other.put(alert(2, "disk"))
        await until(lambda: len(webhook.received) == 2)
        webhook.release.set()


async def test_states_become_messages(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_INTERVAL_SECONDS", 0.01)
    settings = config.parse({"alert": [{"name": "ops", "kind": "webhook", "url": webhook.url}]})

    class States:
        def __init__(self) -> None:
            self.bad = False

        def read(self) -> list[Condition]:
            return [Condition("journal", "journal", self.bad, "the disk is full")]

        def read_blocking(self) -> list[Condition]:
            return [Condition("disk", "/", True, "full")]

    states = States()
    watching = asyncio.create_task(Monitor(settings, states).run())
    await until(lambda: len(webhook.received) == 1)
    states.bad = True
    await until(lambda: len(webhook.received) == 2)
    states.bad = False
    await until(lambda: len(webhook.received) == 3)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    found = [json.loads(body) for _, _, body in webhook.received]
    assert [(one["event"], one["state"]) for one in found] == [
        ("disk", "firing"), ("journal", "firing"), ("journal", "resolved"),
    ]  # fmt: skip


# --- states ---


def states_of(health: Health, now: float, left: int | None = None) -> dict[str, bool | None]:
    alerting = AlertingSettings(plan={"a": 10})
    found = upstream_conditions("a", health.view(now), left, alerting)
    return {condition.event: condition.bad for condition in found}


def test_the_states_of_an_upstream_are_told_apart() -> None:
    health = Health()
    assert states_of(health, 0.0, 11) == {"upstream": False, "cooling": False, "plan": False}
    failure = Verdict(Scope.FAILURE, 0.0, False, "connection refused")
    for _ in range(3):
        health.failed(failure, "m", 0.0)
    assert states_of(health, 1.0, 9) == {"upstream": True, "cooling": False, "plan": True}
    assert states_of(health, 60.0)["upstream"] is None  # a probe finds out
    health.clear()
    health.failed(Verdict(Scope.ACCOUNT, 900.0, True, "limit"), "m", 0.0)
    assert states_of(health, 1.0)["cooling"] is True
    health.pause()
    assert states_of(health, 1.0) == {"upstream": None, "cooling": None, "plan": None}


async def test_a_relay_alerts_of_upstream_disk_and_certificate(
    relay_with: RelayWith, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(monitor, "_INTERVAL_SECONDS", 0.01)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=usage.total // 50))
    monkeypatch.setattr(sources, "file_expiries", lambda _: [("cert.pem", 1.0)])
    live = await relay_with(
        alert=[{"name": "ops", "kind": "webhook", "url": webhook.url}],
        alerting={"down": "1s", "recovered": "1s"},
    )
    app = live.app
    upstream = next(iter(app.upstreams))
    failure = Verdict(Scope.FAILURE, 0.0, False, "connection refused")
    from relay.pool import clock

    for _ in range(3):
        upstream.health.failed(failure, "m", clock.now())
    await until(lambda: len(webhook.received) == 3)
    found = {json.loads(body)["event"]: json.loads(body) for _, _, body in webhook.received}
    assert found["upstream"]["text"].endswith("connection refused")
    assert "(2.0%)" in found["disk"]["text"]
    assert found["certificate"]["text"] == "It ended on 1970-01-01T00:00:01Z."
    upstream.health.clear()
    await until(lambda: len(webhook.received) == 4)
    assert json.loads(webhook.received[3][2])["state"] == "resolved"


async def test_a_relay_alerts_of_a_backup_that_fails(
    relay_with: RelayWith, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(monitor, "_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(scheduled_backup, "_FIRST_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(scheduled_backup, "_RETRY_SECONDS", 0.05)
    folder = tmp_path / "backups"
    folder.write_text("in the way")
    await relay_with(
        alert=[{"name": "ops", "kind": "webhook", "url": webhook.url, "events": ["backup"]}],
        backup={"path": str(folder)},
    )
    await until(lambda: len(webhook.received) == 1)
    assert "File exists" in texts(webhook)[0]
    folder.unlink()
    await until(lambda: len(webhook.received) == 2)
    assert json.loads(webhook.received[1][2])["state"] == "resolved"
    assert len(list(folder.glob("relay-*.db"))) == 1


def test_the_end_of_a_certificate_is_read_from_its_file(tmp_path: Path) -> None:
    import trustme

    authority = trustme.CA()
    pair = authority.issue_cert("relay.example")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    pair.private_key_pem.write_to_path(tmp_path / "key.pem")
    files = {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    settings = config.parse({"server": {"tls": files}})
    [(name, ends_at)] = sources.file_expiries(settings)
    assert name == files["cert"]
    assert ends_at > os.stat(files["cert"]).st_mtime
    assert sources.file_expiries(config.parse({})) == []

"""Mails about thresholds: once for each window and threshold, over restarts and failures."""

import asyncio
import email
import email.policy
import string
import time
from typing import Any

import pytest

from relay.alerts import threshold_mails
from relay.alerts.mail_server import letter
from relay.alerts.threshold_texts import TEXTS
from relay.store import balance, thresholds
from relay.store.database import Database
from relay.store.keys import Key, KeyRules, OwnLimit, list_own_keys, live_keys, set_rules
from relay.store.thresholds import Choice
from tests.alerts.services import Mailbox
from tests.fakes.live import EMAIL, Live, RelayWith
from tests.fakes.until import until
from tests.gateway import metering

HOURS = 5 * 3600


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threshold_mails, "_INTERVAL_SECONDS", 0.05)


def settings(mailbox: Mailbox, *limits: dict[str, Any], **plan: Any) -> dict[str, Any]:
    mail = {"smtp": mailbox.address, "sender": "relay@example.com", "encryption": "off"}
    return {"mail": mail, "plan": metering.plan(*limits, **plan)}


async def owner(relay: Live) -> str:
    [key] = await live_keys(relay.app.database)
    return key.user_id


async def only_key(relay: Live) -> Key:
    [key] = await list_own_keys(relay.app.database, await owner(relay))
    return key


async def choose(relay: Live, *shares: int, below: int | None = None, language: str = "en") -> str:
    user_id = await owner(relay)
    choice = Choice(list(shares), below, language)
    await thresholds.choose(relay.app.database, user_id, choice, time.time())
    return user_id


def letters(mailbox: Mailbox) -> list[tuple[str, str]]:
    parsed = [
        email.message_from_bytes(one, policy=email.policy.default) for one in mailbox.messages
    ]
    return [(one["subject"], one.get_content()) for one in parsed]


async def nothing_is_due(database: Database) -> None:
    """Wait until every threshold that was passed has its mail."""
    await asyncio.sleep(0)
    while await thresholds.crossed(database, time.time()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_each_threshold_gives_one_mail(relay_with: RelayWith, mailbox: Mailbox) -> None:
    relay = await relay_with(**settings(mailbox, {"requests": 10, "per": "5h"}, enforce="account"))
    await choose(relay, 50, 80)
    for _ in range(4):
        await metering.ask(relay)
    await until_used(relay, 4)
    await nothing_is_due(relay.app.database)
    assert mailbox.messages == []
    await metering.ask(relay)
    await until(lambda: len(mailbox.messages) == 1)
    for _ in range(5):
        await metering.ask(relay)
    await until(lambda: len(mailbox.messages) == 2)
    await until_used(relay, 10)
    await nothing_is_due(relay.app.database)
    subjects = [subject for subject, _ in letters(mailbox)]
    assert subjects == [
        "Relay: 50 % of requests per 5 hours used", "Relay: 80 % of requests per 5 hours used",
    ]  # fmt: skip
    _, text = letters(mailbox)[0]
    assert "50 % of your limit of 10 requests per 5 hours is used: 5 so far." in text
    assert f"{relay.settings.server.public_url}/account" in text
    assert any(EMAIL in command for command in mailbox.commands)


async def until_used(relay: Live, number: int) -> None:
    """Wait until the limit's use is on disk."""
    statement = "SELECT max(used) FROM bucket"
    while (await relay.app.database.select(statement))[0][0] != number:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_thresholds_passed_at_once_give_one_mail(
    relay_with: RelayWith, mailbox: Mailbox
) -> None:
    limit = {"requests": 2, "per": "5h"}
    relay = await relay_with(**settings(mailbox, limit, enforce="account"))
    await metering.ask(relay)
    await metering.ask(relay)
    await until_used(relay, 2)
    await choose(relay, 10, 50, 95, language="zh")
    await nothing_is_due(relay.app.database)
    await until(lambda: len(mailbox.messages) == 1)
    assert letters(mailbox)[0][0] == "Relay：每 5 小时的请求数已用 95%"


async def test_the_next_window_gives_a_mail_again(relay_with: RelayWith, mailbox: Mailbox) -> None:
    relay = await relay_with(**settings(mailbox, {"requests": 2, "per": "5h"}))
    user_id = await choose(relay, 50)
    await put_window(relay, user_id, used=1, end=time.time() + 60)
    await until(lambda: len(mailbox.messages) == 1)
    await put_window(relay, user_id, used=2, end=time.time() + HOURS)
    await until(lambda: len(mailbox.messages) == 2)


async def put_window(relay: Live, user_id: str, *, used: int, end: float) -> None:
    plan = relay.app.settings.plan[0]
    key = await only_key(relay)
    scope = "account" if plan.enforce == "account" else "key"
    row = (scope, user_id if scope == "account" else key.id, HOURS, used, int(end * 1000))
    await relay.app.database.write(
        lambda connection: connection.execute(
            "INSERT OR REPLACE INTO bucket VALUES (?, ?, 'requests', ?, 'window', 2, ?, ?)", row
        )
    )


async def test_a_limit_that_has_gone_gives_none(relay_with: RelayWith, mailbox: Mailbox) -> None:
    relay = await relay_with(**settings(mailbox, {"requests": 2, "per": "1d"}))
    user_id = await choose(relay, 50)
    await put_window(relay, user_id, used=2, end=time.time() + HOURS)
    await nothing_is_due(relay.app.database)
    await relay.app.upkeep.mails.send_due(time.time())
    assert mailbox.messages == []


async def test_a_keys_own_limit_names_the_key(relay_with: RelayWith, mailbox: Mailbox) -> None:
    relay = await relay_with(**settings(mailbox))
    key = await only_key(relay)
    rules = KeyRules(limits=(OwnLimit("requests", 2, 86_400),))
    await set_rules(relay.app.database, key.id, rules, time.time())
    await relay.app.refresh()
    await choose(relay, 50)
    await metering.ask(relay)
    await until(lambda: len(mailbox.messages) == 1)
    [(subject, text)] = letters(mailbox)
    assert subject == f"Relay: 50 % of requests per day used by key {key.name or key.hint}"
    assert "its limit of 2 requests per day: 1 so far" in text


async def test_a_balance_gives_one_mail_until_it_rises(
    relay_with: RelayWith, mailbox: Mailbox
) -> None:
    relay = await relay_with(**settings(mailbox))
    database, user_id = relay.app.database, await choose(relay, below=5_000_000)
    await balance.credit(database, user_id, 4_500_000, "", time.time())
    await until(lambda: len(mailbox.messages) == 1)
    await balance.credit(database, user_id, -500_000, "", time.time())
    await nothing_is_due(database)
    await balance.credit(database, user_id, 2_000_000, "", time.time())
    while await database.select("SELECT 1 FROM threshold_mail"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await balance.credit(database, user_id, -3_000_000, "", time.time())
    await until(lambda: len(mailbox.messages) == 2)
    subjects = {subject for subject, _ in letters(mailbox)}
    assert subjects == {"Relay: your balance is below $5.00"}
    assert "Your balance is $3.00" in letters(mailbox)[1][1]


async def test_a_mail_that_was_not_taken_is_sent_later(
    relay_with: RelayWith, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threshold_mails, "_LONGEST_PAUSE_SECONDS", 0.05)
    mailbox.refusal = "451 come back later"
    relay = await relay_with(**settings(mailbox, {"requests": 2, "per": "5h"}))
    user_id = await choose(relay, 50)
    await put_window(relay, user_id, used=1, end=time.time() + HOURS)
    await until(lambda: sum("MAIL" in one.upper() for one in mailbox.commands) >= 2)
    mailbox.refusal = ""
    await until(lambda: len(mailbox.messages) == 1)


async def test_an_address_that_is_refused_is_not_tried_again(
    relay_with: RelayWith, mailbox: Mailbox
) -> None:
    mailbox.refusal = "550 no such person"
    relay = await relay_with(**settings(mailbox, {"requests": 2, "per": "5h"}))
    user_id = await choose(relay, 50)
    await put_window(relay, user_id, used=1, end=time.time() + HOURS)
    await until(lambda: any("MAIL" in one.upper() for one in mailbox.commands))
    await nothing_is_due(relay.app.database)
    await relay.app.upkeep.mails.send_due(time.time())
    assert sum("MAIL" in one.upper() for one in mailbox.commands) == 1


async def test_one_full_mailbox_keeps_no_others_mail_back(
    relay_with: RelayWith, mailbox: Mailbox
) -> None:
    relay = await relay_with(**settings(mailbox, {"requests": 2, "per": "5h"}))
    await relay.create_user("other@example.com")
    rows = await relay.app.database.select("SELECT id, email FROM users ORDER BY id")
    mailbox.full = rows[0][1]  # its turn comes first
    for user_id, _ in rows:
        choice = Choice([], 5_000_000, "en")
        await thresholds.choose(relay.app.database, user_id, choice, time.time())
        await balance.credit(relay.app.database, user_id, 1_000_000, "", time.time())
    await until(lambda: len(mailbox.messages) == 1)
    assert f"To: {rows[1][1]}".encode() in mailbox.messages[0]
    [waiting] = await thresholds.crossed(relay.app.database, time.time())
    assert waiting.email == rows[0][1]


async def test_a_name_with_a_comma_is_one_sender() -> None:
    made = letter("Acme, Inc.", "relay@example.com", "a@example.com", "Subject", "Text")
    [sender] = made["From"].addresses
    assert (sender.display_name, sender.addr_spec) == ("Acme, Inc.", "relay@example.com")


async def test_a_claim_is_given_once(relay_with: RelayWith, mailbox: Mailbox) -> None:
    """Two processes look at once, as while one hands over to the other."""
    relay = await relay_with(plan=metering.plan({"requests": 2, "per": "5h"}))
    user_id, database = await choose(relay, 50, 80), relay.app.database
    await put_window(relay, user_id, used=2, end=time.time() + HOURS)
    found = await thresholds.crossed(database, time.time())
    both = await asyncio.gather(*(thresholds.claim(database, found) for _ in range(2)))
    assert sorted(map(len, both)) == [0, 2]


async def test_what_is_known_of_old_windows_is_deleted(
    relay_with: RelayWith, mailbox: Mailbox
) -> None:
    relay = await relay_with(**settings(mailbox, {"requests": 2, "per": "5h"}))
    user_id, database = await choose(relay, 50), relay.app.database
    await put_window(relay, user_id, used=2, end=time.time() + 60)
    await until(lambda: len(mailbox.messages) == 1)
    await thresholds.prune(database, time.time() + 3600)
    assert len(await database.select("SELECT 1 FROM threshold_mail")) == 1
    await thresholds.prune(database, time.time() + 2 * 86_400)
    assert await database.select("SELECT 1 FROM threshold_mail") == []


@pytest.mark.parametrize("key", TEXTS["en"])
def test_every_text_is_in_both_languages(key: str) -> None:
    def names(text: str) -> set[str | None]:
        return {name for _, name, _, _ in string.Formatter().parse(text)} - {None}

    assert TEXTS["en"].keys() == TEXTS["zh"].keys()
    assert names(TEXTS["en"][key]) == names(TEXTS["zh"][key])

"""A running relay reads the accounts that changed, and has what a complete reading has."""

import asyncio
import random
import time
from pathlib import Path

import pytest

from relay.changes import Changes, apply_keys, apply_spending, read_spending
from relay.gateway.authentication import KeyIndex
from relay.quota.ledger import Ledger
from relay.quota.plans import Plan, further_limits
from relay.storage import Storage
from relay.store import balance, keys, periods, spend_limits, users
from relay.store.database import Database
from relay.store.journal import Journal
from relay.store.keys import KeyRules, LiveKey, NewKey, NewSecret, OwnLimit
from relay.store.periods import NewPeriod
from relay.store.sessions import delete_user
from relay.store.users import User
from tests.fakes.live import EMAIL, running_relay


def _plan(plan: str) -> Plan:
    return further_limits(plan, plan, [])


class Relay:
    """The parts of a relay that follow the database."""

    def __init__(self, database: Database, journal: Journal) -> None:
        self.keys, self.ledger = KeyIndex(), Ledger()
        self.changes = Changes(database, self.ledger, self.keys, journal, _plan)

    def state(self) -> tuple[object, ...]:
        ledger = self.ledger
        return (
            sorted(self.keys.all(), key=lambda one: one.digest),
            ledger._own,
            ledger._spending,
            ledger._untils,
            {one.user_id: ledger.balance(one.user_id).credited for one in self.keys.all()},
        )


async def complete(database: Database) -> tuple[object, ...]:
    """The state that a complete reading gives."""
    relay = Relay(database, None)  # type: ignore[arg-type]
    apply_keys(relay.keys, relay.ledger, await keys.live_keys(database))
    apply_spending(relay.ledger, await read_spending(database, time.time()), time.time())
    return relay.state()


class Operator:
    """Changes accounts, over a connection of its own."""

    def __init__(self, database: Database, dice: random.Random) -> None:
        self._database = database
        self._dice = dice
        self._people: list[User] = []
        self._keys: list[str] = []

    async def change(self) -> None:
        dice, database, now = self._dice, self._database, time.time()
        if not self._people or dice.random() < 0.2:
            name = f"{dice.random()}@example.com"
            made = await users.create_user(database, email=name, plan="free", is_admin=False, now=1)
            assert made is not None
            self._people.append(made)
        user = dice.choice(self._people)
        new = NewKey(user, "", dice.randbytes(32), "")
        key = await keys.create_key(database, new, max_keys=10**6, now=now)
        assert key is not None
        self._keys.append(key.id)
        which = dice.choice(self._keys)
        period = NewPeriod("pro", dice.randrange(1, 10**6), "free", "test")
        limits = (OwnLimit("requests", dice.randrange(1, 99), 3600),)
        secret = NewSecret(dice.randbytes(32), "", now + 99)
        unit: spend_limits.Period = dice.choice(("daily", "weekly", "monthly"))
        match dice.randrange(10):
            case 0:
                await keys.revoke_key(database, which, now)
            case 1:
                await keys.set_rules(database, which, KeyRules(limits=limits), now)
            case 2:
                await keys.rotate_key(database, which, secret, now)
            case 3:
                await keys.delete_key(database, which, now)
            case 4:
                await users.suspend(database, user.email, now)
            case 5:
                await periods.start_now(database, user, period, now)
            case 6:
                await balance.credit(database, user.id, dice.randrange(1, 99), "", now)
            case 7:
                amount = dice.randrange(1, 9)
                await spend_limits.set_spend_limit(database, user.id, unit, amount, now)
            case 8:
                for one in await spend_limits.spend_limits(database):
                    await spend_limits.delete_spend_limit(database, one.id, now)
            case 9:
                self._people.remove(user)
                await delete_user(database, user.id, now)


async def test_what_changed_gives_the_same_as_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await Database.open(tmp_path / "relay.db")
    other = await Database.open(tmp_path / "relay.db")
    journal = await Journal.start(database, list)
    relay, dice = Relay(database, journal), random.Random()
    operator = Operator(other, dice)
    monkeypatch.setattr("relay.changes._MAX_SINGLE", 6)  # both ways are taken
    for _ in range(60):
        for _ in range(dice.choice((1, 1, 2, 12))):
            await operator.change()
        await relay.changes.refresh()
        assert relay.state() == await complete(database)
    await journal.close()
    await database.close()
    await other.close()


async def test_a_change_reads_the_keys_of_its_account(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "relay.db")
    journal = await Journal.start(database, list)
    relay, now = Relay(database, journal), time.time()
    for number in range(30):
        name = f"{number}@example.com"
        user = await users.create_user(database, email=name, plan="p", is_admin=False, now=now)
        assert user is not None
        new = NewKey(user, "", bytes([number]) * 32, "")
        await keys.create_key(database, new, max_keys=1, now=now)
    await relay.changes.refresh()
    before: dict[bytes, LiveKey] = {one.digest: one for one in relay.keys.all()}
    await users.set_plan(database, "7@example.com", "q")
    await asyncio.gather(*(relay.changes.refresh() for _ in range(3)))
    replaced = [one for one in relay.keys.all() if before[one.digest] is not one]
    assert [(one.email, one.plan) for one in replaced] == [("7@example.com", "q")]
    await journal.close()
    await database.close()


async def test_what_was_read_at_the_start_is_not_read_again(tmp_path: Path) -> None:
    async with running_relay(tmp_path) as relay:
        settings = relay.settings
        ada = await users.find_user(relay.app.database, EMAIL)
        assert ada is not None
        await spend_limits.set_spend_limit(relay.app.database, ada.id, "daily", 5, 1.0)
    storage = await Storage.open(settings)
    stored = (storage.database, storage.ledger, storage.keys, storage.journal)
    try:
        changes = Changes(*stored, _plan, storage.in_force)
        read = list(storage.keys.all())
        await changes.refresh()
        assert read
        assert all(one is other for one, other in zip(read, storage.keys.all(), strict=True))
        # A change of another account leaves the limits on spending that were read at the start.
        await users.create_user(
            storage.database, email="eve@example.com", plan="free", is_admin=False, now=2.0
        )
        await changes.refresh()
        assert list(storage.ledger._spending) == [ada.id]
    finally:
        await storage.journal.close()
        await storage.database.close()

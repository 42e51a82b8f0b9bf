"""Slots that an owner lends: no order of messages changes what a limit has, or loses a part."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.app import App
from relay.quota.bucket import FixedWindow
from relay.quota.transfer import state_of
from relay.store.records import AdmissionRow, Settlement
from relay.workers.admissions import AdmissionService, OwnerAdmissions
from relay.workers.lending import Lender
from relay.workers.link import Link
from relay.workers.traffic import Batch, Wish, encode_batch
from tests.fakes.live import RelayWith

LIMITS = [{"requests": 40, "per": "5h"}, {"requests": 30, "per": "1m"}]
TOKENS = [{"tokens": 1_000_000, "per": "5h"}]
PLANS: list[dict[str, Any]] = [
    {"id": "free", "limits": LIMITS},
    {"id": "tokens", "limits": TOKENS},
    {"id": "single", "limits": [], "max_concurrency": 1},
]


def wish(slots: int, *, plan: str = "free", tokens: int = 100, slot_tokens: int = 100) -> Wish:
    """One slot for a request that waits, and others ahead."""
    return Wish("usr_1", "key_1", plan, tokens, 0, True, slots, slot_tokens, 0)


def row(number: int, tokens: int = 100) -> AdmissionRow:
    return AdmissionRow(f"req_{number}", time.time(), "key_1", "usr_1", "m", "messages", tokens, 0)


def end(number: int) -> Settlement:
    return Settlement(
        f"req_{number}", 200, None, "sim", 1, 1, 0, 0, 0, 1, 1, "whole", "reported"
    )  # fmt: skip


class Owner:
    """A relay that lends to a worker, whose end of the link the test has."""

    def __init__(self, app: App, lender: Lender, worker: Link) -> None:
        self.app = app
        self.lender = lender
        self.worker = worker
        self._batches = 0

    def sends(self, **parts: Any) -> None:
        """A batch of the worker comes in."""
        self._batches += 1
        names = ("opened", "taken", "more", "closed", "ended", "returned", "refused")
        batch = Batch(self._batches, *[parts.get(name, []) for name in names])
        self.lender.take(encode_batch(batch))

    def bucket(self, plan: str, index: int = 0) -> Any:
        """A limit of the key."""
        found = self.app.catalog.plan(plan)
        state = self.app.ledger.key_state("usr_1", "key_1", found, time.time())
        return state.counters.buckets[index]

    def row_used(self) -> int:
        """The use of the first limit as the journal would write it."""
        [counters] = [one for one in self.app.ledger.counters() if one.owner == "key_1"]
        return next(iter(counters.rows()))[6]


@contextlib.asynccontextmanager
async def lending(app: App) -> AsyncIterator[Owner]:
    mine, theirs = socket.socketpair()
    link, worker = await Link.open(mine), await Link.open(theirs)
    lender = Lender(app, link, lambda: 2)
    link.start()
    try:
        yield Owner(app, lender, worker)
    finally:
        worker.close()
        link.close()
        await asyncio.sleep(0)


@pytest.fixture
async def owner(relay_with: RelayWith) -> AsyncIterator[Owner]:
    relay = await relay_with(plan=PLANS)
    async with lending(relay.app) as found:
        yield found


async def test_unused_slots_leave_no_trace(owner: Owner) -> None:
    grant = owner.lender.grant(wish(5))
    assert len(grant.slots) == 6
    owner.sends(returned=grant.slots)
    assert owner.bucket("free").remaining(int(time.time() * 1000)) == 40
    assert owner.bucket("free", 1).used_units(int(time.time() * 1000)) == 0
    assert owner.lender.unused == 0


async def test_rows_leave_unused_slots_out(owner: Owner) -> None:
    grant = owner.lender.grant(wish(5))
    assert owner.row_used() == 0
    owner.sends(opened=[(grant.slots[0], row(1)), (grant.slots[3], row(2))])
    assert owner.row_used() == 2
    owner.sends(closed=[(grant.slots[0], True, 10, 0)], ended=[(end(1), None)])
    owner.sends(returned=grant.slots[1:3])
    assert owner.row_used() == 2


async def test_what_is_lent_while_freezing_comes_back(owner: Owner) -> None:
    owner.lender.grant(wish(5))
    owner.lender.return_unused()  # as at the end of `Workers.freeze`
    state = state_of(owner.app.ledger, [])
    assert [one[6] for one in state.rows if one[2] == "requests" and one[3] > 3600] == [0]
    assert state.share.keys == {}


async def test_a_grant_for_a_dead_worker_is_refused(owner: Owner) -> None:
    admissions = OwnerAdmissions(owner.app.metering, lambda: [owner.lender])
    owner.app.metering.admissions = admissions
    owner.lender.link.close()
    grant = await AdmissionService(owner.app.metering, admissions).grant(owner.lender, wish(5))
    assert grant.slots == []
    assert grant.refusal is not None
    assert owner.lender.unused == 0


async def test_a_dead_workers_key_is_free_again(owner: Owner) -> None:
    grant = owner.lender.grant(wish(0, plan="single"))
    owner.sends(opened=[(grant.slots[0], row(1))])
    owner.lender.end()
    assert len(owner.lender.grant(wish(0, plan="single")).slots) == 1


async def test_a_small_request_gives_back_a_large_slot(owner: Owner) -> None:
    grant = owner.lender.grant(wish(4, plan="tokens", tokens=50_000, slot_tokens=80_000))
    assert len(grant.slots) > 2
    owner.sends(opened=[(slot, row(number, 1_000)) for number, slot in enumerate(grant.slots)])
    used = owner.bucket("tokens").used_units(int(time.time() * 1000))
    assert used == 1_000 * len(grant.slots)


async def test_a_reset_window_counts_slots_in_use(owner: Owner) -> None:
    grant = owner.lender.grant(wish(5))
    bucket = owner.bucket("free")
    assert isinstance(bucket, FixedWindow)
    bucket.reset(int(time.time() * 1000))
    owner.sends(opened=[(slot, row(number)) for number, slot in enumerate(grant.slots)])
    assert bucket.used == len(grant.slots)
    for number, slot in enumerate(grant.slots):  # each gives back what it counts for
        owner.sends(closed=[(slot, False, None, None)], ended=[(end(number), None)])
        assert bucket.used == len(grant.slots) - number - 1


async def test_slots_in_use_fill_a_smaller_window(owner: Owner) -> None:
    """Their window, with a bonus, is over, and the next is too small for all of them."""
    bucket = owner.bucket("free")
    assert isinstance(bucket, FixedWindow)
    bucket.give_bonus(1_000, 1, int(time.time() * 1000))
    owner.bucket("free", 1).resize(1_000, int(time.time() * 1000))
    ahead = owner.lender.grant(wish(60)).slots[1:]
    assert len(ahead) > 40
    bucket.end = int(time.time() * 1000) - 1
    owner.sends(opened=[(slot, row(number)) for number, slot in enumerate(ahead)])
    assert bucket.used == len(ahead)
    assert bucket.remaining(int(time.time() * 1000)) == 0


async def test_a_request_admitted_again_ends_once(owner: Owner) -> None:
    first, second = owner.lender.grant(wish(5)).slots[:2]
    owner.sends(opened=[(first, row(1))])
    owner.sends(closed=[(first, False, None, None)], opened=[(second, row(1))])
    assert owner.lender.running == 1
    owner.sends(closed=[(second, True, 10, 0)], ended=[(end(1), None)])
    assert owner.lender.running == 0


async def test_lending_takes_the_same_time_with_many_keys(owner: Owner) -> None:
    ledger = owner.app.ledger
    for number in range(2_000):
        owner.lender.grant(Wish("usr_1", f"key_{number}", "tokens", 1, 0, True, 3, 1, 0))
    started = time.process_time()  # whatever else the machine does
    ledger.changes()
    assert time.process_time() - started < 0.5
    assert owner.lender.unused > 2_000
    started = time.process_time()
    owner.lender.end()
    assert time.process_time() - started < 1.0
    assert owner.lender.unused == 0

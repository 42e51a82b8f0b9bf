"""Acts that may happen once happen once, on whichever nodes they are tried at the same time."""

import asyncio
import contextlib
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.cluster.link import EngineAwayError
from relay.cluster.once import Once
from relay.store import balance, factors, payment_events, users
from relay.store.audit import Change, record
from relay.store.claims import ClaimError, Claims
from relay.store.codes import CodeError, Grant, NewBatch, create_batch, redeem
from relay.store.database import Database
from relay.store.payment_events import Fact, Offered
from relay.store.payments import Purchase, open_payment
from relay.store.server_secret import sealing_key
from relay.store.users import User
from tests.cluster.postgres import Postgres
from tests.cluster.replication.members import Member, assert_equal, member, settle, until
from tests.cluster.replication.rows import ROWS

NOON = 1_780_000_000.0
DIGEST = b"d" * 32
OFFER = Purchase("ten", "Ten", 1000, "eur", 10_000_000, "", 0, "", "19", "Seller")


async def new_user(one: Member, email: str) -> User:
    user = await users.create_user(one.database, email=email, plan="free", is_admin=False, now=NOON)
    assert user is not None
    return user


async def tried(*acts: object) -> Counter[str]:
    """The results of acts at once: `done`, or the kind of the error."""
    done = await asyncio.gather(*acts, return_exceptions=True)  # type: ignore[call-overload]
    return Counter(type(it).__name__ if isinstance(it, BaseException) else "done" for it in done)


async def credited(one: Member) -> int:
    rows = await one.rows("SELECT coalesce(sum(amount_micro), 0) FROM statement")
    return int(rows[0][0])


@pytest.mark.parametrize("uses", [1, 3])
async def test_a_code_is_redeemed_once(trio: list[Member], uses: int) -> None:
    people = [await new_user(trio[0], f"{name}@b.c") for name in "abcdef"]
    new = NewBatch(Grant("credit", 5), [(DIGEST, "…")], uses, None, "")
    await create_batch(trio[0].database, new, NOON)
    await settle(*trio)
    results: Counter[str] = Counter()
    for _ in range(6):
        results += await tried(
            *[redeem(one.database, DIGEST, user, NOON) for one in trio for user in people]
        )
        await settle(*trio)
    assert results["done"] == uses
    assert set(results) <= {"done", "ClaimError", "CodeError"}
    await assert_equal(*trio)
    assert [await credited(one) for one in trio] == [5 * uses] * 3
    assert await trio[2].rows("SELECT used FROM code") == [(uses,)]
    with pytest.raises(CodeError, match=r"used|again"):
        await redeem(trio[1].database, DIGEST, people[5], NOON)


async def test_a_request_is_given_back_once(trio: list[Member]) -> None:
    await trio[0].run(
        """INSERT INTO statement (id, user_id, time, kind, amount_micro, balance_after, request_id)
           VALUES (5000, 'usr_1', 1.0, 'charge', -7, -7, 'req_1')"""
    )
    await settle(*trio)
    results = await tried(*[balance.refund(one.database, "req_1", "", NOON) for one in trio])
    assert results == {"done": 1, "ClaimError": 2}
    await settle(*trio)
    await assert_equal(*trio)
    assert [await balance.balance_of(one.database, "usr_1") for one in trio] == [0] * 3
    with pytest.raises(ValueError, match="given back already"):
        await balance.refund(trio[2].database, "req_1", "", NOON)


async def test_a_recovery_code_is_used_once(trio: list[Member]) -> None:
    user = await new_user(trio[0], "a@b.c")
    await factors.replace_recovery_codes(trio[0].database, user.id, [DIGEST], NOON)
    await settle(*trio)
    results = await tried(
        *[factors.use_recovery_code(one.database, user.id, DIGEST, NOON) for one in trio]
    )
    assert results == {"done": 1, "ClaimError": 2}


async def test_an_address_has_one_account(trio: list[Member]) -> None:
    made = await asyncio.gather(
        *[
            users.create_user(one.database, email="a@b.c", plan="p", is_admin=False, now=NOON)
            for one in trio
        ]
    )
    assert [one is not None for one in made].count(True) == 1
    await settle(*trio)
    await assert_equal(*trio)


async def test_nodes_have_one_secret(trio: list[Member]) -> None:
    assert len(set(await asyncio.gather(*[sealing_key(one.database) for one in trio]))) == 1


async def test_an_event_of_stripe_counts_once(trio: list[Member]) -> None:
    user = await new_user(trio[0], "a@b.c")
    opened = [await open_payment(trio[0].database, user, OFFER, NOON) for _ in range(6)]
    await settle(*trio)
    offered = Offered({"ten": OFFER}, ())
    facts = [
        Fact(f"evt_{one.id}", "paid", 1, 1000, "eur", payment=one.id, account=user.id, offer="ten")
        for one in opened
    ]
    outcomes = await asyncio.gather(
        *[payment_events.apply(one.database, fact, offered, NOON) for fact in facts for one in trio]
    )
    assert Counter(outcomes) == {"applied": 6, "repeated": 12}
    await settle(*trio)
    await assert_equal(*trio)
    assert await credited(trio[1]) == 6 * OFFER.credit_micro
    invoices = await trio[2].rows("SELECT invoice_number FROM payment ORDER BY 1")
    assert invoices == [(number,) for number in range(1, 7)]


async def test_a_failed_act_may_be_tried_again(trio: list[Member]) -> None:
    a, b, _ = trio
    with pytest.raises(ZeroDivisionError):
        async with a.database.claims.once("act", "1"):
            raise ZeroDivisionError
    async with b.database.claims.once("act", "1"):
        pass
    with pytest.raises(ClaimError, match="by node b"):
        async with a.database.claims.once("act", "1"):
            pass


async def test_other_nodes_see_an_act_done_alone(trio: list[Member]) -> None:
    async def count(one: Member) -> None:
        async with one.database.claims.alone("counting"):
            [[number]] = await one.rows("SELECT count(*) FROM audit")
            change = Change("count", str(number))
            await one.database.write(lambda it: record(it, one.database.actor, NOON, change))

    await asyncio.gather(*[count(one) for one in trio for _ in range(4)])
    await settle(*trio)
    await assert_equal(*trio)
    subjects = await trio[0].rows("SELECT CAST(subject AS INTEGER) FROM audit ORDER BY id")
    assert subjects == [(number,) for number in range(12)]


async def test_without_postgresql_such_acts_are_refused(
    own_postgres: Postgres, tmp_path: Path
) -> None:
    url = own_postgres.url(own_postgres.new_database("template_relay"))
    async with member(url, "a", tmp_path / "a.db") as a:
        own_postgres.kill()
        with pytest.raises(ClaimError, match="is away"):
            await new_user(a, "a@b.c")
        assert await a.rows("SELECT * FROM users") == []


async def can(once: Once | Claims, id: str = "1") -> bool:
    """Do an act, if that is allowed now."""
    try:
        async with once.once("act", id):
            return True
    except ClaimError:
        return False


async def started_act(
    database: Database, work: Callable[[], Awaitable[object]]
) -> asyncio.Task[None]:
    """An act that is under way."""
    has_begun = asyncio.Event()

    async def act() -> None:
        async with database.claims.once("act", "1"):
            has_begun.set()
            await work()

    task = asyncio.create_task(act())
    await has_begun.wait()
    return task


async def test_an_act_whose_caller_has_left_is_free(trio: list[Member]) -> None:
    task = await started_act(trio[0].database, asyncio.Event().wait)
    assert not await can(trio[1].database.claims)
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: can(trio[1].database.claims))


async def test_an_act_goes_on_without_its_caller(trio: list[Member]) -> None:
    a, b, _ = trio
    may_end = threading.Event()

    def work(connection: sqlite3.Connection) -> None:
        may_end.wait()
        connection.execute(ROWS["pause"])

    task = await started_act(a.database, lambda: a.database.write(work))
    task.cancel()
    await asyncio.wait([task])
    assert not await can(b.database.claims)
    may_end.set()

    async def is_seen() -> bool:
        try:
            async with b.database.claims.once("act", "1"):
                assert await b.rows("SELECT upstream FROM pause") == [("up",)]
                return True
        except ClaimError:
            return False

    await until(is_seen)


async def test_a_claim_that_was_cancelled_is_free(
    trio: list[Member], connection: psycopg.AsyncConnection[Any]
) -> None:
    a, b, _ = trio
    async with connection.transaction():
        await connection.execute("LOCK relay.claimed_act")
        task = asyncio.create_task(can(a.database.claims))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

        async def waits() -> bool:
            return await (await connection.execute(waiting)).fetchone() != (0,)

        await until(waits)
        task.cancel()
        await asyncio.wait([task])
    await until(lambda: can(b.database.claims))


async def no_sync() -> None:
    """Nothing is shared."""


async def fail(once: Once, error: type[BaseException]) -> None:
    with contextlib.suppress(error):
        async with once.once("act", "1"):
            raise error


@pytest.fixture
async def pair(url: str) -> AsyncIterator[tuple[Once, Once]]:
    """Node a, of which an attempt at an act may have been done, and node b."""
    a, b = Once(url, "a", no_sync), Once(url, "b", no_sync)
    for error in (asyncio.CancelledError, ZeroDivisionError):
        await fail(a, error)
    yield a, b
    for one in (a, b):
        await one.close()


async def test_a_claim_under_way_is_not_settled(pair: tuple[Once, Once]) -> None:
    a, b = pair
    ended = a.ended()
    async with a.once("act", "1"):
        await a.settle(ended)
        assert not await can(b)
    await a.settle(a.ended())
    assert not await can(b)  # it was done


async def test_each_attempt_is_settled_by_itself(pair: tuple[Once, Once]) -> None:
    """The rows of the later one may not be shared yet."""
    a, b = pair
    ended = a.ended()
    await fail(a, ZeroDivisionError)
    await a.settle(ended)
    assert not await can(b)
    await a.settle(a.ended())
    assert await can(b)


async def test_a_node_makes_one_attempt_at_a_time(pair: tuple[Once, Once]) -> None:
    inside = most = 0

    async def attempt(then: int = 0) -> None:
        nonlocal inside, most
        async with pair[0].once("act", "1"):
            inside += 1
            most = max(most, inside)
            for number in range(3):  # the time of some claims
                await pair[1].number("series", str(number), 0)
            inside -= 1
        if then:
            await attempt(then - 1)

    await asyncio.gather(*[attempt(then=2) for _ in range(3)])
    assert most == 1


async def test_an_act_alone_that_cannot_begin_blocks_none(url: str) -> None:
    async def away() -> None:
        raise EngineAwayError("it is away")

    a, b = Once(url, "a", away), Once(url, "b", no_sync)
    with pytest.raises(ClaimError, match="is away"):
        async with a.alone("counting"):
            pass
    async with b.alone("counting"):
        pass
    for one in (a, b):
        await one.close()

"""An act that a node had claimed when it died is done once, by it or by another one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from relay.cluster.calls import poll
from relay.cluster.link import EngineRefusalError
from relay.cluster.nodes import blocked_acts, forget_node, list_nodes
from relay.cluster.once import Once
from relay.store import balance, payment_events
from relay.store.claims import ClaimError
from relay.store.codes import CodeError, Grant, NewBatch, create_batch, redeem
from relay.store.database import Database
from relay.store.payment_events import Fact, Offered
from relay.store.payments import Payment, open_payment
from relay.store.users import User
from tests.cluster.replication.members import Member, assert_equal, member, settle, until
from tests.cluster.replication.test_once import DIGEST, NOON, OFFER, credited, new_user

OFFERED = Offered({"ten": OFFER}, ())


class Dead:
    """Node a on its last legs: it claims and commits, and shares nothing more."""

    def __init__(self, url: str, path: Path) -> None:
        self._url = url
        self._path = path

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        async def sync() -> None:
            pass

        once, database = Once(self._url, "a", sync), await Database.open(self._path)
        database.share(once)
        yield database
        await once.close()
        await database.close()

    async def claim(self, kind: str, id: str) -> None:
        """Claim, and do nothing any more."""
        async with self.database() as database:
            await database.claims.once(kind, id).__aenter__()


class Scene:
    """Node b, and node a as it was last."""

    def __init__(self, url: str, b: Member, path: Path, user: User) -> None:
        self.url = url
        self.b = b
        self.path = path
        self.a = Dead(url, path)
        self.user = user

    async def run(self, query: str, *values: object) -> None:
        """Change rows in PostgreSQL."""
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            await connection.execute(query.encode(), values)

    async def age(self, seconds: int) -> None:
        """Let so much time pass for all claims."""
        await self.run("UPDATE relay.claimed_act SET at = at - %s", seconds * 1000)

    async def claims(self) -> list[tuple[object, ...]]:
        """Node, and whether the act is done, of all."""
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            cursor = await connection.execute("SELECT node, is_done FROM relay.claimed_act")
            return await cursor.fetchall()

    async def new_code(self) -> None:
        """A code that both nodes have."""
        new = NewBatch(Grant("credit", 5), [(DIGEST, "…")], 1, None, "")
        await create_batch(self.b.database, new, NOON)
        async with member(self.url, "a", self.path) as a:
            await settle(a, self.b)


@pytest.fixture
async def scene(url: str, tmp_path: Path) -> AsyncIterator[Scene]:
    path = tmp_path / "a.db"
    async with member(url, "b", tmp_path / "b.db") as b:
        user = await new_user(b, "a@b.c")
        async with member(url, "a", path) as a:
            await settle(a, b)
        yield Scene(url, b, path, user)


@pytest.mark.parametrize("is_done", [False, True], ids=["undone", "done"])
async def test_a_node_that_is_back_frees_its_claims(scene: Scene, is_done: bool) -> None:
    await scene.new_code()
    if is_done:
        async with scene.a.database() as database:
            await redeem(database, DIGEST, scene.user, NOON)
    else:
        [(id,)] = await scene.b.rows("SELECT id FROM code")
        await scene.a.claim("code", f"{id}/0")
    with pytest.raises(ClaimError, match="by node a"):
        await redeem(scene.b.database, DIGEST, scene.user, NOON)
    await scene.age(61)
    async with member(scene.url, "a", scene.path) as a:

        async def is_free() -> bool:
            return await scene.claims() == [("", False)]

        await until(is_free)
        if is_done:
            with pytest.raises(CodeError, match=r"again|used"):
                await redeem(scene.b.database, DIGEST, scene.user, NOON)
        else:
            await redeem(scene.b.database, DIGEST, scene.user, NOON)
        await settle(a, scene.b)
        await assert_equal(a, scene.b)
        assert await credited(a) == 5


async def test_a_claim_of_a_moment_ago_stays(scene: Scene) -> None:
    """The process that hands over may be at the act."""
    await scene.a.claim("code", "code_1/0")
    async with member(scene.url, "a", scene.path) as a:
        await settle(a, scene.b)
    assert await scene.claims() == [("a", False)]


async def paid(scene: Scene, database: Database, payment: Payment) -> str:
    """Take the event of a payment in."""
    fact = Fact(
        f"evt_{payment.id}", "paid", 1, 1000, "eur",
        payment=payment.id, account=scene.user.id, offer="ten",
    )  # fmt: skip
    return await payment_events.apply(database, fact, OFFERED, NOON)


async def test_a_payment_is_taken_over_and_counts_once(scene: Scene) -> None:
    first, second = [
        await open_payment(scene.b.database, scene.user, OFFER, NOON) for _ in range(2)
    ]
    async with member(scene.url, "a", scene.path) as a:
        await settle(a, scene.b)
    async with scene.a.database() as database:
        assert await paid(scene, database, first) == "applied"
    await scene.age(599)
    with pytest.raises(ClaimError, match="by node a"):
        await paid(scene, scene.b.database, first)
    await scene.age(2)
    for payment in (second, first):
        assert await paid(scene, scene.b.database, payment) == "applied"
    invoices = "SELECT id, invoice_number FROM payment ORDER BY invoice_number"
    numbers = [(first.id, 1), (second.id, 2)]
    assert await scene.b.rows(invoices) == numbers
    async with member(scene.url, "a", scene.path) as a:
        await settle(a, scene.b)
        for one in (a, scene.b):
            assert await one.rows(invoices) == numbers
            assert await credited(one) == 2 * OFFER.credit_micro
            assert await one.rows("SELECT * FROM held_row") == []
            assert await balance.balance_of(one.database, scene.user.id) == 2 * OFFER.credit_micro


async def test_no_node_takes_over_while_the_other_is_alive(scene: Scene) -> None:
    await scene.a.claim("refund", "req_1")
    await scene.age(5000)
    async with await psycopg.AsyncConnection.connect(scene.url, autocommit=True) as connection:
        await poll(connection, "a", "boot", None)
    with pytest.raises(ClaimError, match="by node a"):
        async with scene.b.database.claims.once("refund", "req_1"):
            pass
    assert await forget_node(scene.url, "a") is None


async def test_a_node_that_is_gone_stays_away(scene: Scene) -> None:
    await scene.new_code()
    async with scene.a.database() as database:
        await redeem(database, DIGEST, scene.user, NOON)
    await scene.age(5000)
    with pytest.raises(ClaimError, match="by node a"):
        await redeem(scene.b.database, DIGEST, scene.user, NOON)
    [(id,)] = await scene.b.rows("SELECT id FROM code")
    assert await blocked_acts(scene.url) == {"a": [f"code {id}/0"]}
    assert await forget_node(scene.url, "a") == 1
    assert await blocked_acts(scene.url) == {}
    assert [one.is_gone for one in await list_nodes(scene.url)] == [True, False]
    await redeem(scene.b.database, DIGEST, scene.user, NOON)
    with pytest.raises(EngineRefusalError, match="node a was declared gone"):
        async with member(scene.url, "a", scene.path):
            pass
    await scene.b.sync()
    assert await credited(scene.b) == 5
    assert await forget_node(scene.url, "a") is None


async def test_an_act_is_noted_as_done_once_it_is_shared(scene: Scene) -> None:
    async with scene.b.database.claims.once("act", "1"):
        pass
    with pytest.raises(ZeroDivisionError):
        async with scene.b.database.claims.once("act", "2"):
            raise ZeroDivisionError

    async def is_done() -> bool:
        return await scene.claims() == [("b", True)]

    await until(is_done)

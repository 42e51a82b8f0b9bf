"""Nodes whose sharing a test drives step by step, with lost replies and kills."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from relay.cluster.link import Connection, Link
from relay.cluster.replication.replication import Replication
from relay.store.database import Database
from tests.cluster.replication.members import Member, assert_equal, settle
from tests.cluster.replication.rows import CREDIT, USAGE, USER

PEOPLE = [f"usr_{number}" for number in range(4)]


class Trial:
    """Three nodes that come and go, and all that was done on them."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.members: dict[str, Member] = {}
        self.requests: set[str] = set()
        self.credited = 0
        self.serial = 0

    async def open(self, name: str) -> Member:
        database = await Database.open(self.folder / f"{name}.db")
        replication = await Replication.open(database, self.url, name)
        # Only `sync` shares, so that the test decides when.
        assert replication._task is not None
        replication._task.cancel()
        self.members[name] = Member(name, database, replication)
        return self.members[name]

    async def kill(self, name: str) -> None:
        """End it with nothing sent."""
        one = self.members.pop(name)
        assert one.replication is not None
        await one.replication._close_links()
        await one.database.close()

    async def act(self, one: Member, what: int, which: str) -> None:
        self.serial += 1
        serial = self.serial
        if what == 0:
            exists = await one.rows("SELECT 1 FROM users WHERE id = ?", which)
            if not exists:
                await one.run(USER, which, f"{which}@x")
        elif what == 1:
            await one.run("DELETE FROM keys WHERE user_id = ?", which)
            await one.run("DELETE FROM users WHERE id = ?", which)
        elif what == 2:
            await one.run("UPDATE users SET plan = ? WHERE id = ?", f"p{serial}", which)
        elif what == 3:
            await one.run("UPDATE users SET password_hash = ? WHERE id = ?", f"h{serial}", which)
        elif what == 4:
            self.credited += serial
            await one.run(CREDIT, which, serial)
        elif what == 5:
            self.requests.add(f"req_{serial}")
            await one.run(USAGE, f"req_{serial}", float(serial), which)
        elif what == 6:
            await one.run(
                "INSERT OR IGNORE INTO response SELECT ?1, id, NULL, 1, 2, x'0102' FROM users"
                " WHERE id = ?2",
                f"resp_{serial % 5}", which,
            )  # fmt: skip
        elif what == 7:
            await one.run("UPDATE response SET expires = ? WHERE owner = ?", float(serial), which)
        elif what == 8:
            await one.run("INSERT OR REPLACE INTO pause VALUES (?, ?)", which, float(serial))
        else:
            await one.run("DELETE FROM pause WHERE upstream = ?", which)

    async def sync(self, one: Member, cut: int, *, is_done: bool = True) -> None:
        """Share; `cut`: that call fails, after PostgreSQL has carried it out, or before."""
        assert one.replication is not None
        link = one.replication._link
        calls = 0

        async def call(work: Callable[[Connection], Awaitable[Any]]) -> Any:
            nonlocal calls
            calls += 1
            if calls == cut and not is_done:
                raise ConnectionError
            result = await Link.call(link, work)
            if calls == cut:
                raise ConnectionError
            return result

        link.call = call  # type: ignore[method-assign]
        try:
            await one.sync()
        except ConnectionError:
            pass
        finally:
            del link.call

    async def assert_complete(self) -> None:
        """Let all share: they have the same rows, and each credit and request once."""
        members = [*self.members.values()]
        await settle(*members)
        await assert_equal(*members)
        for one in members:
            sums = await one.rows("SELECT coalesce(sum(credited), 0) FROM balance")
            assert sums == [(self.credited,)]
            found = await one.rows("SELECT id FROM usage ORDER BY id")
            assert found == sorted((it,) for it in self.requests)

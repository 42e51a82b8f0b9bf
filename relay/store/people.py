"""All accounts for administrators: found, in any order, page by page, each with what it used.

What was used in a month comes from `usage_month` and from the requests that are in no sum yet, so
a list of 10,000 accounts does not touch a million requests. Must not know who looks.
"""

from datetime import UTC, datetime
from typing import Final, Literal, get_args

import msgspec

from relay.store.database import Database

Order = Literal["email", "plan", "created", "requests", "tokens", "cost", "balance"]
State = Literal["", "active", "suspended", "admin"]
ORDERS: Final[tuple[str, ...]] = get_args(Order)
STATES: Final[tuple[str, ...]] = get_args(State)

_COLUMN: Final[dict[str, str]] = {
    "email": "email", "plan": "plan", "created": "created_at", "requests": "requests",
    "tokens": "tokens", "cost": "cost_micro", "balance": "balance_micro",
}  # fmt: skip
_STATE: Final[dict[str, str]] = {
    "": "1", "active": "suspended_at IS NULL", "suspended": "suspended_at IS NOT NULL",
    "admin": "is_admin",
}  # fmt: skip
_FROM: Final = """FROM users WHERE (email LIKE ?1 ESCAPE '\\' OR id = ?2) AND (?3 = '' OR plan = ?3)
    AND """


class Person(msgspec.Struct, frozen=True):
    """One account in the list. The counts are those of a month."""

    id: str
    email: str
    plan: str
    is_admin: bool
    suspended_at: float | None
    created_at: float
    balance_micro: int | None  # None: there never was one
    requests: int
    tokens: int
    cost_micro: int


class PeopleFilter(msgspec.Struct, frozen=True):
    """Which accounts: those whose address contains a text, or that have this id."""

    text: str = ""
    plan: str = ""
    state: State = ""

    def values(self) -> tuple[str, str, str]:
        """The values of `_FROM`."""
        pattern = self.text
        for mark in ("\\", "%", "_"):
            pattern = pattern.replace(mark, "\\" + mark)
        return f"%{pattern}%", self.text, self.plan


def month_of(now: float) -> int:
    """The first second of a moment's month, UTC."""
    at = datetime.fromtimestamp(now, UTC)
    return int(at.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())


async def count_people(database: Database, which: PeopleFilter) -> int:
    """The number of accounts."""
    statement = f"SELECT count(*) {_FROM} {_STATE[which.state]}"
    return int((await database.select(statement, which.values()))[0][0])


class Slice(msgspec.Struct, frozen=True):
    """A part of the list, in an order."""

    order: Order
    descending: bool
    limit: int
    offset: int


async def people(database: Database, which: PeopleFilter, part: Slice, month: int) -> list[Person]:
    """A page of accounts, with what each used in a month and its balance."""
    direction = "DESC" if part.descending else "ASC"
    statement = f"""WITH lately AS (
            SELECT user_id, sum(requests) AS requests,
                sum(input + output + cache_read + cache_write + estimated) AS tokens,
                sum(cost_micro) AS cost_micro
            FROM usage_lately WHERE hour >= ?4 GROUP BY 1),
        found AS (SELECT id, email, plan, is_admin, suspended_at, created_at
            {_FROM} {_STATE[which.state]})
        SELECT found.*, balance.micro AS balance_micro,
            coalesce(usage_month.requests, 0) + coalesce(lately.requests, 0) AS requests,
            coalesce(usage_month.tokens, 0) + coalesce(lately.tokens, 0) AS tokens,
            coalesce(usage_month.cost_micro, 0) + coalesce(lately.cost_micro, 0) AS cost_micro
        FROM found
        LEFT JOIN usage_month ON usage_month.month = ?4 AND usage_month.user_id = found.id
        LEFT JOIN lately ON lately.user_id = found.id
        LEFT JOIN balance ON balance.user_id = found.id
        ORDER BY {_COLUMN[part.order]} {direction}, email LIMIT ?5 OFFSET ?6"""  # noqa: S608
    rows = await database.select(statement, [*which.values(), month, part.limit, part.offset])
    return [
        Person(id, email, plan, bool(is_admin), *rest) for id, email, plan, is_admin, *rest in rows
    ]


async def count_by_plan(database: Database) -> dict[str, int]:
    """The number of accounts on each plan."""
    return dict(await database.select("SELECT plan, count(*) FROM users GROUP BY plan"))


async def low_balances(
    database: Database, plans: list[str], below_micro: int
) -> list[tuple[str, str, int]]:
    """Id, address and balance of active accounts on these plans that have less, lowest first."""
    marks = ", ".join("?" * len(plans))
    rows = await database.select(
        f"""SELECT users.id, email, coalesce(micro, 0) FROM users
            LEFT JOIN balance ON balance.user_id = users.id
            WHERE plan IN ({marks}) AND suspended_at IS NULL AND coalesce(micro, 0) < ?
            ORDER BY 3, email LIMIT 100""",  # noqa: S608
        [*plans, below_micro],
    )
    return [(str(row[0]), str(row[1]), int(row[2])) for row in rows]


async def names_of(database: Database, ids: set[str]) -> dict[str, tuple[str, str]]:
    """Address and plan of each of these accounts, by id."""
    marks = ", ".join("?" * len(ids))
    rows = await database.select(
        f"SELECT id, email, plan FROM users WHERE id IN ({marks})",  # noqa: S608
        sorted(ids),
    )
    return {row[0]: (row[1], row[2]) for row in rows}

"""Relays with an administrator, people and usage, for the tests of the administrators' pages."""

import sqlite3
import time
from typing import Any

from relay.store.audit import AuditEntry, entries
from tests.fakes.live import EMAIL, Live
from tests.web.visitor import Visitor, make_admin

PLANS: list[dict[str, Any]] = [
    {
        "id": "pro", "name": "Pro", "max_keys": 5, "enforce": "account",
        "limits": [
            {"requests": 400, "per": "5h"}, {"requests": 2000, "per": "7d"},
            {"tokens": 2_000_000, "per": "1m"},
        ],
    },
    {"id": "team", "name": "Team", "billing": "per-token", "enforce": "account"},
]  # fmt: skip
MODELS: list[dict[str, Any]] = [
    {
        "id": "claude-sonnet-4-7", "display_name": "Sonnet",
        "aliases": ["sonnet", "claude-sonnet-*"],
        "price": {"input": 3.0, "output": 15.0},
    },
    {"id": "claude-opus-4-8", "price": {"input": 5.0, "output": 25.0}},
]  # fmt: skip
ADMIN = "grace@example.com"
PERSON = "/admin/people/{}"


async def new_admin(live: Live, visitor: Visitor) -> None:
    """Sign an administrator up."""
    await visitor.sign_up(ADMIN)
    await make_admin(live)


async def add_people(live: Live, count: int, *, plan: str = "pro") -> list[tuple[str, str]]:
    """Accounts with a key each; their ids with those of their keys."""
    now = time.time()
    people = [(f"usr_{number:016x}", f"person{number:05}@example.org") for number in range(count)]

    def work(connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT INTO users (id, email, plan, is_admin, created_at) VALUES (?, ?, ?, 0, ?)",
            [(id, email, plan, now - number * 60) for number, (id, email) in enumerate(people)],
        )
        connection.executemany(
            """INSERT INTO keys (id, user_id, name, digest, hint, created_at)
               VALUES (?, ?, 'laptop', ?, 'sk-relay-…', ?)""",
            [
                (f"key_{number:016x}", id, number.to_bytes(32, "big"), now)
                for number, (id, _) in enumerate(people)
            ],
        )

    await live.app.database.write(work)
    return [(id, f"key_{number:016x}") for number, (id, _) in enumerate(people)]


async def id_of(live: Live, email: str = EMAIL) -> str:
    rows = await live.app.database.select("SELECT id FROM users WHERE email = ?", (email,))
    return str(rows[0][0])


async def last_entry(live: Live) -> AuditEntry:
    return (await entries(live.app.database, limit=1))[0]


async def act(visitor: Visitor, page: str, action: str, **fields: str) -> Any:
    """Send the form of a page and follow its answer."""
    answer = await visitor.submit(page, action, **fields)
    assert answer.status_code == 303, answer.text
    return await visitor.get(answer.headers["location"])

"""Usage as if a relay had served it for a while, written into the database at once."""

import random
import sqlite3
import time

from relay.store.database import Database

MODELS = ("claude-sonnet-4-7", "claude-opus-4-8", "claude-haiku-4-5")
_HOUR = 3600
_OUTCOMES = (
    ("whole", 200, "reported"), ("cut: the upstream closed the connection", 200, "partial"),
    ("caller left", 200, "left"), ("failed: upstream overloaded", 529, "refunded"),
)  # fmt: skip


async def seed_usage(
    database: Database, owners: list[tuple[str, str]], rows: int, *, days: float = 7.0
) -> None:
    """Requests of (account, key) pairs in turn, over the last days; their sums, too."""
    chance = random.Random(4)
    now = time.time()
    step = days * 86_400 / rows

    def work(connection: sqlite3.Connection) -> None:
        first = connection.execute("SELECT coalesce(max(number), 0) FROM usage").fetchone()[0]
        connection.executemany(
            """INSERT INTO usage (number, id, time, key_id, user_id, model, dialect, reserved,
                   status, served, upstream, input, output, cache_read, cache_write, cost_micro,
                   ttfb_us, duration_us, outcome, rule)
               VALUES (?, ?, ?, ?, ?, ?, 'messages', 2000, ?, NULL, 'main', ?, ?, ?, ?, ?, ?, ?,
                   ?, ?)""",
            (
                _row(first + number + 1, now - (rows - number) * step, owners, chance)
                for number in range(rows)
            ),
        )
        connection.execute(
            """INSERT INTO usage_hour
               SELECT hour, user_id, key_id, model, sum(requests), sum(refunded), sum(input),
                   sum(output), sum(cache_read), sum(cache_write), sum(estimated), sum(cost_micro)
               FROM usage_lately GROUP BY 1, 2, 3, 4
               ON CONFLICT DO UPDATE SET requests = requests + excluded.requests"""
        )
        connection.execute("UPDATE summed SET upto = (SELECT max(number) FROM usage)")

    await database.write(work)


def _row(
    number: int, at: float, owners: list[tuple[str, str]], chance: random.Random
) -> tuple[object, ...]:
    user_id, key_id = owners[chance.randrange(len(owners))]
    model = chance.choices(MODELS, (6, 3, 2))[0]
    outcome, status, rule = chance.choices(_OUTCOMES, (40, 1, 2, 1))[0]
    read = chance.choice((0, 12_000, 48_000, 90_000))
    fresh, output, written = chance.randrange(40, 3_000), chance.randrange(20, 2_400), read // 9
    cost = 0 if rule == "refunded" else fresh * 3 + output * 15 + read * 3 // 10 + written * 4
    first = chance.randrange(300_000, 2_000_000)
    return (
        number, f"req_{number:032x}", at, key_id, user_id, model, status, fresh, output, read,
        written, cost, first, first + output * 9_000, outcome, rule,
    )  # fmt: skip

"""Databases of a wanted size: many keys, or many rows of usage.

Decides what the rows hold: accounts with one key each, and requests of the last thirty days,
summed up and indexed as a relay has them that served them. Written by SQL, beside no relay. Must
not know what is measured.
"""

import hashlib
import sqlite3
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from bench.dialects import MODEL

PREFIX = "sk-llmapi-"
TOKEN = "bench-" + "0" * 37  # of the session that reads the pages
_DAYS = 30
_OTHERS = 99  # accounts with usage beside the bench's own
_OWN_SHARE = 10  # every tenth request is the bench's own

# Some numbers that differ from row to row, in place of chance.
_USAGE = """
WITH RECURSIVE row (n) AS (SELECT 1 WHERE :rows > 0 UNION ALL SELECT n + 1 FROM row WHERE n < :rows)
INSERT INTO usage SELECT n, printf('req_%024x', n), :start + n * :step,
    iif(n % :share, printf('key_%016x', n % :others), :key),
    iif(n % :share, printf('usr_%016x', n % :others), :user),
    :model, 'messages', 4000, 200, :model, 'simulated-1',
    100 + n % 4001, 10 + n % 701, n % 20011, n % 307, 1000 + n % 9001,
    200000 + n % 900001, 900000 + n % 9000001, 'whole', 'reported'
FROM row
"""
_SUMS = """
INSERT INTO usage_hour (hour, user_id, key_id, model, requests, refunded, input, output,
    cache_read, cache_write, estimated, cost_micro)
SELECT hour, user_id, key_id, model, sum(requests), sum(refunded), sum(input), sum(output),
    sum(cache_read), sum(cache_write), sum(estimated), sum(cost_micro)
FROM usage_lately GROUP BY 1, 2, 3, 4;
INSERT INTO usage_of (user_id, number) SELECT user_id, number FROM usage ORDER BY 1, 2;
INSERT INTO latency_hour (user_id, hour, key_id, model, part, at_most, requests)
SELECT user_id, CAST(time AS INTEGER) / 3600 * 3600, key_id, model, 'whole', 10000, count(*)
FROM usage GROUP BY 1, 2, 3, 4;
UPDATE summed SET upto = (SELECT coalesce(max(number), 0) FROM usage);
UPDATE usage_indexed SET upto = (SELECT upto FROM summed);
UPDATE latency_summed SET upto = (SELECT upto FROM summed);
"""


def key_of(number: int) -> str:
    """The key of account `number`, which is the same in every run."""
    digest = hashlib.sha256(b"bench %d" % number).digest()
    return PREFIX + urlsafe_b64encode(digest).rstrip(b"=").decode()


def fill_keys(path: Path, keys: int, plan: str) -> None:
    """Add accounts with one key each."""
    now = time.time()
    users: Iterator[tuple[object, ...]] = (
        (f"usr_{number:016x}", f"user-{number}@example.com", plan, now) for number in range(keys)
    )
    rows: Iterator[tuple[object, ...]] = (
        (
            f"key_{number:016x}", f"usr_{number:016x}",
            hashlib.sha256(key_of(number).encode()).digest(), now,
        )
        for number in range(keys)
    )  # fmt: skip
    with closing(_opened(path)) as database, database:
        database.executemany(
            "INSERT INTO users (id, email, plan, created_at) VALUES (?, ?, ?, ?)", users
        )
        database.executemany(
            "INSERT INTO keys (id, user_id, name, digest, hint, created_at) "
            "VALUES (?, ?, '', ?, 'sk-…', ?)",
            rows,
        )


def fill_usage(path: Path, rows: int) -> None:
    """Add settled requests, of which a tenth belongs to the account that is there."""
    now = time.time()
    start = now - _DAYS * 86_400
    with closing(_opened(path)) as database, database:
        user, key = database.execute("SELECT user_id, id FROM keys").fetchone()
        values = {
            "rows": rows, "start": start, "step": (now - 60 - start) / max(1, rows),
            "share": _OWN_SHARE, "others": _OTHERS, "user": user, "key": key, "model": MODEL,
        }  # fmt: skip
        database.execute(_USAGE, values)
        for statement in _SUMS.split(";"):
            database.execute(statement)


def log_in(path: Path) -> None:
    """Add a session of the account that is there, with `TOKEN`."""
    now = time.time()
    with closing(_opened(path)) as database, database:
        database.execute(
            "INSERT INTO session SELECT ?, id, ?, ?, '127.0.0.1', 'bench' FROM users LIMIT 1",
            (hashlib.sha256(TOKEN.encode()).digest(), now, now),
        )


def _opened(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    # A copy that is lost with the machine is filled again.
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -200000")
    return database

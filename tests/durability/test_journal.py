"""kill -9 at any moment: every acknowledged entry is in the database, and everything adds up."""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROUNDS = 8

# Forks a writer for each round, which starts faster than a new process. The writer reports each
# durable entry on a pipe, as a client would receive the last octet of an answer.
DRIVER = r"""
import asyncio, json, os, random, select, signal, sqlite3, sys, time
import uvloop
from relay.store import balance
from relay.store.database import Database
from relay.store.batch import read
from relay.store.journal import Journal
from relay.store.records import AdmissionRow, Charge, Settlement
from relay.store.recovery import restore

path, rounds, synchronous = sys.argv[1], int(sys.argv[2]), sys.argv[3]
WINDOW = ("key", "key_1", "requests", 604800, "window", 10**9)
END = 4 * 10**12


async def write(number, pipe):
    database = await Database.open(path)
    state = await restore(database, time.time())
    [used] = [row[6] for row in state.rows if row[2] == "requests"] or [0]
    changed = False

    def changes():
        nonlocal changed
        was, changed = changed, False
        return [(*WINDOW, used, END)] if was else []

    journal = await Journal.start(database, changes, synchronous)
    running = []

    def report(kind, request):
        return lambda durable: os.write(pipe, b"%c %s\n" % (kind, request.encode()))

    count = 0
    while True:
        for _ in range(random.choice([1, 1, 1, 5, 40])):
            count += 1
            request = f"req_{number:04}_{count:08}"
            used += 1
            changed = True
            billed = count % 2 == 0
            model = "paid" if billed else "free"
            opening = AdmissionRow(request, time.time(), "key_1", "usr_1", model,
                                   "messages", 100, 50 if billed else 0)
            ticket = journal.open(opening)
            ticket.when_durable(report(ord("o"), request))
            running.append((ticket, opening))
        random.shuffle(running)
        while len(running) > 30:
            ticket, opening = running.pop()
            end = Settlement(opening.id, 200, "m", "main", 1, 2, 3, 4, 7, 10, 20, "whole",
                             "reported")
            charge = None
            if opening.billed_micro:
                charge = Charge("usr_1", time.time(), 7, opening.id, "")
            ticket = journal.settle(end, charge)
            ticket.when_durable(report(ord("s"), opening.id))
        await asyncio.sleep(random.choice([0, 0, 0.001]))


def one_round(number):
    reading, writing = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            uvloop.run(write(number, writing))
        finally:
            os._exit(1)
    os.close(writing)
    select.select([reading], [], [], 10)
    ready = time.monotonic() - started
    output = b""
    until = time.monotonic() + random.random() ** 2 * 0.25
    while (left := until - time.monotonic()) > 0:  # a full pipe would stop the writer
        if select.select([reading], [], [], left)[0]:
            output += os.read(reading, 1 << 16)
    os.kill(child, signal.SIGKILL)
    while more := os.read(reading, 1 << 16):
        output += more
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    acknowledged = [line.split() for line in output.decode().split("\n")[:-1]]
    connection = sqlite3.connect(path)
    one = lambda statement: connection.execute(statement).fetchone()
    upto = one("SELECT upto FROM unfolded")[0]
    batches = list(read(connection))
    left = [batch for number, batch in batches if number > upto]
    unfolded = [row[0] for row in connection.execute("SELECT id FROM usage")]
    settled = unfolded + [row.id for batch in left for row in batch.ended]
    opened = {row[0] for row in connection.execute("SELECT id FROM running")} | {*settled}
    opened |= {row.id for batch in left for row in batch.opened}
    [used] = [row[6] for _, batch in batches for row in batch.buckets][-1:] or one(
        "SELECT coalesce(max(used), 0) FROM bucket")
    result = {
        "killed": os.WTERMSIG(status) == signal.SIGKILL,
        "ready": ready,
        "acknowledged": len(acknowledged),
        "lost": [request for kind, request in acknowledged
                 if request not in (opened if kind == "o" else settled)],
        "integrity": one("PRAGMA integrity_check")[0],
        "opened": len(opened),
        "used": used,
        "settled": len(settled),
        "twice": len(settled) - len({*settled}),
        "unfolded": len(unfolded),
        "left": len(left),
        "summed": one("SELECT total(requests) FROM usage_sums")[0],
        "cost": one("SELECT total(cost_micro) FROM usage WHERE model = 'paid'")[0],
        "charged": one("SELECT total(charged) FROM balance")[0],
        "statement": -one("SELECT total(amount_micro) FROM statement")[0],
    }
    connection.close()
    return result


async def settle_the_last():
    database = await Database.open(path)
    await restore(database, time.time())
    await database.close()


results = [one_round(number) for number in range(rounds)]
asyncio.run(settle_the_last())
connection = sqlite3.connect(path)
end = connection.execute(
    "SELECT count(*), count(DISTINCT id), (SELECT used FROM bucket), "
    "(SELECT sum(requests) FROM usage_hour), (SELECT count(*) FROM running) FROM usage").fetchone()
print(json.dumps({"rounds": results, "end": end}))
"""


@pytest.mark.parametrize(
    ("synchronous", "rounds"),
    [("normal", ROUNDS), ("full", 3), pytest.param("normal", 25, marks=pytest.mark.thorough)],
)
def test_a_kill_loses_no_acknowledged_entry(tmp_path: Path, synchronous: str, rounds: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path / "relay.db"), str(rounds), synchronous],
        capture_output=True,
        text=True,
        timeout=60 + 3 * rounds,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    results: list[dict[str, Any]] = found["rounds"]
    assert len(results) == rounds
    for result in results:
        assert result["killed"]
        assert result["lost"] == []
        assert result["integrity"] == "ok"
        assert result["used"] == result["opened"]  # limits and requests never part
        assert result["twice"] == 0
        assert result["summed"] == result["unfolded"]
        assert result["cost"] == result["charged"] == result["statement"]
    assert statistics.median(result["ready"] for result in results) < 1
    assert sum(result["acknowledged"] for result in results) > 20 * rounds
    assert sum(result["left"] for result in results)  # some were killed between two steps
    assert found["end"] == [results[-1]["opened"]] * 4 + [0]

"""Several relays with one ledger: 40 requests left are 40, whichever relay gets them."""

import asyncio
import json
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster.postgres import Postgres
from tests.cluster.relays import Fleet, Three, all_serving, ask_all, ask_once, ask_until
from tests.durability.metered import opened
from tests.durability.process import data, relay, serving
from tests.fakes.until import until
from tests.handover.relays import Relays
from tests.scoreboard import RecordProperty
from tests.workers.everywhere import everywhere
from tests.workers.processes import ask_at_once

MORE = [pytest.param(plan, marks=pytest.mark.thorough) for plan in ("stacked", "hourly")]


@pytest.mark.parametrize("plan", ["forty", *MORE])
async def test_forty_left_are_forty_on_three_relays(
    three: Three, plan: str, record_property: RecordProperty
) -> None:
    statuses = await ask_until(three.relays, await three.new_keys(plan), 40)
    assert statuses[200] == 40
    assert set(statuses) == {200, 429}
    record_property("figure", "3 relays × 1,000 requests, 40 left: exactly 40")


@pytest.mark.long
async def test_forty_left_are_forty_twenty_times(three: Three) -> None:
    for key in await three.new_keys("forty", 20):
        assert await ask_all(three.relays, [key]) == {200: 40, 429: 2960}


async def test_keys_of_an_account_share_forty(three: Three) -> None:
    statuses = await ask_until(three.relays, await three.new_keys("shared", 4), 40, each=10)
    assert statuses[200] == 40
    assert set(statuses) == {200, 429}


async def test_relays_with_workers_share_forty(
    fleet: Fleet, postgres: Postgres, database: str
) -> None:
    [key] = fleet.new_keys("forty")
    with all_serving(fleet.spread(postgres.url(database), 2, workers=2)) as relays:
        statuses = await ask_until(relays, [key], 40, each=10)
    assert statuses[200] == 40


async def test_slots_of_another_relays_workers_are_recalled(
    fleet: Fleet, postgres: Postgres, database: str
) -> None:
    [key] = fleet.new_keys("forty")
    with all_serving(fleet.spread(postgres.url(database), 2, workers=2)) as relays:
        first, second = relays
        await ask_all([second], [key], connections=1, each=1)
        async with everywhere(first) as both:
            await both.knows(key)
            statuses = [(await both.callers[1].ask(key)).status for _ in range(9)]
            assert statuses == [200] * 9
            # The worker of the first has slots ahead, which it gives back after idle seconds.
            ends_at = time.monotonic() + 4
            admitted = 0
            while admitted < 30 and time.monotonic() < ends_at:
                admitted += (await ask_once(second, key))[0] == 200
            assert admitted == 30
            assert set(await both.statuses(key)) == {429}
        assert (await ask_once(second, key))[0] == 429


def charges(folder: Path) -> int:
    """What the newest account with two cents was charged, as a relay knows it."""
    query = """SELECT charged FROM balance JOIN users ON users.id = user_id
        WHERE credited = 20000 ORDER BY created_at DESC LIMIT 1"""
    with opened(folder) as connection:
        [row] = connection.execute(query)
        return int(row["charged"])


async def test_a_balance_is_never_overdrawn(three: Three) -> None:
    [key] = await three.new_keys("free", credit="0.02")
    folders = three.fleet.folders
    statuses: Counter[int] = Counter()
    while one := (await ask_all(three.relays, [key], connections=4, each=10))[200]:
        statuses[200] += one
    await until(lambda: len({charges(folder) for folder in folders}) == 1, within=20)
    charged = charges(folders[0])
    assert statuses[200] > 10
    assert 15_000 < charged <= 20_000  # what is left covers no request on any relay


async def test_charges_before_a_ledger_was_shared_count(
    fleet: Fleet, postgres: Postgres, database: str
) -> None:
    """A relay that has served alone joins with what was used until then, whichever relay claims
    first."""
    [key] = fleet.new_keys("forty")
    with serving(fleet.home) as alone:
        assert await ask_all([alone], [key], connections=5, each=5) == {200: 25}
        alone.signal()
        assert await alone.exited(10) == 0
    with all_serving(fleet.spread(postgres.url(database), 2)) as relays:
        assert (await ask_once(relays[1], key))[0] == 200
        statuses = await ask_all(relays, [key], connections=10, each=10)
    assert statuses == {200: 14, 429: 186}


async def test_a_refusal_is_that_of_a_single_relay(three: Three) -> None:
    [key] = await three.new_keys("forty")
    relays = three.relays[:2]
    _, fields, _ = await ask_once(relays[0], key)
    assert fields[b"x-ratelimit-limit"] == b"40"
    assert 37 <= int(fields[b"x-ratelimit-remaining"]) <= 39
    await ask_all(relays, [key], connections=5, each=10)
    now = time.time()
    for running in relays:
        status, fields, body = await ask_once(running, key)
        assert status == 429
        assert fields[b"x-ratelimit-remaining"] == b"0"
        assert fields[b"x-should-retry"] == b"false"
        resets = int(fields[b"anthropic-ratelimit-unified-reset"])
        assert -1 <= now + 5 * 3600 - resets < 20
        message = json.loads(body)["error"]["message"]
        assert message.startswith("The limit of plan forty is reached: 40 requests per 5 hours")


async def test_a_killed_relay_counts_once(fleet: Fleet, postgres: Postgres, database: str) -> None:
    [key] = fleet.new_keys("forty")
    folders = fleet.spread(postgres.url(database), 2)
    with serving(folders[1]) as other:
        with serving(folders[0]) as running:
            assert await ask_all([running], [key], connections=1, each=10) == {200: 10}
            running.signal(signal.SIGKILL)
            await running.exited(10)
        with serving(folders[0]) as again:
            # Its earlier leases are free again as soon as it has reported them.
            admitted = 10
            async with asyncio.timeout(10):
                while admitted < 40:
                    admitted += (await ask_all([again, other], [key], connections=2, each=2))[200]
            last = await ask_all([again, other], [key], connections=4, each=5)
    assert admitted == 40
    assert last == {429: 40}


async def test_leases_last_through_an_outage_then_503(fleet: Fleet, own_postgres: Postgres) -> None:
    url = own_postgres.url(own_postgres.new_database())
    keys = fleet.new_keys("forty") + fleet.new_keys("stacked")
    with all_serving(fleet.spread(url, 2)) as relays:
        assert await ask_all(relays, keys[:1], connections=1, each=1) == {200: 2}
        own_postgres.stop()
        statuses = await ask_all(relays, keys, connections=4, each=5)
        assert set(statuses) <= {200, 503}
        assert statuses[503] > 0
        status, _, body = await ask_once(relays[0], keys[1])
        assert status == 503
        assert b"ledger" in body
        own_postgres.start()
        admitted = 2 + statuses[200]
        async with asyncio.timeout(20):
            while admitted < 40:
                admitted += (await ask_all(relays, keys[:1], connections=1, each=1))[200]
                await asyncio.sleep(0.05)
        assert await ask_all(relays, keys[:1], connections=1, each=3) == {429: 6}


async def test_an_outage_leaves_each_relay_its_part(fleet: Fleet, own_postgres: Postgres) -> None:
    url = own_postgres.url(own_postgres.new_database())
    [key] = fleet.new_keys("forty")
    with all_serving(fleet.spread(url, 2, on_outage="local")) as relays:
        assert await ask_all(relays, [key], connections=1, each=1) == {200: 2}
        await asyncio.sleep(1.5)  # until both know of two nodes
        own_postgres.stop()
        statuses = await ask_all(relays, [key], connections=5, each=10)
    assert set(statuses) == {200, 429} or set(statuses) == {200, 503}
    assert 20 <= statuses[200] <= 40 + 2


async def test_pace_and_concurrency_are_divided(three: Three) -> None:
    [key] = await three.new_keys("paced")
    await asyncio.sleep(1.5)  # until all know of three nodes
    statuses = await ask_all(three.relays, [key], connections=5, each=20)
    assert 30 <= statuses[200] <= 36


async def test_a_relay_starts_without_its_ledger(fleet: Fleet, own_postgres: Postgres) -> None:
    name = own_postgres.new_database()
    [key] = fleet.new_keys("forty")
    [folder] = fleet.spread(own_postgres.url(name), 1)
    with serving(folder) as running:  # once, to become a node
        running.signal()
        assert await running.exited(10) == 0
    own_postgres.stop()
    with serving(folder) as running:
        assert (await ask_once(running, key))[0] == 503
        own_postgres.start()
        async with asyncio.timeout(20):
            while (await ask_once(running, key))[0] != 200:
                pass


async def test_a_successor_goes_on_with_the_ledger(
    fleet: Fleet, postgres: Postgres, database: str
) -> None:
    [key] = fleet.new_keys("forty")
    [folder, other] = fleet.spread(postgres.url(database), 2)
    relays = Relays(folder)
    try:
        with serving(other) as beside:
            await relays.start()
            assert await ask_at_once(relays.port, [key], 2, 5) == {200: 10}
            await relays.start()  # takes over
            assert await relays.ended(0) == 0
            statuses = await ask_at_once(relays.port, [key], 4, 5)
            statuses += await ask_all([beside], [key], connections=4, each=10)
    finally:
        relays.kill()
    assert statuses[200] == 30


async def test_no_relay_joins_while_another_hands_over(
    fleet: Fleet, postgres: Postgres, database: str
) -> None:
    """Its requests in flight would be settled where no other node sees it."""
    [key] = fleet.new_keys("forty")
    [folder] = fleet.spread(postgres.url(database), 1)
    path = folder / "relay.toml"
    text = path.read_text()
    path.write_text(text.replace("\nurl = ", "\n# url = "))
    relays = Relays(folder)
    try:
        await relays.start()
        path.write_text(text)
        relays.spawn()
        assert await relays.ended(1) != 0
        assert "stop this one, then start it again" in relays.said(1)
        assert await ask_at_once(relays.port, [key], 2, 5) == {200: 10}
    finally:
        relays.kill()


async def test_the_doctor_shows_the_ledger(fleet: Fleet, postgres: Postgres, database: str) -> None:
    [key] = fleet.new_keys("forty")
    [folder] = fleet.spread(postgres.url(database), 1)
    with serving(folder) as running:
        assert running.process.stderr is not None
        said = running.process.stderr.readline().decode()
        assert said == "relay shares its ledger as node n0\n"
        assert (await ask_once(running, key))[0] == 200
        assert "ledger: this relay is n0; 1 relay, 1 open window," in relay(folder, "doctor").stdout
        checked = relay(folder, "check")
        assert checked.returncode == 0, checked.stderr
        assert 'ledger.node = "n0"' in checked.stdout


async def test_upstreams_share_their_own_limits(
    fleet: Fleet, postgres: Postgres, database: str
) -> None:
    path = fleet.home / "relay.toml"
    text = path.read_text().replace("[server]", "[pool]\nwait = 0.5\n\n[server]")
    limits = 'api_key = "sim-key"\nlimits = [{ requests = 40, per = "5h" }]\n'
    path.write_text(text.replace('api_key = "sim-key"\n', limits))
    [key] = fleet.new_keys("free", credit="10")
    with all_serving(fleet.spread(postgres.url(database), 2)) as relays:
        statuses = await ask_all(relays, [key], connections=5, each=10)
    assert statuses[200] == 40
    assert set(statuses) == {200, 503}


async def test_a_cooldown_reaches_the_workers_of_all_relays(
    fleet: Fleet, postgres: Postgres, database: str
) -> None:
    [key] = fleet.new_keys("forty")
    [other] = fleet.new_keys("hourly")
    with all_serving(fleet.spread(postgres.url(database), 2, workers=2)) as relays:
        script = "x-simulate: fault=status;status=429;retry-after=600\r\n"
        status, _, _ = await ask_once(relays[0], key, fields=script)
        assert status == 429
        for running in relays:
            refused = 0
            async with asyncio.timeout(10):
                while refused < 12:  # in a row: each process gets some of the connections
                    status, fields, _ = await ask_once(running, key)
                    refused = refused + 1 if status == 503 else 0
            assert 500 < int(fields[b"retry-after"]) <= 600
            assert (await ask_once(running, other))[0] == 200  # another account


async def test_a_new_relay_has_what_the_others_have(
    fleet: Fleet, postgres: Postgres, database: str
) -> None:
    [key] = fleet.new_keys("forty")
    folders = fleet.spread(postgres.url(database), 2)
    with serving(folders[0]) as first:
        assert (await ask_once(first, key))[0] == 200
        with serving(folders[1]) as second:
            assert (await ask_once(second, key))[0] == 200
            later = data(folders[1], "key", "create", "--user", "forty@example.com")["key"]
            async with asyncio.timeout(5):
                while (await ask_once(first, later))[0] == 401:
                    pass
            emails = [one["email"] for one in data(folders[1], "user", "list")]
    assert "forty@example.com" in emails


async def test_a_new_relay_needs_the_ledger(fleet: Fleet, own_postgres: Postgres) -> None:
    name = own_postgres.new_database()
    own_postgres.stop()
    [folder] = fleet.spread(own_postgres.url(name), 1)
    done = relay(folder, "serve")
    assert done.returncode != 0
    assert "a new node needs PostgreSQL to join" in done.stderr

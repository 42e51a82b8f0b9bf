"""The queue, exhaustion, polls and pauses as transcripts, on a clock that the test moves."""

from pathlib import Path
from typing import Any

import pytest

from relay.store.database import Database
from tests.pool.transcript import Options, check

EQUAL: Options = {"one": {}, "two": {}}
NARROW: Options = {"one": {"max_concurrency": 1}}
SINGLE: Options = {"one": {}}

QUEUE: dict[str, tuple[Options, str]] = {
    "first-come-first-served": (
        NARROW,
        """
        request a   → one (only)
        request b   → waits
        request c   → waits
        end a       → b: one (only)
        end b       → c: one (only)
        """,
    ),
    "callers-take-turns": (
        NARROW,
        """
        request a              → one (only)
        request b1 caller=bob  → waits
        request b2 caller=bob  → waits
        request b3 caller=bob  → waits
        request e1 caller=eve  → waits
        end a                  → b1: one (only)
        end b1                 → e1: one (only)
        request e2 caller=eve  → waits
        end e1                 → b2: one (only)
        end b2                 → e2: one (only)
        end e2                 → b3: one (only)
        """,
    ),
    "a-newcomer-does-not-overtake": (
        NARROW,
        """
        request a   → one (only)
        request b   → waits
        fail a 400  → caller; b: one (only)
        request c   → waits
        """,
    ),
    "an-unservable-request-blocks-no-other": (
        {"one": {"max_concurrency": 1}, "two": {"max_concurrency": 1, "priority": 1}},
        """
        request a   → one (turn)
        request b   → two (turn)
        fail a 529  → request ~5
        again a     → waits                       # only two is left for it
        request c   → one (turn)
        request d   → waits
        end c       → d: one (turn)
        end b       → a: two (turn)
        """,
    ),
    "a-caller-leaves": (
        NARROW,
        """
        request a   → one (only)
        request b   → waits
        request c   → waits
        leave b     → b leaves the queue
        leave a     → c: one (only)
        """,
    ),
    "an-outage-ends-in-time": (
        SINGLE,
        """
        request a           → one (only)
        fail a 429 retry=20 → account +20
        request b           → waits
        clock +19
        clock +1            → b: one (only)
        """,
    ),
    "the-operator-resumes": (
        {"one": {"max_concurrency": 1}, "two": {}},
        """
        pause two
        request a   → one (turn)
        request b   → waits
        resume two  → b: two (turn)
        """,
    ),
    "one-place-for-each-queued-request": (
        {"one": {"max_concurrency": 2}},
        """
        request a   → one (only)
        request b   → one (only)
        request c   → waits
        request d   → waits
        request e   → waits
        end a       → c: one (only)
        end b       → d: one (only)
        """,
    ),
}

EXHAUSTION: dict[str, tuple[Options, dict[str, Any], str]] = {
    "busy-until-the-wait-is-over": (
        NARROW,
        {},
        """
        request a   → one (only)
        request b   → waits
        clock +29
        clock +1    → b: 503 retry-after=2
                    → "All upstreams for this model are busy. Try again in a moment."
        """,
    ),
    "no-waiting": (
        NARROW,
        {"wait": 0},
        """
        request a   → one (only)
        request b   → b: 503 retry-after=2
                    → "All upstreams for this model are busy. Try again in a moment."
        """,
    ),
    "a-full-queue": (
        NARROW,
        {"queue": 1},
        """
        request a   → one (only)
        request b   → waits
        request c   → c: 429 retry-after=1
                    → "All upstreams are busy, and this key has its share of the requests that \
wait for them. Try again in a moment."
        """,
    ),
    "out-for-less-than-a-minute": (
        EQUAL,
        {},
        """
        request a            → one (turn)
        fail a 429 retry=600 → account +600
        again a              → two (turn)
        fail a 429 retry=45  → account +45
        request b            → b: 503 retry-after=45
                             → "No upstream can serve this model before 1970-01-12T13:47:25.000Z."
        """,
    ),
    "out-for-longer": (
        EQUAL,
        {},
        """
        request a            → one (turn)
        fail a 429 retry=600 → account +600
        pause two
        request b            → b: 503 retry-after=600 x-should-retry=false
                             → "No upstream can serve this model before 1970-01-12T13:56:40.000Z."
        """,
    ),
    "all-paused": (
        EQUAL,
        {},
        """
        pause one
        pause two
        request a   → a: 503
                    → "No upstream can serve this model now. Try again later."
        """,
    ),
    "every-upstream-tried": (
        SINGLE,
        {},
        """
        request a   → one (only)
        fail a 500  → failure
        again a     → a: 503
                    → "No upstream can serve this model now. Try again later."
        """,
    ),
    "no-upstream-counts-tokens": (
        SINGLE,
        {},
        """
        pause one
        request a counting → a: 404 "No upstream for this model counts tokens."
        """,
    ),
    "an-own-limit-used-up": (
        {"one": {"limits": [{"requests": 1, "per": "1m"}]}},
        {"wait": 10},
        """
        request a   → one (only)
        request b   → b: 503 retry-after=60
                    → "No upstream can serve this model before 1970-01-12T13:47:40.000Z."
        """,
    ),
    "out-while-queued": (
        NARROW,
        {},
        """
        request a            → one (only)
        request b            → waits
        fail a 429 retry=600 → account +600
        clock +30            → b: 503 retry-after=570 x-should-retry=false
                             → "No upstream can serve this model before 1970-01-12T13:56:40.000Z."
        """,
    ),
}

POLLS: dict[str, tuple[Options, str]] = {
    "one-poll-an-interval": (
        {"one": {"vendor": "plan"}, "two": {}},
        """
        clock +299
        due
        clock +1
        due          → one
        poll one 12  → 12 left
        clock +299
        due
        clock +1
        due          → one
        """,
    ),
    "the-first-poll-comes-soon-after-an-outage": (
        {"one": {"vendor": "plan"}},
        """
        clock +50
        request a             → one (only)
        fail a 429 retry=3000 → account +3000
        clock +9
        due
        clock +1
        due          → one
        clock +10
        due
        """,
    ),
    "remaining-quota-ends-the-outage-and-serves-the-queue": (
        {"one": {"vendor": "plan"}, "two": {"max_concurrency": 1}},
        """
        request a             → one (turn)
        fail a 429 retry=3000 → account +3000
        again a               → two (turn)
        request b             → waits
        clock +10
        due                   → one
        poll one 97           → 97 left, its outage ends; b: one (turn)
        state                 → one ok; two ok
        """,
    ),
    "an-empty-quota-does-not": (
        {"one": {"vendor": "plan"}},
        """
        request a             → one (only)
        fail a 429 retry=3000 → account +3000
        clock +10
        due                   → one
        poll one 0            → 0 left
        state                 → one ok (429: retry-after given; 2990 s to go)
        """,
    ),
    "nor-does-an-older-poll": (
        {"one": {"vendor": "plan"}},
        """
        clock +300
        request a             → one (only)
        due                   → one
        clock +1
        fail a 429 retry=3000 → account +3000
        poll one 97           → 97 left
        state                 → one ok (429: retry-after given; 3000 s to go)
        """,
    ),
    "an-outage-that-is-not-about-quota-stays": (
        {"one": {"vendor": "plan"}},
        """
        request a             → one (only)
        fail a 401            → credential ~600
        clock +300
        due                   → one
        poll one 97           → 97 left
        state                 → one ok (401: does not accept the credential; 300 s to go)
        """,
    ),
    "a-paused-upstream-is-not-polled": (
        {"one": {"vendor": "plan"}},
        """
        pause one
        clock +900
        due
        resume one
        due          → one
        """,
    ),
}


@pytest.mark.parametrize(("upstreams", "transcript"), QUEUE.values(), ids=QUEUE)
async def test_queued_requests_take_turns(upstreams: Options, transcript: str) -> None:
    await check(transcript, upstreams)


@pytest.mark.parametrize(("upstreams", "pool", "transcript"), EXHAUSTION.values(), ids=EXHAUSTION)
async def test_an_exhausted_pool_refuses_with_a_time_to_retry(
    upstreams: Options, pool: dict[str, Any], transcript: str
) -> None:
    await check(transcript, upstreams, pool=pool)


@pytest.mark.parametrize(("upstreams", "transcript"), POLLS.values(), ids=POLLS)
async def test_polls_update_quota_and_outages(upstreams: Options, transcript: str) -> None:
    await check(transcript, upstreams)


async def test_pauses_outlast_the_process(tmp_path: Path) -> None:
    transcript = """
        pause one
        request a             → two (turn)
        fail a 429 retry=600  → account +600
        restart
        state                 → one paused (paused); two ok      # outages do not
        request b             → two (turn)
        resume one
        restart
        request c             → one (turn)
    """
    database = await Database.open(tmp_path / "relay.db")
    try:
        await check(transcript, EQUAL, database=database)
    finally:
        await database.close()

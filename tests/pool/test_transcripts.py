"""The pool's decisions as transcripts: events in, decisions out, on a clock that the test moves."""

import pytest

from tests.pool.transcript import Options, check

EQUAL: Options = {"one": {}, "two": {}}
TIERS: Options = {"one": {}, "two": {"priority": 1}}
SINGLE: Options = {"one": {}}

CHOICE: dict[str, tuple[Options, str]] = {
    "equals-take-turns": (
        EQUAL,
        """
        request a    → one (turn)
        request b    → two (turn)
        request c    → one (turn)
        end c
        request d    → two (turn)
        """,
    ),
    "lower-priority-first": (
        TIERS,
        """
        request a    → one (turn)
        request b    → one (turn)
        pause one
        request c    → two (turn)
        resume one
        request d    → one (turn)
        """,
    ),
    "turns-by-weight": (
        {"one": {"weight": 2}, "two": {}},
        """
        request a    → one (turn)
        end a
        request b    → two (turn)
        end b
        request c    → one (turn)
        end c
        request d    → one (turn)
        end d
        request e    → two (turn)
        """,
    ),
    "a-full-upstream-is-passed-over": (
        {"one": {"max_concurrency": 1}, "two": {"priority": 1}},
        """
        request a    → one (turn)
        request b    → two (turn)
        end a
        request c    → one (turn)
        """,
    ),
    "counting-uses-no-turn": (
        EQUAL,
        """
        request n counting → one (turn)
        end n
        request a          → one (turn)
        end a
        request m counting → two (turn)
        end m
        request b          → two (turn)
        """,
    ),
    "a-conversation-stays": (
        EQUAL,
        """
        request a talk=t    → one (turn)
        answer a
        end a
        request b talk=t    → one (session)
        request c talk=u    → two (turn)
        answer c
        request d talk=t    → one (session)
        request e talk=u    → two (session)
        request f talk=t caller=other → one (turn)   # a conversation belongs to its caller
        """,
    ),
    "a-conversation-moves-with-its-answer": (
        EQUAL,
        """
        request a talk=t    → one (turn)
        answer a
        end a
        request b talk=t    → one (session)
        fail b 529          → request ~5
        again b             → two (turn)
        answer b
        end b
        clock +6
        request c talk=t    → two (session)
        """,
    ),
    "a-binding-ends-with-the-cache": (
        TIERS,
        """
        pause one
        request a talk=t    → two (turn)
        answer a
        end a
        resume one
        clock +299
        request b talk=t    → two (session)
        answer b
        end b
        clock +300
        request c talk=t    → one (turn)
        """,
    ),
    "an-own-limit": (
        {"one": {"limits": [{"requests": 1, "per": "2h"}]}, "two": {"priority": 1}},
        """
        request a           → one (turn)
        request b           → two (turn)
        request n counting  → one (turn)
        clock +7200
        request c           → one (turn)
        fail c 500          → failure             # refunded, so there is room again
        request d           → one (turn)
        """,
    ),
    "an-own-token-limit": (
        {"one": {"limits": [{"tokens": 1000, "per": "1h"}]}, "two": {"priority": 1}},
        """
        request a tokens=600 → one (turn)
        request b tokens=600 → two (turn)
        request c tokens=300 → one (turn)
        """,
    ),
}

COOLING: dict[str, tuple[Options, str]] = {
    "account-stated": (
        EQUAL,
        """
        request a           → one (turn)
        fail a 429 retry=30 → account +30
        again a             → two (turn)
        state               → one ok (429: retry-after given; 30 s to go); two ok
        request b           → two (turn)
        clock +29
        request c           → two (turn)
        clock +1
        request d           → one (turn)
        state               → one ok; two ok
        """,
    ),
    "request-guessed": (
        EQUAL,
        """
        request a           → one (turn)
        fail a 429          → request ~3
        state               → one ok (429: without a reason; 3 s to go); two ok
        request b           → two (turn)
        request c           → two (turn)
        clock +3
        request d           → one (turn)
        """,
    ),
    "overloaded": (
        EQUAL,
        """
        request a           → one (turn)
        fail a 529          → request ~5
        request b           → two (turn)
        fail b 529 retry=20 → request +20
        request c           → one (turn)          # a strained upstream beats none
        """,
    ),
    "failure-stated": (
        EQUAL,
        """
        request a           → one (turn)
        fail a 503 retry=20 → failure +20
        state               → one ok (503: it failed; 20 s to go); two ok
        request b           → two (turn)
        clock +20
        request c           → one (turn)
        """,
    ),
    "model-only": (
        EQUAL,
        """
        request a model=opus → one (turn)
        fail a 404           → model ~60
        request b model=opus → two (turn)
        request c            → one (turn)         # another model is not affected
        request d model=opus → two (turn)
        clock +60
        request e model=opus → one (turn)
        """,
    ),
    "model-guess-disproved-by-an-answer": (
        TIERS,
        """
        request a model=opus → one (turn)
        request b model=opus → one (turn)
        fail a 404           → model ~60
        request c model=opus → two (turn)
        answer b
        request d model=opus → one (turn)
        """,
    ),
    "credential": (
        EQUAL,
        """
        request a            → one (turn)
        fail a 401           → credential ~600
        state                → one ok (401: does not accept the credential; 600 s to go); two ok
        request b model=opus → two (turn)
        clock +599
        request c            → two (turn)
        clock +1
        request d            → one (turn)
        """,
    ),
    "credential-of-a-stated-type": (
        EQUAL,
        """
        request a caller=j   → one (turn)
        fail a 401 error=authentication_error → credential ~600
        state                → one down (401: does not accept the credential; 600 s to go); two ok
        request b model=opus → two (turn)
        clock +600
        request d            → one (turn)         # the one that finds out
        request e            → two (turn)
        answer d
        request f            → one (turn)
        """,
    ),
    "caller": (
        EQUAL,
        """
        request a            → one (turn)
        fail a 400           → caller
        state                → one ok; two ok
        request b            → two (turn)
        """,
    ),
    "count-tokens-not-served": (
        TIERS,
        """
        request a counting          → one (turn)
        fail a 404                  → feature
        request b                   → one (turn)
        request c counting          → two (turn)
        request d counting caller=j → one (turn)  # another caller's finds out for itself
        fail d 404                  → feature
        request e counting caller=i → two (turn)
        """,
    ),
    "a-longer-stated-outage-outlives-a-shorter": (
        SINGLE,
        """
        request a             → one (only)
        request b             → one (only)
        fail a 429 retry=600  → account +600
        fail b 429 retry=5    → account +5
        state                 → one ok (429: retry-after given; 600 s to go)
        """,
    ),
    "the-operator-clears-it": (
        EQUAL,
        """
        request a             → one (turn)
        fail a 429 retry=600  → account +600
        request b             → two (turn)
        clear one
        request c             → one (turn)
        """,
    ),
}

CIRCUIT: dict[str, tuple[Options, str]] = {
    "opens-after-three-failures-in-a-row-and-closes": (
        TIERS,
        """
        request a      → one (turn)
        fail a closed  → failure
        request b      → one (turn)
        fail b connect → failure
        state          → one ok; two ok
        request c      → one (turn)
        fail c 500     → failure
        state          → one down (500: it failed; 10 s to go); two ok
        request d      → two (turn)
        probes
        clock +10
        probes         → one
        state          → one probing (500: it failed; a probe is to find out); two ok
        request e      → two (turn)               # no caller's request is risked
        probe one ok
        request g      → one (turn)               # closed
        end g
        state          → one ok; two ok
        """,
    ),
    "stays-open-after-a-failed-probe": (
        TIERS,
        """
        request a caller=i → one (turn)
        fail a closed  → failure
        request b caller=j → one (turn)
        fail b closed  → failure
        request c      → one (turn)
        fail c closed  → failure
        clock +10
        probes         → one
        probe one fails
        request e      → two (turn)
        clock +9
        probes
        request f      → two (turn)
        clock +1
        probes         → one
        probe one ok
        request h      → one (turn)
        """,
    ),
    "of-one-caller-alone-it-opens-for-this-caller": (
        TIERS,
        """
        request a caller=j → one (turn)
        fail a closed      → failure
        request b caller=j → one (turn)
        fail b 500         → failure
        request c caller=j → one (turn)
        fail c closed      → failure
        request d caller=j → two (turn)
        request e          → one (turn)
        probes             → one
        probe one ok
        request f          → one (turn)
        clock +10
        request g caller=j → one (turn)
        """,
    ),
    "of-one-caller-and-a-probe-it-opens-for-all": (
        TIERS,
        """
        request a caller=j → one (turn)
        fail a closed      → failure
        request b caller=j → one (turn)
        fail b closed      → failure
        request c caller=j → one (turn)
        fail c closed      → failure
        probes             → one
        probe one fails
        request d          → two (turn)
        """,
    ),
    "silence-is-looked-into-at-once": (
        TIERS,
        """
        request a          → one (turn)
        fail a silent      → failure
        probes             → one
        probe one fails
        request b caller=j → two (turn)
        clock +10
        probes             → one
        request c          → two (turn)
        probe one ok
        request d          → one (turn)
        """,
    ),
    "failures-of-one-caller-cannot-put-a-probe-off": (
        SINGLE,
        """
        request a          → one (only)
        fail a silent      → failure
        probes             → one
        probe one fails
        clock +6
        request b          → one (only)
        fail b closed      → failure
        clock +4
        probes             → one
        """,
    ),
    "a-complete-answer-resets-the-count": (
        TIERS,
        """
        request a      → one (turn)
        cut a closed   → failure
        request b      → one (turn)
        cut b closed   → failure
        request c      → one (turn)
        answer c
        end c
        request d      → one (turn)
        cut d closed   → failure
        state          → one ok; two ok
        """,
    ),
    "an-answer-that-only-begins-does-not": (
        TIERS,
        """
        request a caller=j → one (turn)
        cut a closed   → failure
        request b      → one (turn)
        answer b
        cut b closed   → failure
        request c      → one (turn)
        answer c
        cut c closed   → failure
        request d caller=i → two (turn)
        """,
    ),
    "a-guess-alone-refuses-no-request": (
        SINGLE,
        """
        request a      → one (only)
        request b      → one (only)
        request c      → one (only)
        fail a closed  → failure
        fail b closed  → failure
        fail c closed  → failure
        request d      → one (only)
        """,
    ),
}


@pytest.mark.parametrize(("upstreams", "transcript"), CHOICE.values(), ids=CHOICE)
async def test_choice_by_priority_weight_and_affinity(upstreams: Options, transcript: str) -> None:
    await check(transcript, upstreams)


@pytest.mark.parametrize(("upstreams", "transcript"), COOLING.values(), ids=COOLING)
async def test_cooling_has_the_scope_of_the_verdict(upstreams: Options, transcript: str) -> None:
    await check(transcript, upstreams)


@pytest.mark.parametrize(("upstreams", "transcript"), CIRCUIT.values(), ids=CIRCUIT)
async def test_failures_in_a_row_open_a_circuit(upstreams: Options, transcript: str) -> None:
    await check(transcript, upstreams)

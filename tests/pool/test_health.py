"""Facts are respected until their time, guesses never lock anybody out."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.pool.health import Health, Level
from relay.pool.vendor_errors import Scope, Verdict

NOW = 1_000_000.0
M, N = "model", "another"
BROKEN = Verdict(Scope.FAILURE, 0.0, False, "it broke off")


def told(scope: Scope, seconds: float, now: float = NOW) -> Verdict:
    return Verdict(scope, now + seconds, True, "429: limit reached")


def guessed(scope: Scope, seconds: float, now: float = NOW) -> Verdict:
    return Verdict(scope, now + seconds, False, "429: no moment told")


def down() -> Health:
    """Three failures in a row, the last one at NOW."""
    health = Health()
    for before in (2, 1, 0):
        health.failed(BROKEN, M, NOW - before)
    return health


# --- failures -----------------------------------------------------------------------


def test_two_failures_in_a_row_are_chance() -> None:
    health = Health()
    for _ in range(2):
        health.failed(BROKEN, M, NOW)
    assert (health.level(M, NOW), health.degraded) == (Level.FREE, False)


def test_the_third_failure_in_a_row_has_others_preferred_for_ten_seconds() -> None:
    health = down()
    assert health.level(M, NOW) is Level.DOUBTFUL
    assert health.level(M, NOW + 9.9) is Level.DOUBTFUL
    assert health.level(M, NOW + 10) is Level.FREE
    assert health.describe(M, NOW + 4) == "it broke off; 6 s to go"
    assert health.describe(M, NOW + 11) == "it broke off; one request is to find out"
    assert health.ready_at(M, NOW) == NOW  # a guess keeps nobody waiting


def test_one_request_finds_out_and_the_others_wait_for_what_becomes_of_it() -> None:
    health = down()
    later = NOW + 10
    assert health.level(M, later) is Level.FREE
    health.request_started()
    assert health.level(M, later) is Level.DOUBTFUL
    health.succeeded(M)
    assert (health.level(M, later), health.degraded) == (Level.FREE, False)


def test_a_probe_that_fails_too_keeps_it_out_for_as_long_again() -> None:
    health = down()
    health.request_started()
    health.failed(BROKEN, M, NOW + 10)
    assert health.level(M, NOW + 19) is Level.DOUBTFUL
    assert health.level(M, NOW + 20) is Level.FREE


def test_a_probe_whose_caller_leaves_is_followed_by_another() -> None:
    health = down()
    health.request_started()
    health.abandoned()
    assert health.level(M, NOW + 10) is Level.FREE


def test_a_request_that_is_at_fault_itself_shows_that_its_upstream_works() -> None:
    health = down()
    health.failed(Verdict(Scope.CALLER, 0.0, False, "400"), M, NOW)
    assert (health.level(M, NOW), health.failures, health.degraded) == (Level.FREE, 0, False)


# --- what is told -------------------------------------------------------------------

OUTAGES: list[tuple[str, Verdict, Level, Level, Level]] = [
    # what, its verdict: level at once for its model, for another, and when its time is over
    ("account, told", told(Scope.ACCOUNT, 20), Level.OUT, Level.OUT, Level.FREE),
    ("account, guessed", guessed(Scope.ACCOUNT, 20), Level.DOUBTFUL, Level.DOUBTFUL, Level.FREE),
    ("model, told", told(Scope.MODEL, 20), Level.OUT, Level.FREE, Level.FREE),
    ("model, guessed", guessed(Scope.MODEL, 20), Level.DOUBTFUL, Level.FREE, Level.FREE),
    ("credential", guessed(Scope.CREDENTIAL, 20), Level.DOUBTFUL, Level.DOUBTFUL, Level.FREE),
    ("busy, told", told(Scope.REQUEST, 20), Level.STRAINED, Level.STRAINED, Level.FREE),
    ("busy, guessed", guessed(Scope.REQUEST, 20), Level.STRAINED, Level.STRAINED, Level.FREE),
    ("failure, told", told(Scope.FAILURE, 20), Level.OUT, Level.OUT, Level.FREE),
    ("caller", guessed(Scope.CALLER, 20), Level.FREE, Level.FREE, Level.FREE),
]


@pytest.mark.parametrize(("what", "verdict", "own", "other", "after"), OUTAGES)
def test_an_outage_is_as_wide_and_as_long_as_it_is_said_to_be(
    what: str, verdict: Verdict, own: Level, other: Level, after: Level
) -> None:
    health = Health()
    health.failed(verdict, M, NOW)
    assert (health.level(M, NOW), health.level(N, NOW)) == (own, other), what
    assert health.ready_at(M, NOW) == (NOW + 20 if own is Level.OUT else NOW)
    assert health.ready_at(N, NOW) == (NOW + 20 if other is Level.OUT else NOW)
    assert health.level(M, NOW + 19.9) is own
    assert health.level(M, NOW + 20) is after


@pytest.mark.parametrize("scope", [Scope.ACCOUNT, Scope.MODEL, Scope.FAILURE])
def test_a_told_outage_ends_by_itself_and_is_not_probed(scope: Scope) -> None:
    health = Health()
    health.failed(told(scope, 20), M, NOW)
    health.request_started()
    health.succeeded(M)  # an answer to a request that was sent before
    assert health.level(M, NOW + 19) is Level.OUT
    assert health.level(M, NOW + 20) is Level.FREE
    assert not health.degraded


@pytest.mark.parametrize(
    "verdicts",
    [
        [BROKEN] * 3,
        [guessed(Scope.ACCOUNT, 60)],
        [guessed(Scope.CREDENTIAL, 600)],
        [guessed(Scope.REQUEST, 3)],
        [Verdict(Scope.CALLER, 0.0, False, "400")],
    ],
)
def test_what_an_upstream_told_outlives_what_is_guessed_of_it_after(
    verdicts: list[Verdict],
) -> None:
    """Requests that were in flight when it told so come to their end later."""
    health = Health()
    health.failed(told(Scope.ACCOUNT, 3600), M, NOW)
    for verdict in verdicts:
        health.failed(verdict, M, NOW + 1)
    assert health.level(M, NOW + 700) is Level.OUT
    assert health.ready_at(M, NOW + 700) == NOW + 3600


def test_a_model_that_is_told_to_be_out_stays_so_whatever_is_guessed_after() -> None:
    health = Health()
    health.failed(told(Scope.MODEL, 3600), M, NOW)
    health.failed(guessed(Scope.MODEL, 60), M, NOW + 1)
    assert health.level(M, NOW + 700) is Level.OUT


def test_of_two_facts_the_longer_one_holds() -> None:
    health = Health()
    health.failed(told(Scope.ACCOUNT, 3600), M, NOW)
    health.failed(told(Scope.ACCOUNT, 5), M, NOW)
    assert health.ready_at(M, NOW) == NOW + 3600  # the other was told to a request of before


def test_a_refused_credential_is_asked_again_by_one_request_when_its_time_is_over() -> None:
    health = Health()
    health.failed(guessed(Scope.CREDENTIAL, 600), M, NOW)
    assert health.level(N, NOW + 599) is Level.DOUBTFUL
    assert health.level(N, NOW + 600) is Level.FREE
    health.request_started()
    assert health.level(N, NOW + 601) is Level.DOUBTFUL
    health.succeeded(N)
    assert not health.degraded


def test_a_missing_count_tokens_is_in_the_way_of_counting_alone_and_for_its_time() -> None:
    health = Health()
    health.cannot_count(NOW + 3600)
    assert health.level(M, NOW) is Level.FREE
    assert health.level(M, NOW, counting=True) is Level.OUT
    assert health.ready_at(M, NOW, counting=True) == float("inf")
    assert health.view(NOW)["counts_tokens"] is False
    assert health.level(M, NOW + 3600, counting=True) is Level.FREE
    assert not health.degraded


# --- the operator -------------------------------------------------------------------


def test_a_paused_upstream_gets_nothing_until_it_is_resumed() -> None:
    health = Health()
    health.pause()
    assert health.level(M, NOW) is Level.OUT
    assert (health.ready_at(M, NOW), health.describe(M, NOW)) == (float("inf"), "paused")
    health.resume()
    assert (health.level(M, NOW), health.degraded) == (Level.FREE, False)


def test_resuming_does_not_forget_what_an_upstream_told() -> None:
    health = Health()
    health.pause()
    health.failed(told(Scope.ACCOUNT, 60), M, NOW)
    health.resume()
    assert health.level(M, NOW) is Level.OUT


@pytest.mark.parametrize(("what", "verdict"), [(row[0], row[1]) for row in OUTAGES])
def test_clearing_forgets_every_trouble_but_not_a_pause(what: str, verdict: Verdict) -> None:
    health = down()
    health.failed(verdict, M, NOW)
    health.cannot_count(NOW + 60)
    health.request_started()
    health.clear()
    assert not health.degraded, what
    assert health.level(M, NOW, counting=True) is Level.FREE
    assert (health.failures, health.view(NOW)["state"]) == (0, "ok")
    health.pause()
    health.clear()
    assert health.level(M, NOW) is Level.OUT


def test_the_view_says_what_is_wrong_since_when_and_until_when() -> None:
    health = down()
    state: Any = health.view(NOW)
    assert (state["state"], state["failures_in_a_row"]) == ("down", 3)
    assert state["errors"] == {"failure": 3}
    assert state["last_error"]["why"] == "it broke off"
    assert state["until"] == "1970-01-12T13:46:50.000Z"
    assert health.view(NOW + 11)["state"] == "probing"
    health.failed(told(Scope.ACCOUNT, 60), M, NOW)
    assert health.view(NOW)["state"] == "cooling"
    health.clear()
    health.failed(guessed(Scope.MODEL, 60), M, NOW)
    state = health.view(NOW)
    assert (state["state"], list(state["models_out"])) == ("ok", [M])


# --- whatever happens ---------------------------------------------------------------


class Histories(RuleBasedStateMachine):
    """Beside it, a list of all that was ever told, which nothing is taken from but by `clear`."""

    def __init__(self) -> None:
        super().__init__()
        self.health = Health()
        self.now = NOW
        self.paused = False
        self.counts_again = 0.0
        self.facts: list[tuple[str | None, float]] = []  # of a model, None: of all; until when
        self.guesses = False  # whether anything was ever guessed since the last `clear`

    @rule(seconds=st.sampled_from([0.5, 3.0, 11.0, 61.0, 601.0, 3601.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        scope=st.sampled_from(Scope),
        model=st.sampled_from([M, N]),
        seconds=st.sampled_from([0.0, 2.0, 60.0, 3600.0]),
        is_told=st.booleans(),
    )
    def fails(self, scope: Scope, model: str, seconds: float, is_told: bool) -> None:
        verdict = Verdict(scope, self.now + seconds, is_told, "trouble")
        self.health.failed(verdict, model, self.now)
        if is_told and scope in (Scope.ACCOUNT, Scope.CREDENTIAL, Scope.FAILURE):
            self.facts.append((None, verdict.until))
        elif is_told and scope is Scope.MODEL:
            self.facts.append((model, verdict.until))
        elif scope is not Scope.CALLER:
            self.guesses = True

    @rule(model=st.sampled_from([M, N]))
    def answers(self, model: str) -> None:
        self.health.succeeded(model)
        self.health.failures = 0  # its end was seen

    @rule()
    def sets_out(self) -> None:
        self.health.request_started()

    @rule()
    def leaves(self) -> None:
        self.health.abandoned()

    @rule()
    def has_no_count(self) -> None:
        self.counts_again = self.now + 3600
        self.health.cannot_count(self.counts_again)

    @rule(pause=st.booleans())
    def operator_pauses(self, pause: bool) -> None:
        self.paused = pause
        (self.health.pause if pause else self.health.resume)()

    @rule()
    def operator_clears(self) -> None:
        self.health.clear()
        self.facts, self.guesses, self.counts_again = [], False, 0.0

    @invariant()
    def nobody_is_out_without_a_fact_or_a_pause(self) -> None:
        health, now = self.health, self.now
        for model in (M, N):
            known = [until for of, until in self.facts if of in (None, model) and until > now]
            for counting in (False, True):
                uncounted = counting and self.counts_again > now
                out = health.level(model, now, counting) is Level.OUT
                if out:
                    assert self.paused or uncounted or known
                assert (health.ready_at(model, now, counting) > now) is out

    @invariant()
    def what_was_told_last_is_respected(self) -> None:
        if self.paused:
            assert self.health.level(M, self.now) is Level.OUT
        last = [until for of, until in self.facts if of is None][-1:]
        if last and last[0] > self.now:
            assert self.health.level(M, self.now) is Level.OUT

    @invariant()
    def it_is_hampered_exactly_while_something_is_in_its_way(self) -> None:
        health, now = self.health, self.now
        health.level(M, now)  # what is over is noticed when somebody looks
        something = (
            self.paused
            or self.counts_again > now
            or bool(health.account_outage or health.overload or health.model_outages)
        )
        assert health.degraded is something
        if not self.facts and not self.guesses and not self.paused and self.counts_again <= now:
            assert not health.degraded
        if not health.degraded:
            for model in (M, N):
                assert health.level(model, now, True) is Level.FREE
                assert health.describe(model, now) == ""


Histories.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestHistories = Histories.TestCase

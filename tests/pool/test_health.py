"""A stated outage is respected until its end; a guess alone takes no upstream out."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.pool.health import Health
from relay.pool.outages import Level
from relay.pool.vendor_errors import Scope, Verdict

NOW = 1_000_000.0
M, N = "model", "another"
BROKEN = Verdict(Scope.FAILURE, 0.0, False, "it broke off")


def stated(scope: Scope, seconds: float, now: float = NOW) -> Verdict:
    return Verdict(scope, now + seconds, True, "429: limit reached")


def guessed(scope: Scope, seconds: float, now: float = NOW) -> Verdict:
    return Verdict(scope, now + seconds, False, "429: no time stated")


def down() -> Health:
    """Three failures in a row, the last one at NOW."""
    health = Health()
    for before in (2, 1, 0):
        health.failed(BROKEN, M, NOW - before)
    return health


# --- failures -----------------------------------------------------------------------


def test_two_failures_in_a_row_change_nothing() -> None:
    health = Health()
    for _ in range(2):
        health.failed(BROKEN, M, NOW)
    assert (health.level(M, NOW), health.degraded) == (Level.FREE, False)


def test_the_third_failure_in_a_row_ejects_until_a_probe() -> None:
    health = down()
    assert health.level(M, NOW) is Level.DOUBTFUL
    assert health.level(M, NOW + 10) is Level.DOUBTFUL  # no caller's request finds out
    assert (health.probe_at, health.probe_model) == (NOW + 10, M)
    assert health.describe(M, NOW + 4) == "it broke off; 6 s to go"
    assert health.describe(M, NOW + 11) == "it broke off; a probe is to find out"
    assert health.ready_at(M, NOW) == NOW  # no request waits for a guess


def test_an_answered_probe_ends_an_ejection() -> None:
    health = down()
    health.probe_started()
    assert health.level(M, NOW + 10) is Level.DOUBTFUL
    health.probe_answered()
    assert (health.level(M, NOW + 10), health.degraded) == (Level.FREE, False)


def test_a_failed_probe_ejects_for_as_long_again() -> None:
    health = down()
    health.probe_started()
    assert health.probe_at > NOW + 1e9
    health.probe_failed("a probe: 500", NOW + 10)
    assert (health.level(M, NOW + 19), health.probe_at) == (Level.DOUBTFUL, NOW + 20)


def test_one_request_finds_out_and_the_others_go_elsewhere() -> None:
    health = Health()
    health.failed(guessed(Scope.ACCOUNT, 10), M, NOW)
    later = NOW + 10
    assert health.level(M, later) is Level.FREE
    health.request_started()
    assert health.level(M, later) is Level.DOUBTFUL
    health.abandoned()
    assert health.level(M, later) is Level.FREE
    health.request_started()
    health.succeeded(M)
    assert (health.level(M, later), health.degraded) == (Level.FREE, False)


# --- one caller ---------------------------------------------------------------------

A, B, C = "usr_a", "usr_b", "usr_c"


def unsure(scope: Scope, seconds: float, *, is_stated: bool = False) -> Verdict:
    return Verdict(scope, NOW + seconds, is_stated, "what a status suggests", sure=False)


UNSURE = [
    (scope, is_stated)
    for scope in (Scope.REQUEST, Scope.MODEL, Scope.ACCOUNT, Scope.CREDENTIAL, Scope.FAILURE)
    for is_stated in (False, True)
    if scope is not Scope.FAILURE or is_stated
]


@pytest.mark.parametrize(("scope", "is_stated"), UNSURE)
def test_an_unsure_verdict_holds_for_its_caller_alone(scope: Scope, is_stated: bool) -> None:
    health = Health()
    for second in range(5):  # however often
        health.failed(unsure(scope, 60, is_stated=is_stated), M, NOW + second, A)
    assert health.level(M, NOW + 5, caller=A) > Level.FREE
    assert health.level(M, NOW + 5, caller=B) is Level.FREE
    assert health.ready_at(M, NOW + 5, caller=B) == NOW + 5
    assert health.level(M, NOW + 60, caller=A) is Level.FREE
    health.level(M, NOW + 62)
    assert not health.degraded


@pytest.mark.parametrize(("scope", "is_stated"), UNSURE)
def test_a_second_caller_confirms_an_unsure_verdict(scope: Scope, is_stated: bool) -> None:
    health = Health()
    health.failed(unsure(scope, 60, is_stated=is_stated), M, NOW, A)
    health.failed(unsure(scope, 60, is_stated=is_stated), M, NOW + 1, B)
    assert health.level(M, NOW + 2, caller=C) > Level.FREE


@pytest.mark.parametrize("scope", [Scope.MODEL, Scope.ACCOUNT, Scope.CREDENTIAL])
def test_an_answer_in_between_confirms_nothing(scope: Scope) -> None:
    health = Health()
    health.failed(unsure(scope, 60), M, NOW, A)
    health.succeeded(M, B)
    assert health.level(M, NOW + 1, caller=A) is Level.DOUBTFUL
    health.failed(unsure(scope, 60), M, NOW + 1, B)
    assert health.level(M, NOW + 2, caller=C) is Level.FREE


def test_failures_of_one_caller_eject_for_this_caller() -> None:
    health = Health()
    broken = BROKEN._replace(sure=False)
    for second in range(5):
        health.failed(broken, M, NOW + second, A)
    assert health.level(M, NOW + 5, caller=A) is Level.DOUBTFUL
    assert health.level(M, NOW + 5, caller=B) is Level.FREE
    assert health.probe_at <= NOW + 5  # the relay finds out for itself
    health.failed(broken, M, NOW + 5, B)
    assert health.level(M, NOW + 5, caller=C) is Level.DOUBTFUL


def test_a_bodys_failure_is_held_against_no_upstream() -> None:
    health = Health()
    broken = BROKEN._replace(sure=False)
    for caller in (A, A, B, C, B):
        health.failed(broken, M, NOW, caller)
        health.retract(caller, NOW - 1)
    assert (health.failures, health.failed_at, health.degraded) == (0, NOW - 1, False)


def test_a_feature_of_a_request_concerns_no_other() -> None:
    health = Health()
    for caller in (A, B):
        health.failed(Verdict(Scope.FEATURE, 0.0, False, "429: fast mode"), M, NOW, caller)
    assert not health.degraded


def test_a_missing_count_tokens_needs_two_callers() -> None:
    health = Health()
    health.cannot_count(NOW + 3600, A)
    assert health.level(M, NOW, counting=True, caller=A) is Level.OUT
    assert health.level(M, NOW, counting=True, caller=B) is Level.FREE
    health.cannot_count(NOW + 3600, B)
    assert health.level(M, NOW, counting=True, caller=C) is Level.OUT


def test_the_outages_of_callers_are_bounded() -> None:
    health = Health()
    for number in range(3000):
        health.failed(unsure(Scope.MODEL, 60)._replace(until=NOW + 60), f"m{number}", NOW, A)
        health.cannot_count(NOW + 60, f"usr_{number}")
        health.counts_again_at = 0.0
    assert len(health.by_caller) <= 1000


def test_a_callers_error_shows_that_the_upstream_works() -> None:
    health = down()
    health.failed(Verdict(Scope.CALLER, 0.0, False, "400"), M, NOW)
    assert (health.level(M, NOW), health.failures, health.degraded) == (Level.FREE, 0, False)


# --- outages -----------------------------------------------------------------------

OUTAGES: list[tuple[str, Verdict, Level, Level, Level]] = [
    # case, verdict: level at once for its model, for another model, and after its end
    ("account, stated", stated(Scope.ACCOUNT, 20), Level.OUT, Level.OUT, Level.FREE),
    ("account, guessed", guessed(Scope.ACCOUNT, 20), Level.DOUBTFUL, Level.DOUBTFUL, Level.FREE),
    ("model, stated", stated(Scope.MODEL, 20), Level.OUT, Level.FREE, Level.FREE),
    ("model, guessed", guessed(Scope.MODEL, 20), Level.DOUBTFUL, Level.FREE, Level.FREE),
    ("credential", guessed(Scope.CREDENTIAL, 20), Level.DOUBTFUL, Level.DOUBTFUL, Level.FREE),
    ("busy, stated", stated(Scope.REQUEST, 20), Level.STRAINED, Level.STRAINED, Level.FREE),
    ("busy, guessed", guessed(Scope.REQUEST, 20), Level.STRAINED, Level.STRAINED, Level.FREE),
    ("failure, stated", stated(Scope.FAILURE, 20), Level.OUT, Level.OUT, Level.FREE),
    ("caller", guessed(Scope.CALLER, 20), Level.FREE, Level.FREE, Level.FREE),
]


@pytest.mark.parametrize(
    ("verdict", "own", "other", "after"),
    [row[1:] for row in OUTAGES],
    ids=[row[0] for row in OUTAGES],
)
def test_an_outage_has_the_scope_and_the_end_of_its_verdict(
    verdict: Verdict, own: Level, other: Level, after: Level
) -> None:
    health = Health()
    health.failed(verdict, M, NOW)
    assert (health.level(M, NOW), health.level(N, NOW)) == (own, other)
    assert health.ready_at(M, NOW) == (NOW + 20 if own is Level.OUT else NOW)
    assert health.ready_at(N, NOW) == (NOW + 20 if other is Level.OUT else NOW)
    assert health.level(M, NOW + 19.9) is own
    assert health.level(M, NOW + 20) is after


@pytest.mark.parametrize("scope", [Scope.ACCOUNT, Scope.MODEL, Scope.FAILURE])
def test_a_stated_outage_ends_by_itself_without_a_probe(scope: Scope) -> None:
    health = Health()
    health.failed(stated(scope, 20), M, NOW)
    health.request_started()
    health.succeeded(M)  # the answer to an earlier request
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
def test_a_stated_outage_outlives_later_guesses(
    verdicts: list[Verdict],
) -> None:
    """Requests in flight when the upstream stated its outage end later."""
    health = Health()
    health.failed(stated(Scope.ACCOUNT, 3600), M, NOW)
    for verdict in verdicts:
        health.failed(verdict, M, NOW + 1)
    assert health.level(M, NOW + 700) is Level.OUT
    assert health.ready_at(M, NOW + 700) == NOW + 3600


def test_a_models_stated_outage_outlives_a_later_guess() -> None:
    health = Health()
    health.failed(stated(Scope.MODEL, 3600), M, NOW)
    health.failed(guessed(Scope.MODEL, 60), M, NOW + 1)
    assert health.level(M, NOW + 700) is Level.OUT


def test_the_longer_of_two_stated_outages_holds() -> None:
    health = Health()
    health.failed(stated(Scope.ACCOUNT, 3600), M, NOW)
    health.failed(stated(Scope.ACCOUNT, 5), M, NOW)
    assert health.ready_at(M, NOW) == NOW + 3600  # the other answered an earlier request


def test_a_refused_credential_is_probed_by_one_request() -> None:
    health = Health()
    health.failed(guessed(Scope.CREDENTIAL, 600), M, NOW)
    assert health.level(N, NOW + 599) is Level.DOUBTFUL
    assert health.level(N, NOW + 600) is Level.FREE
    health.request_started()
    assert health.level(N, NOW + 601) is Level.DOUBTFUL
    health.succeeded(N)
    assert not health.degraded


def test_a_missing_count_tokens_affects_counting_only() -> None:
    health = Health()
    health.cannot_count(NOW + 3600)
    assert health.level(M, NOW) is Level.FREE
    assert health.level(M, NOW, counting=True) is Level.OUT
    assert health.ready_at(M, NOW, counting=True) == float("inf")
    assert health.view(NOW)["counts_tokens"] is False
    assert health.level(M, NOW + 3600, counting=True) is Level.FREE
    assert not health.degraded


# --- the operator -------------------------------------------------------------------


def test_a_paused_upstream_gets_no_request_until_resumed() -> None:
    health = Health()
    health.pause()
    assert health.level(M, NOW) is Level.OUT
    assert (health.ready_at(M, NOW), health.describe(M, NOW)) == (float("inf"), "paused")
    health.resume()
    assert (health.level(M, NOW), health.degraded) == (Level.FREE, False)


def test_a_stated_outage_outlives_a_pause() -> None:
    health = Health()
    health.pause()
    health.failed(stated(Scope.ACCOUNT, 60), M, NOW)
    health.resume()
    assert health.level(M, NOW) is Level.OUT


@pytest.mark.parametrize("verdict", [row[1] for row in OUTAGES], ids=[row[0] for row in OUTAGES])
def test_clearing_ends_every_outage_but_not_a_pause(verdict: Verdict) -> None:
    health = down()
    health.failed(verdict, M, NOW)
    health.cannot_count(NOW + 60)
    health.request_started()
    health.clear()
    assert not health.degraded
    assert health.level(M, NOW, counting=True) is Level.FREE
    assert (health.failures, health.view(NOW)["state"]) == (0, "ok")
    health.pause()
    health.clear()
    assert health.level(M, NOW) is Level.OUT


def test_the_view_has_the_reason_and_the_end_of_an_outage() -> None:
    health = down()
    state: Any = health.view(NOW)
    assert (state["state"], state["failures_in_a_row"]) == ("down", 3)
    assert state["errors"] == {"failure": 3}
    assert state["last_error"]["why"] == "it broke off"
    assert state["until"] == "1970-01-12T13:46:50.000Z"
    assert health.view(NOW + 11)["state"] == "probing"
    health.failed(stated(Scope.ACCOUNT, 60), M, NOW)
    assert health.view(NOW)["state"] == "cooling"
    health.clear()
    health.failed(guessed(Scope.MODEL, 60), M, NOW)
    state = health.view(NOW)
    assert (state["state"], list(state["models_out"])) == ("ok", [M])


# --- any history --------------------------------------------------------------------


class Histories(RuleBasedStateMachine):
    """Checked against a list of all stated outages, which only `clear` shortens."""

    def __init__(self) -> None:
        super().__init__()
        self.health = Health()
        self.now = NOW
        self.paused = False
        self.counts_again = 0.0
        self.facts: list[tuple[str | None, float]] = []  # model (None: all models), end
        self.guesses = False  # whether there was a guess since the last `clear`

    @rule(seconds=st.sampled_from([0.5, 3.0, 11.0, 61.0, 601.0, 3601.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        scope=st.sampled_from(Scope),
        model=st.sampled_from([M, N]),
        seconds=st.sampled_from([0.0, 2.0, 60.0, 3600.0]),
        is_stated=st.booleans(),
    )
    def fails(self, scope: Scope, model: str, seconds: float, is_stated: bool) -> None:
        verdict = Verdict(scope, self.now + seconds, is_stated, "trouble")
        self.health.failed(verdict, model, self.now)
        if is_stated and scope in (Scope.ACCOUNT, Scope.CREDENTIAL, Scope.FAILURE):
            self.facts.append((None, verdict.until))
        elif is_stated and scope is Scope.MODEL:
            self.facts.append((model, verdict.until))
        elif scope is not Scope.CALLER:
            self.guesses = True

    @rule(model=st.sampled_from([M, N]))
    def answers(self, model: str) -> None:
        self.health.succeeded(model)
        self.health.failures = 0  # the answer completed

    @rule()
    def request_starts(self) -> None:
        self.health.request_started()

    @rule()
    def caller_leaves(self) -> None:
        self.health.abandoned()

    @rule()
    def cannot_count(self) -> None:
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
    def only_a_stated_outage_or_a_pause_takes_it_out(self) -> None:
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
    def the_latest_stated_outage_is_respected(self) -> None:
        if self.paused:
            assert self.health.level(M, self.now) is Level.OUT
        last = [until for of, until in self.facts if of is None][-1:]
        if last and last[0] > self.now:
            assert self.health.level(M, self.now) is Level.OUT

    @invariant()
    def it_is_degraded_exactly_while_it_has_an_outage(self) -> None:
        health, now = self.health, self.now
        health.level(M, now)  # which drops what is over
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


Histories.TestCase.settings = settings(stateful_step_count=30)
TestHistories = Histories.TestCase

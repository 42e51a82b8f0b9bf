"""The evidence of single callers is bounded, taken back and forgotten exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.pool.evidence import names_model
from relay.pool.health import Health
from relay.pool.outages import Level, Outage
from relay.pool.vendor_errors import Scope, Verdict
from relay.translate.messages.error_document import ErrorDocument
from tests.pool.test_health import BROKEN, NOW, M, N

UNSURE = Verdict(Scope.ACCOUNT, NOW + 60, True, "429: limit reached", sure=False)
UNSURE_FAILURE = BROKEN._replace(sure=False)
A, B = "ann", "ben"


def test_the_oldest_outage_of_a_caller_makes_room() -> None:
    health = Health()
    one = UNSURE._replace(scope=Scope.MODEL)
    for number in range(1001):
        health.failed(one, f"m{number}", NOW, f"caller {number}")
    assert [health.level(f"m{n}", NOW, caller=f"caller {n}") for n in (0, 1, 1000)] == [
        Level.FREE, Level.OUT, Level.OUT,
    ]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.booleans())))
def test_a_failure_taken_back_leaves_the_others(failures: list[tuple[str, bool]]) -> None:
    health = Health()
    left = 0
    for caller, own in failures:
        before = health.failed_at
        health.failed(UNSURE_FAILURE, M, NOW + left, caller)
        if own:
            health.retract(caller, before)
            assert health.failed_at == before
        else:
            left += 1
        assert health.failures == left
    for caller in (A, B, "who never failed"):
        for _ in range(left + 1):
            health.retract(caller, health.failed_at)
    assert health.failures == 0


def test_a_failure_is_taken_back_once_an_answer_has_completed() -> None:
    health = Health()
    health.failed(UNSURE_FAILURE, M, NOW, A)
    health.failures = 0  # the answer completed
    health.retract(A, NOW - 5)
    assert (health.failures, health.failed_at) == (0, NOW - 5)


def test_a_callers_outage_from_elsewhere_is_shown() -> None:
    """Another node has found it: this one has seen no error."""
    health = Health()
    health.adopt(
        A, Scope.ACCOUNT, Outage("429: limit reached", NOW, NOW + 60, stated=True), M, fresh=True
    )
    health.adopt(
        B, Scope.MODEL, Outage("it is busy", NOW + 1, NOW + 90, stated=True), M, fresh=True
    )
    assert health.view(NOW + 2)["why"] == "for 2 of its callers: it is busy"
    assert health.view(NOW + 61)["why"] == "for 1 of its callers: it is busy"
    assert health.view(NOW + 91)["why"] == ""


@pytest.mark.parametrize("earlier", [5.0, 50.0])
def test_a_probe_that_was_not_sent_is_due_again_soon(earlier: float) -> None:
    health = Health()
    health.probe_at = NOW + earlier
    health.probe_later(NOW)
    assert health.probe_at == NOW + min(earlier, 10.0)


def test_an_answered_probe_leaves_no_evidence_to_confirm() -> None:
    health = Health()
    health.failed(UNSURE, M, NOW, A)
    health.probe_answered()
    health.failed(UNSURE, M, NOW, B)
    assert health.level(M, NOW, caller="eve") is Level.FREE
    assert health.level(M, NOW, caller=A) is Level.OUT


def test_each_callers_outage_ends_in_its_own_time() -> None:
    health = Health()
    health.failed(UNSURE._replace(scope=Scope.MODEL), M, NOW, A)
    health.failed(UNSURE._replace(scope=Scope.MODEL, until=NOW + 600), N, NOW, B)
    assert health.level(M, NOW, caller=A) is Level.OUT
    assert health.level(N, NOW + 61, caller=B) is Level.OUT
    assert health.level(M, NOW + 61, caller=A) is Level.FREE
    assert set(health.by_caller) == {B}
    assert health.level(N, NOW + 601, caller=B) is Level.FREE
    assert not health.degraded


@pytest.mark.parametrize(
    ("document", "named"),
    [
        (ErrorDocument(code="model_not_found", message="no such thing"), True),
        (ErrorDocument(message="model: claude-x"), True),
        (ErrorDocument(message="model: claude-y"), False),
        (ErrorDocument(message="claude-x is not served"), True),
        (ErrorDocument(message="claude-x cannot read file_1"), False),
        (ErrorDocument(message="no such route"), False),
    ],
    ids=lambda value: str(getattr(value, "message", value)),
)
def test_an_error_names_the_model_that_was_sent(document: ErrorDocument, named: bool) -> None:
    assert names_model(document, "claude-x") is named

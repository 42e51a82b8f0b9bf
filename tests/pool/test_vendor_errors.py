"""An upstream's error has the verdict that tests/corpora/refusals.toml states."""

from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import config
from relay.net.upstream.connection import FailureKind
from relay.pool import vendor_errors
from relay.pool.vendor_errors import ErrorClassifier, Scope, Verdict
from tests.pool.corpus import CASES, LONG, NOW, Case, classifier, judged, vendors

HOUR = 3600.0


# --- the corpus -----------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_answer_has_the_verdict_of_the_corpus(case: Case) -> None:
    verdict = judged(case)
    now = case.now.timestamp()
    if isinstance(case.until, datetime):
        until = case.until.timestamp()
    else:
        until = now + case.until if case.until else 0.0
    assert (verdict.scope, verdict.stated) == (case.scope, case.stated), verdict
    assert verdict.until == pytest.approx(until, abs=1e-3), verdict


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_verdict_lasts_longer_than_the_operator_allows(case: Case) -> None:
    full, capped = judged(case), judged(case, HOUR)
    assert capped.until <= case.now.timestamp() + HOUR
    assert capped == full._replace(until=min(full.until, case.now.timestamp() + HOUR))


def test_the_corpus_is_large_and_every_case_has_a_source() -> None:
    assert len(CASES) >= 50
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.source for case in CASES)
    assert all(case.event == (case.status == 0) for case in CASES)


@pytest.mark.parametrize("vendor", vendors().values(), ids=lambda vendor: vendor.name)
def test_every_shipped_rule_has_a_case(vendor: config.VendorSettings) -> None:
    reasons = [rule.reason for rule in vendor.rules]
    assert len(set(reasons)) == len(reasons), "a reason identifies a rule"
    given_reasons = [judged(case).reason for case in CASES if case.vendor == vendor.name]
    for reason in reasons:
        assert any(each.endswith(reason) for each in given_reasons), reason


@pytest.mark.parametrize("vendor", vendors().values(), ids=lambda vendor: vendor.name)
def test_a_shipped_vendor_has_hosts_and_a_link_to_its_terms(vendor: config.VendorSettings) -> None:
    generic = vendor.name == "generic"
    assert bool(vendor.hosts) is not generic
    assert vendor.terms.endswith("read them.") is not generic


# --- rules ----------------------------------------------------------------------------


def with_rules(
    *rules: dict[str, Any], time_zone: str = "UTC", longest: float = LONG
) -> ErrorClassifier:
    made = {"name": "mine", "time_zone": time_zone, "rules": list(rules)}
    return ErrorClassifier(msgspec.convert(made, config.VendorSettings), longest)


def says(message: str, code: str = "7") -> bytes:
    return msgspec.json.encode({"error": {"code": code, "message": message}})


EPOCH = NOW.timestamp()


def test_the_first_rule_that_matches_precedes_the_general_rules() -> None:
    mine = with_rules(
        {"scope": "caller", "reason": "other status", "status": 418},
        {"scope": "caller", "reason": "other code", "code": ["8"]},
        {"scope": "caller", "reason": "other words", "code": ["7"], "says": "^plans"},
        {"scope": "account", "reason": "these words", "code": ["8", "7"], "says": "PLAN"},
        {"scope": "caller", "reason": "too late"},
    )
    verdict = mine.judge(401, {}, says("of the plan"), "m", EPOCH)
    assert verdict == Verdict(Scope.ACCOUNT, EPOCH + 60, False, "401: these words")


def test_a_rule_applies_to_errors_only() -> None:
    mine = with_rules({"scope": "account", "reason": "anything"})
    assert mine.judge(301, {}, b"", "m", EPOCH).scope is Scope.FAILURE
    assert mine.judge(200, {}, b"", "m", EPOCH).scope is Scope.FAILURE
    assert mine.judge(400, {}, b"", "m", EPOCH).scope is Scope.ACCOUNT
    assert mine.judge_event(says("no"), "m", EPOCH).scope is Scope.ACCOUNT


def test_a_rule_with_a_status_ignores_errors_within_an_answer() -> None:
    mine = with_rules({"scope": "account", "reason": "mine", "status": 429})
    assert mine.judge_event(says("no", "429"), "m", EPOCH).scope is Scope.REQUEST


@pytest.mark.parametrize(
    ("scope", "message", "seconds", "waits", "stated"),
    [
        ("account", "until 2026-09-08 20:10:00", 5, 600, True),
        ("model", "until 2026-09-08T20:10", 5, 600, True),
        ("credential", "until 2026-09-08T21:10:00.25+01:00", 5, 600.25, True),
        ("account", "since 2026-09-08 19:10:00", 5, 30, True),
        ("account", "until 2026-09-31 19:10:00", 5, 30, True),
        ("account", "until 0000-00-00 00:00:00", 5, 30, True),
        ("account", "until 2026-09-08 20:10:00+99:00", 5, 30, True),
        ("request", "until 2026-09-08 20:10:00", 5, 30, True),
        ("account", "soon", None, 30, True),
        ("failure", "soon", None, 30, True),
        ("request", "soon", None, 30, True),
    ],
)
def test_a_rule_waits_for_the_stated_time_before_retry_after(
    scope: str, message: str, seconds: float | None, waits: float, stated: bool
) -> None:
    mine = with_rules({"scope": scope, "reason": "mine", "seconds": seconds})
    verdict = mine.judge(429, {b"retry-after": b"30"}, says(message), "m", EPOCH)
    sure = scope != "failure"
    assert verdict == Verdict(Scope(scope), EPOCH + waits, stated, "429: mine", sure)


@pytest.mark.parametrize(("seconds", "waits"), [(5, 5), (300, 300), (None, 60)])
def test_a_rule_waits_its_seconds_if_no_time_is_stated(seconds: float | None, waits: float) -> None:
    mine = with_rules({"scope": "account", "reason": "mine", "seconds": seconds})
    verdict = mine.judge(429, {}, says("soon"), "m", EPOCH)
    assert verdict == Verdict(Scope.ACCOUNT, EPOCH + waits, False, "429: mine")


def test_a_time_without_a_zone_is_in_the_vendors_time_zone() -> None:
    rule = {"scope": "account", "reason": "mine"}
    message = says("from 2026-09-09 04:10:00 on")
    verdict = with_rules(rule, time_zone="Asia/Shanghai").judge(429, {}, message, "m", EPOCH)
    assert verdict == Verdict(Scope.ACCOUNT, EPOCH + 600, True, "429: mine")


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"error","error":{"type":"x","message":"Full"}}',
        b'{"error":{"code":7,"message":"full"}}',
        b'{"error":{"code":"7","msg":"full"}}',
        b'{"error":"full"}',
        b'{"error":"Too Many Requests","message":"full","code":7}',
        b'{"base_resp":{"status_code":7,"status_msg":"full"}}',
        b'{"code":7,"msg":"full"}',
        b'{"detail":"full"}',
        b' \n{"message":"full"}',
    ],
)
def test_an_error_document_is_read_in_every_shape(body: bytes) -> None:
    mine = with_rules({"scope": "account", "reason": "mine", "says": "^full$"})
    assert mine.judge(400, {}, body, "m", EPOCH).scope is Scope.ACCOUNT


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("x_error", b'{"error":{"type":"x_error"}}'),
        ("1302", b'{"error":{"code":1302}}'),
        ("1302", b'{"error":{"type":"e","message":"[1302][too many][id]"}}'),
        ("1302", b'{"error":{"type":"e","message":"too many (1302)"}}'),
        ("1302", b'{"base_resp":{"status_code":1302}}'),
    ],
)
def test_a_code_is_found_in_every_place(code: str, body: bytes) -> None:
    mine = with_rules({"scope": "account", "reason": "mine", "code": [code]})
    assert mine.judge(400, {}, body, "m", EPOCH).scope is Scope.ACCOUNT


@pytest.mark.parametrize(
    "body", [b'{"base_resp":{"status_code":0,"status_msg":"success"}}', b'{"code":200,"msg":"ok"}']
)
def test_a_document_with_a_code_of_success_is_no_error(body: bytes) -> None:
    verdict = classifier().judge(200, {}, body, "m", EPOCH)
    assert verdict[:4] == (Scope.FAILURE, 0.0, False, "answered 200 without an answer")


def test_a_document_too_deep_or_too_long_is_no_error() -> None:
    for body in (b'{"error":' * 100_000, says("x" * 300_000), b"\xff", b'{"error":"\xff"}'):
        assert classifier().judge(500, {}, body, "m", EPOCH).scope is Scope.FAILURE


# --- the verdict ----------------------------------------


def test_a_reason_is_short_and_has_no_text_of_the_upstream() -> None:
    for case in CASES:
        reason = judged(case).reason
        assert 0 < len(reason) <= 100
        assert "\n" not in reason
    secret = says("key sk-very-secret is wrong")
    for status in (200, 301, 400, 401, 404, 429, 500, 529):
        assert "secret" not in classifier().judge(status, {}, secret, "m", EPOCH).reason
    assert "secret" not in classifier().judge_event(secret, "m", EPOCH).reason


def test_another_upstream_may_serve_it_unless_the_caller_erred() -> None:
    assert {scope for scope in Scope if not Verdict(scope, 0.0, False, "").elsewhere} == {
        Scope.CALLER
    }


@pytest.mark.parametrize("kind", FailureKind)
def test_a_request_without_an_answer_is_a_failure(kind: FailureKind) -> None:
    verdict = vendor_errors.of_failure(kind)
    assert verdict[:4] == (Scope.FAILURE, 0.0, False, kind.value)
    assert verdict.sure is (kind in (FailureKind.CONNECT, FailureKind.TLS))  # no request's fault
    assert verdict.silent is (kind is FailureKind.SILENT)


# --- any input ------------------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["0", "7", "1e9", "-1", "9" * 13, "inf", "nan", "rejected", "Overloaded"]),
    st.from_regex(vendor_errors._TIMESTAMP, fullmatch=True),
    st.from_regex(vendor_errors._HTTP_DATE, fullmatch=True),
    st.datetimes().map(lambda moment: f"until {moment}"),
)
NAMES = [
    "retry-after",
    "retry-after-ms",
    *(f"anthropic-ratelimit-unified-{name}" for name in ("status", "reset", "5h-status")),
    "anthropic-ratelimit-unified-representative-claim",
    *(f"anthropic-ratelimit-tokens-{name}" for name in ("remaining", "reset")),
]
HEADERS = st.dictionaries(
    st.sampled_from(NAMES).map(str.encode), TEXTS.map(lambda text: text.encode("utf-8"))
)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS)
ERRORS = st.dictionaries(st.sampled_from(["type", "code", "message", "msg", "status_code"]), VALUES)
DOCUMENTS = st.dictionaries(
    st.sampled_from(["error", "base_resp", "code", "msg", "detail", "type"]),
    st.one_of(VALUES, ERRORS),
)
BODIES = st.one_of(st.binary(max_size=60), DOCUMENTS.map(msgspec.json.encode))
STATUS = st.one_of(st.integers(-1, 1000), st.sampled_from([200, 400, 403, 404, 429, 503, 529]))


@given(
    vendor=st.sampled_from(sorted(vendors())),
    status=STATUS,
    headers=HEADERS,
    body=BODIES,
    model=st.text(max_size=200),
    now=st.floats(1.6e9, 2.2e9),
    longest=st.floats(1.0, 1e7),
    counting=st.booleans(),
)
def test_any_answer_has_a_verdict_that_ends(
    vendor: str,
    status: int,
    headers: dict[bytes, bytes],
    body: bytes,
    model: str,
    now: float,
    longest: float,
    counting: bool,
) -> None:
    one, other = (ErrorClassifier(vendors()[vendor], longest) for _ in range(2))
    verdict = one.judge(status, headers, body, model, now, counting)
    assert verdict == other.judge(status, headers, body, model, now, counting)
    event = one.judge_event(body, model, now)
    assert event == other.judge_event(body, model, now)
    for each in (verdict, event):
        assert each.until == 0.0 or now < each.until <= now + longest
        assert each.until or not each.stated
        assert each.reason

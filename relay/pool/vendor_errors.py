"""Classifies an upstream's error: what it concerns, and for how long.

`ErrorClassifier` has the compiled rules of one vendor, and after them the rules for all vendors.
Decides a `Verdict` from the status, the header fields and the body of one answer. Must not know
other upstreams, earlier answers or a clock: the present time is an argument, by the system's clock
as the dates that upstreams state.

No scope is wider than its evidence. A verdict is `sure` if the answer names its scope: by the
error's type or code, by the header fields of a limit, or by words that are no echo of the request.
What only a status suggests is not sure, for it may depend on the one request. A page of HTML comes
from a firewall or a proxy and says nothing of a credential.

A stated time is believed if it is in the future, by at most eight days: the longest limit of a
vendor is a week. `Verdict.until` is never further away than the operator's
`pool.longest_cooldown`, so an upstream with a wrong time is tried again.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from relay import config
from relay.net.upstream.connection import FailureKind
from relay.pool.evidence import (
    CODE_IN_MESSAGE,
    FAST_MODE,
    FEATURE_WORDS,
    NOT_OF_A_BODY,
    OWN_OBJECT,
    REFUSALS,
    is_html,
    may_be_echo,
    names_credential,
    names_model,
)
from relay.translate.messages.error_document import NO_ERROR, ErrorDocument, read

Headers = dict[bytes, bytes]  # names in lower case


class Scope(Enum):
    """What an error concerns, from the narrowest to the widest."""

    CALLER = "caller"  # the request is at fault: any upstream would refuse it
    REQUEST = "request"  # this request only; the next one may succeed
    FEATURE = "feature"  # requests with a feature, such as fast mode or a long context
    FAILURE = "failure"  # the upstream failed
    MODEL = "model"  # every request for this model
    ACCOUNT = "account"  # every request of this account
    CREDENTIAL = "credential"  # every request, until an operator acts


class Verdict(NamedTuple):
    """What an error concerns, and until when.

    `until` is in epoch seconds; 0.0 for no wait. `stated`: the upstream stated that time; else it
    is a guess. `reason` is for the operator and has no text of the upstream, so no secret. `sure`:
    the answer itself says that it concerns others, too; else a second caller's must confirm it.
    `of_body`: the body may be the cause. `silent`: the upstream may be at work on it still.
    """

    scope: Scope
    until: float
    stated: bool
    reason: str
    sure: bool = True
    of_body: bool = False
    silent: bool = False

    @property
    def elsewhere(self) -> bool:
        """Whether another upstream may serve the request."""
        return self.scope is not Scope.CALLER


_MAX_SEARCHED: Final = 4096  # characters of a message that rules search
_MAX_SEARCHED_BODY: Final = 64 * 1024  # octets of an error's body
_MAX_STATED_SECONDS: Final = 8 * 86400.0
_MAX_BUSY_SECONDS: Final = 60.0
_GUESSED_SECONDS: Final = {
    Scope.CALLER: 0.0,
    Scope.REQUEST: 3.0,
    Scope.FEATURE: 0.0,
    Scope.FAILURE: 0.0,
    Scope.MODEL: 60.0,
    Scope.ACCOUNT: 60.0,
    Scope.CREDENTIAL: 600.0,
}
_TRANSIENT: Final = frozenset({Scope.REQUEST, Scope.FAILURE})
_LASTING: Final = frozenset({Scope.MODEL, Scope.ACCOUNT, Scope.CREDENTIAL})

_NUMBER: Final = re.compile(r"[0-9]{1,13}(?:\.[0-9]{1,9})?")
_HTTP_DATE: Final = re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", re.A)
_TIMESTAMP: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ]| at )(\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?"
    r"(?: ?(Z|UTC|GMT)|([+-])(\d\d):?(\d\d))?",
    re.ASCII,
)

_LIMIT_GROUPS: Final = ("requests", "tokens", "input-tokens", "output-tokens")
_MODEL_CLASSES: Final = ("opus", "sonnet", "haiku")
_CLAIM_REASONS: Final = {"five_hour": "5-hour limit reached", "seven_day": "weekly limit reached"}
_UNIFIED: Final = b"anthropic-ratelimit-unified-"
_ALLOWED: Final = frozenset({"allowed", "allowed_warning"})


class _Rule(NamedTuple):
    """A compiled `config.RuleSettings`."""

    scope: Scope
    reason: str
    status: int | None
    codes: frozenset[str]
    says: re.Pattern[str] | None
    seconds: float | None

    def matches(self, status: int, document: ErrorDocument) -> bool:
        """Whether the rule applies to an error; `status` is 0 for an error within an answer."""
        if self.status is not None and self.status != status:
            return False
        if self.codes and self.codes.isdisjoint((document.type, document.code)):
            return False
        return self.says is None or self.says.search(document.message) is not None


def _general(scope: Scope, reason: str, says: str) -> _Rule:
    return _Rule(scope, reason, None, frozenset(), re.compile(says, re.IGNORECASE), None)


# Of any vendor, and of relays before one. They match the beginning of a message, where a request
# is not repeated, or all of it.
_GENERAL_RULES: Final = (
    # CLIProxyAPI #2442, #3409; claude-code #60648: a 400.
    _general(
        Scope.CREDENTIAL,
        "the account is disabled",
        r"\A\W*(?:this|your) (?:organization|account|workspace) (?:has been|is) "
        r"(?:disabled|suspended|deactivated)\b",
    ),
    # experiential PR #993: a 400 of code 0; new-api and DeepSeek say "Insufficient Balance".
    _general(
        Scope.CREDENTIAL,
        "the account is short of balance or quota",
        r"\A\W*(?:insufficient (?:balance|quota|credits?|funds)\b"
        r"|your credit balance is too low\b|you exceeded your current quota\b)",
    ),
    # GoModel PR #607: an aggregator reports its own upstream's failure as a 400.
    _general(
        Scope.FAILURE,
        "its own upstream failed",
        r"\A\W*(?:error from provider\b|upstream (?:request|connection|service|error)\b)",
    ),
)


class ErrorClassifier:
    """Classifies the errors of one upstream."""

    def __init__(self, vendor: config.VendorSettings, longest: float) -> None:
        """`longest`: no verdict lasts for longer, in seconds."""
        self._longest = longest
        self._zone = ZoneInfo(vendor.time_zone)
        self._rules = tuple(
            _Rule(
                Scope(rule.scope),
                rule.reason,
                rule.status,
                frozenset(rule.code),
                None if rule.says is None else re.compile(rule.says, re.IGNORECASE),
                rule.seconds,
            )
            for rule in vendor.rules
        )
        self._rules += _GENERAL_RULES

    def judge(
        self,
        status: int,
        headers: Headers,
        body: bytes,
        model: str,
        now: float,
        counting: bool = False,
    ) -> Verdict:
        """The verdict on an answer that does not serve the request. Never raises.

        `body` may be cut short or missing. `model` is the name in the upstream's request.
        `counting`: the request was for `count_tokens`, which has limits of its own and is often
        not served at all. As it is free, no error of it lasts.
        """
        document = _stated_error(body, is_error=status >= 400)
        if status < 300 and document != NO_ERROR:
            verdict = self._in_answer(document, headers, model, now)
        elif status in REFUSALS and is_html(headers, body):
            reason = f"{status}: a page of a firewall or proxy, not of the API"
            verdict = Verdict(Scope.REQUEST, 0.0, False, reason, sure=False, of_body=True)
        else:
            verdict = self._by_rule(status, document, headers, now) or self._in_general(
                status, f"{status}", document, headers, model, now
            )
        if not counting:
            return verdict
        if verdict.scope is Scope.CALLER:
            return verdict
        if status in (404, 405, 501):
            return Verdict(Scope.FEATURE, 0.0, False, f"{status}: it does not count tokens")
        if verdict.scope is Scope.CREDENTIAL:  # told to the operator
            return verdict._replace(until=0.0, stated=False, sure=False)
        return Verdict(Scope.REQUEST, 0.0, False, verdict.reason, False, verdict.of_body)

    def judge_event(self, body: bytes, model: str, now: float) -> Verdict:
        """The verdict on an error in a stream, or in an answer with status 200. Never raises.

        `body` is the JSON document, or the data of the event.
        """
        return self._in_answer(_stated_error(body), {}, model, now)

    def _in_answer(
        self, document: ErrorDocument, headers: Headers, model: str, now: float
    ) -> Verdict:
        if verdict := self._by_rule(0, document, headers, now):
            return verdict
        status = document.type_status or document.code_status
        if status < 400:
            reason = "in its answer: an error of unknown kind"
            return self._verdict(Scope.FAILURE, reason, now, sure=False)
        return self._in_general(status, "in its answer", document, headers, model, now)

    def _by_rule(
        self, status: int, document: ErrorDocument, headers: Headers, now: float
    ) -> Verdict | None:
        if 0 < status < 400:
            return None
        for rule in self._rules:
            if rule.matches(status, document):
                break
        else:
            return None
        scope = rule.scope
        reason = f"{status}: {rule.reason}" if status else f"in its answer: {rule.reason}"
        sure = scope is not Scope.FAILURE and not may_be_echo(status, document)
        if scope in _LASTING:
            moment = _timestamp(document.message, self._zone)
            if moment is not None and _is_plausible(moment, now):
                return self._verdict(scope, reason, now, moment, sure=sure)
        moment = _retry_after(headers, now)
        return self._verdict(scope, reason, now, moment, guess=rule.seconds, sure=sure)

    def _in_general(
        self,
        status: int,
        prefix: str,
        document: ErrorDocument,
        headers: Headers,
        model: str,
        now: float,
    ) -> Verdict:
        """The verdict by status, for all vendors (Anthropic API reference, Errors)."""
        if status == 429:
            return self._limited(prefix, document, headers, model, now)
        if status in (401, 402, 403, 407):
            reason = "payment required" if status == 402 else "does not accept the credential"
            sure = names_credential(status, document)
            return self._verdict(Scope.CREDENTIAL, f"{prefix}: {reason}", now, sure=sure)
        if status == 404:
            named = names_model(document, model)
            if not named and OWN_OBJECT.search(document.message):
                reason = f"{prefix}: has no such file or other object of the caller's"
                return self._verdict(Scope.CALLER, reason, now)
            reason = f"{prefix}: does not serve {model[:100]}"
            return self._verdict(Scope.MODEL, reason, now, sure=named)
        if status == 529:
            moment = _retry_after(headers, now)
            return self._verdict(Scope.REQUEST, f"{prefix}: overloaded", now, moment, guess=5.0)
        if status == 408 or 500 <= status < 600:
            return self._failed(status, f"{prefix}: it failed", now, _retry_after(headers, now))
        if 400 <= status < 500:
            return self._verdict(Scope.CALLER, f"{prefix}: refused the request", now)
        if status == 200:
            return self._failed(status, "answered 200 without an answer", now)
        reason = f"answered {status}, which the Messages API never does"
        return self._failed(status, reason, now)

    def _failed(self, status: int, reason: str, now: float, moment: float | None = None) -> Verdict:
        verdict = self._verdict(Scope.FAILURE, reason, now, moment, sure=False)
        of_body = status >= 500 and status not in NOT_OF_A_BODY and not verdict.stated
        return verdict._replace(of_body=of_body)

    def _limited(
        self, prefix: str, document: ErrorDocument, headers: Headers, model: str, now: float
    ) -> Verdict:
        """The verdict on a 429, from the most exact header field that it has."""
        if FEATURE_WORDS.search(document.message):
            return self._verdict(Scope.FEATURE, f"{prefix}: limit of a feature reached", now)
        if _value(headers, _UNIFIED + b"status").lower() == "rejected":
            claim = _value(headers, _UNIFIED + b"representative-claim").lower()
            moment = _epoch(_value(headers, _UNIFIED + b"reset"), now)
            scope, limit = _claimed_scope(claim, headers, model)
            moment = moment or _retry_after(headers, now)
            return self._verdict(scope, f"{prefix}: {limit}", now, moment)
        exhausted = dict(_exhausted_limits(headers, now))
        if not exhausted and any(name.startswith(FAST_MODE) for name in headers):
            return self._verdict(Scope.FEATURE, f"{prefix}: limit of fast mode reached", now)
        if exhausted:  # Anthropic counts these per model (API reference, Rate limits)
            reason = f"{prefix}: limit of {', '.join(exhausted)} reached"
            return self._verdict(Scope.MODEL, reason, now, max(exhausted.values()))
        moment = _retry_after(headers, now)
        if moment is not None:
            # It does not say whose limit: a feature's, perhaps.
            return self._verdict(
                Scope.ACCOUNT, f"{prefix}: retry-after given", now, moment, sure=False
            )
        # A 429 that states no limit is not about a limit: the next request may succeed.
        return self._verdict(Scope.REQUEST, f"{prefix}: without a reason", now, sure=False)

    def _verdict(
        self,
        scope: Scope,
        reason: str,
        now: float,
        moment: float | None = None,
        *,
        guess: float | None = None,
        sure: bool = True,
    ) -> Verdict:
        """A verdict until `moment`, else for `guess` seconds, else for the guess of its scope."""
        if scope in (Scope.CALLER, Scope.FEATURE):
            return Verdict(scope, 0.0, False, reason)
        if moment is not None:
            longest = self._longest
            if scope in _TRANSIENT:
                longest = min(longest, _MAX_BUSY_SECONDS)
            return Verdict(scope, min(moment, now + longest), True, reason, sure)
        seconds = _GUESSED_SECONDS[scope] if guess is None else guess
        until = min(now + seconds, now + self._longest) if seconds else 0.0
        return Verdict(scope, until, False, reason, sure)


_WITHOUT_A_REQUEST: Final = frozenset({FailureKind.CONNECT, FailureKind.TLS})


def of_failure(failure: FailureKind) -> Verdict:
    """The verdict on a request without an answer. No request causes a failed connect."""
    return Verdict(
        Scope.FAILURE,
        0.0,
        False,
        failure.value,
        sure=failure in _WITHOUT_A_REQUEST,
        of_body=failure in (FailureKind.CLOSED, FailureKind.GARBAGE),
        silent=failure is FailureKind.SILENT,
    )


def _claimed_scope(claim: str, headers: Headers, model: str) -> tuple[Scope, str]:
    """The scope of a unified limit that has rejected a request, and its reason.

    It concerns one model only if it names a class of models, or if the limits that all models
    share still allow requests (CLIProxyAPI #5915: the whole account was out for days).
    """
    for name in _MODEL_CLASSES:
        if name in claim and name in model.lower():
            return Scope.MODEL, f"limit of {name} reached"
    shared = [_value(headers, _UNIFIED + window + b"-status") for window in (b"5h", b"7d")]
    if all(status.lower() in _ALLOWED for status in shared):
        return Scope.MODEL, "limit of this model reached"
    return Scope.ACCOUNT, _CLAIM_REASONS.get(claim, "limit reached")


def _exhausted_limits(headers: Headers, now: float) -> Iterator[tuple[str, float]]:
    """Each limit with nothing remaining, and its reset in epoch seconds."""
    for group in _LIMIT_GROUPS:
        name = f"anthropic-ratelimit-{group}-".encode()
        if _value(headers, name + b"remaining") == "0":
            moment = _epoch(_value(headers, name + b"reset"), now)
            if moment is not None:
                yield group, moment


def _value(headers: Headers, name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1").strip()


def _retry_after(headers: Headers, now: float) -> float | None:
    """Epoch seconds from `retry-after-ms` or `retry-after` (RFC 9110 §10.2.3)."""
    for name, unit in ((b"retry-after-ms", 1000.0), (b"retry-after", 1.0)):
        text = _value(headers, name)
        moment: float | None = None
        if _NUMBER.fullmatch(text):
            moment = now + float(text) / unit
        elif _HTTP_DATE.fullmatch(text):
            try:
                moment = parsedate_to_datetime(text).timestamp()
            except ValueError:  # 31 Feb
                continue
        if moment is not None and _is_plausible(moment, now):
            return moment
    return None


def _epoch(text: str, now: float) -> float | None:
    """Epoch seconds from a header field, which has epoch seconds or RFC 3339."""
    moment = float(text) if _NUMBER.fullmatch(text) else _timestamp(text, UTC)
    return moment if moment is not None and _is_plausible(moment, now) else None


def _is_plausible(moment: float, now: float) -> bool:
    return now < moment <= now + _MAX_STATED_SECONDS


def _timestamp(text: str, zone: tzinfo) -> float | None:
    """The first timestamp in a text, in epoch seconds; without a zone it is in `zone`."""
    found = _TIMESTAMP.search(text)
    if found is None:
        return None
    *numbers, fraction, utc, sign, hours, minutes = found.groups()
    if utc:
        zone = UTC
    elif sign:
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        try:
            zone = timezone(offset if sign == "+" else -offset)
        except ValueError:  # +99:00
            return None
    year, month, day, hour, minute, second = [int(number or 0) for number in numbers]
    try:
        seconds = datetime(year, month, day, hour, minute, second, tzinfo=zone).timestamp()
    except (ValueError, OverflowError):  # 31 February; the year 0
        return None
    return seconds + float(fraction or 0)


def _stated_error(body: bytes, *, is_error: bool = False) -> ErrorDocument:
    """The error in a body, with its message cut to the length that rules search.

    `is_error`: the status says that it is one, so a code of success in it means nothing.
    Some vendors put the code into the message: `[1313][…]` or `… (2056)`.
    """
    document = read(body, failures_only=not is_error or len(body) > _MAX_SEARCHED_BODY)
    message = document.message[:_MAX_SEARCHED]
    code = document.code
    if not code and (match := CODE_IN_MESSAGE.search(message)):
        code = match[1] or match[2]
    return ErrorDocument(document.type, code, message)

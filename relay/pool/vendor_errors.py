"""What an upstream's trouble means: whom it concerns, for how long, and whether that is known.

`ErrorClassifier` holds one vendor's rules, compiled, and after them what holds for everyone. It
judges
one answer by its status, header lines and body, and must not know of other upstreams, of
earlier answers or of a clock: the present moment comes in, a `Verdict` goes out, and others
decide what to do with it.

Where an upstream tells a moment, that is believed if it lies ahead, by no more than the longest
limit that a vendor has (a week) and a day. `Verdict.until` is never further away than the
operator's `pool.longest_cooldown`, so a moment that turns out to be wrong is tried again.
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
from relay.translate.messages.error_document import NO_ERROR, ErrorDocument, read

Headers = dict[bytes, bytes]  # names in lower case


class Scope(Enum):
    """Whom a refusal concerns, from the narrowest to the widest."""

    CALLER = "caller"  # the request itself is at fault: any upstream would refuse it
    REQUEST = "request"  # this request, here and now; the next one may pass
    FAILURE = "failure"  # the upstream did not do its work
    MODEL = "model"  # every request for this model
    ACCOUNT = "account"  # every request of this account
    CREDENTIAL = "credential"  # every request, until an operator does something about it


class Verdict(NamedTuple):
    """`until` is in epoch seconds, 0.0: nothing to wait for. `told`: by the upstream, so that it
    is no guess. `reason` is for the operator, in our words: no text of the upstream, no secret.
    """

    scope: Scope
    until: float
    stated: bool
    reason: str

    @property
    def elsewhere(self) -> bool:
        """Whether another upstream may do better."""
        return self.scope is not Scope.CALLER


_MESSAGE: Final = 4096  # characters of a message that rules may search
_BELIEVED: Final = 8 * 86400.0  # seconds ahead
_SOFT: Final = 60.0  # seconds at most, for an upstream that is merely busy
_GUESS: Final = {
    Scope.CALLER: 0.0,
    Scope.REQUEST: 3.0,
    Scope.FAILURE: 0.0,
    Scope.MODEL: 60.0,
    Scope.ACCOUNT: 60.0,
    Scope.CREDENTIAL: 600.0,
}
_PASSING: Final = frozenset({Scope.REQUEST, Scope.FAILURE})
_DATED: Final = frozenset({Scope.MODEL, Scope.ACCOUNT, Scope.CREDENTIAL})

_NUMBER: Final = re.compile(r"[0-9]{1,13}(?:\.[0-9]{1,9})?")
_CODE_WITHIN: Final = re.compile(r"\A\[([0-9]{4,5})\]|\(([0-9]{4,5})\)\s*\Z")
_HTTP_DATE: Final = re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", re.A)
_MOMENT: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ]| at )(\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?"
    r"(?: ?(Z|UTC|GMT)|([+-])(\d\d):?(\d\d))?",
    re.ASCII,
)

_GROUPS: Final = ("requests", "tokens", "input-tokens", "output-tokens")
_CLASSES: Final = ("opus", "sonnet", "haiku")
_CLAIMS: Final = {"five_hour": "5-hour limit reached", "seven_day": "weekly limit reached"}
_UNIFIED: Final = b"anthropic-ratelimit-unified-"
_OPEN: Final = frozenset({"allowed", "allowed_warning"})


class _Rule(NamedTuple):
    """A `config.RuleSettings`, compiled."""

    scope: Scope
    reason: str
    status: int | None
    codes: frozenset[str]
    says: re.Pattern[str] | None
    seconds: float | None

    def fits(self, status: int, document: ErrorDocument) -> bool:
        """Whether it is about this answer; `status` 0 is an error within an answer."""
        if self.status is not None and self.status != status:
            return False
        if self.codes and self.codes.isdisjoint((document.type, document.code)):
            return False
        return self.says is None or self.says.search(document.message) is not None


class ErrorClassifier:
    """What the refusals of one upstream mean, by its vendor's rules and in general."""

    def __init__(self, vendor: config.VendorSettings, longest: float) -> None:
        """`longest` in seconds: no verdict holds for longer."""
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

    def judge(
        self,
        status: int,
        headers: Headers,
        body: bytes,
        model: str,
        now: float,
        counting: bool = False,
    ) -> Verdict:
        """An answer that cannot be passed on as what was asked for. Never raises.

        `body` may be cut short or missing; `model` is the name that was sent; `counting` says
        that it was for `count_tokens`. Counting has limits of its own and is often not served
        at all, so that nothing but a credential is held against the upstream for it.
        """
        document = _stated_error(body)
        if status < 300 and document != NO_ERROR:
            verdict = self._within(document, headers, model, now)
        else:
            verdict = self._by_rule(status, document, headers, now) or self._in_general(
                status, f"{status}", headers, model, now
            )
        if not counting or verdict.scope in (Scope.CALLER, Scope.CREDENTIAL):
            return verdict
        if status in (404, 405, 501):
            return Verdict(Scope.CALLER, 0.0, False, f"{status}: it does not count tokens")
        return Verdict(Scope.REQUEST, 0.0, False, verdict.reason)

    def judge_event(self, body: bytes, model: str, now: float) -> Verdict:
        """An error within a stream, or as the body of an answer with status 200. Never raises.

        `body` is the JSON document: of a server-sent event, its data.
        """
        return self._within(_stated_error(body), {}, model, now)

    def _within(self, document: ErrorDocument, headers: Headers, model: str, now: float) -> Verdict:
        if verdict := self._by_rule(0, document, headers, now):
            return verdict
        status = document.type_status or document.code_status
        if status < 400:
            return self._verdict(Scope.FAILURE, "in its answer: an error of unknown kind", now)
        return self._in_general(status, "in its answer", headers, model, now)

    def _by_rule(
        self, status: int, document: ErrorDocument, headers: Headers, now: float
    ) -> Verdict | None:
        if 0 < status < 400:
            return None
        for rule in self._rules:
            if rule.fits(status, document):
                break
        else:
            return None
        scope = rule.scope
        reason = f"{status}: {rule.reason}" if status else f"in its answer: {rule.reason}"
        if scope in _DATED:
            moment = _moment(document.message, self._zone)
            if moment is not None and _believed(moment, now):
                return self._verdict(scope, reason, now, moment)
        return self._verdict(scope, reason, now, _retry_after(headers, now), guess=rule.seconds)

    def _in_general(
        self, status: int, prefix: str, headers: Headers, model: str, now: float
    ) -> Verdict:
        """What a status means, whoever gives it (docs: api/errors)."""
        if status == 429:
            return self._limited(prefix, headers, model, now)
        if status == 402:
            return self._verdict(Scope.CREDENTIAL, f"{prefix}: the account is short", now)
        if status in (401, 403, 407):
            reason = f"{prefix}: does not accept the credential"
            return self._verdict(Scope.CREDENTIAL, reason, now)
        if status == 404:
            return self._verdict(Scope.MODEL, f"{prefix}: does not serve {model[:100]}", now)
        if status == 529:
            moment = _retry_after(headers, now)
            return self._verdict(Scope.REQUEST, f"{prefix}: overloaded", now, moment, guess=5.0)
        if status == 408 or 500 <= status < 600:
            moment = _retry_after(headers, now)
            return self._verdict(Scope.FAILURE, f"{prefix}: it failed", now, moment)
        if 400 <= status < 500:
            return self._verdict(Scope.CALLER, f"{prefix}: refused the request", now)
        if status == 200:
            return self._verdict(Scope.FAILURE, "answered 200 without an answer", now)
        reason = f"answered {status}, which the Messages API never does"
        return self._verdict(Scope.FAILURE, reason, now)

    def _limited(self, prefix: str, headers: Headers, model: str, now: float) -> Verdict:
        """429: the more exact a header is, the sooner it is asked."""
        if _value(headers, _UNIFIED + b"status").lower() == "rejected":
            claim = _value(headers, _UNIFIED + b"representative-claim").lower()
            moment = _epoch(_value(headers, _UNIFIED + b"reset"), now)
            scope, what = _claimed(claim, headers, model)
            moment = moment or _retry_after(headers, now)
            return self._verdict(scope, f"{prefix}: {what}", now, moment)
        spent = dict(_spent(headers, now))
        if spent:  # Anthropic counts these per model (docs: api/rate-limits)
            reason = f"{prefix}: limit of {', '.join(spent)} reached"
            return self._verdict(Scope.MODEL, reason, now, max(spent.values()))
        moment = _retry_after(headers, now)
        if moment is not None:
            return self._verdict(Scope.ACCOUNT, f"{prefix}: told to wait", now, moment)
        # Without a word about any limit it is no limit: the next request may well pass.
        return self._verdict(Scope.REQUEST, f"{prefix}: without a reason", now)

    def _verdict(
        self,
        scope: Scope,
        reason: str,
        now: float,
        moment: float | None = None,
        guess: float | None = None,
    ) -> Verdict:
        """Until `moment` if that was told, else for `guess` seconds, else for what is usual."""
        if scope is Scope.CALLER:
            return Verdict(scope, 0.0, False, reason)
        if moment is not None:
            longest = min(self._longest, _SOFT) if scope in _PASSING else self._longest
            return Verdict(scope, min(moment, now + longest), True, reason)
        seconds = _GUESS[scope] if guess is None else guess
        until = min(now + seconds, now + self._longest) if seconds else 0.0
        return Verdict(scope, until, False, reason)


def of_failure(trouble: FailureKind, now: float) -> Verdict:
    """No answer at all. Nobody told a moment; `now` makes it a judgement like the others."""
    return Verdict(Scope.FAILURE, 0.0, False, trouble.value)


def _claimed(claim: str, headers: Headers, model: str) -> tuple[Scope, str]:
    """Whom a unified limit concerns that rejected a request, and what to call it.

    The limit of one class of models, or one that rejects while those that all models share are
    open, leaves the other models alone (CLIProxyAPI #5915: the whole account was out for days).
    """
    for word in _CLASSES:
        if word in claim and word in model.lower():
            return Scope.MODEL, f"limit of {word} reached"
    shared = [_value(headers, _UNIFIED + window + b"-status") for window in (b"5h", b"7d")]
    if all(status.lower() in _OPEN for status in shared):
        return Scope.MODEL, "limit of this model reached"
    return Scope.ACCOUNT, _CLAIMS.get(claim, "limit reached")


def _spent(headers: Headers, now: float) -> Iterator[tuple[str, float]]:
    """Each limit of which nothing remains, and when there is more, in epoch seconds."""
    for group in _GROUPS:
        name = f"anthropic-ratelimit-{group}-".encode()
        if _value(headers, name + b"remaining") == "0":
            moment = _epoch(_value(headers, name + b"reset"), now)
            if moment is not None:
                yield group, moment


def _value(headers: Headers, name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1").strip()


def _retry_after(headers: Headers, now: float) -> float | None:
    """`retry-after` in seconds or as a date (RFC 9110 §10.2.3), `retry-after-ms`; epoch seconds."""
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
        if moment is not None and _believed(moment, now):
            return moment
    return None


def _epoch(text: str, now: float) -> float | None:
    """A header's moment, in epoch seconds or RFC 3339."""
    moment = float(text) if _NUMBER.fullmatch(text) else _moment(text, UTC)
    return moment if moment is not None and _believed(moment, now) else None


def _believed(moment: float, now: float) -> bool:
    return now < moment <= now + _BELIEVED


def _moment(text: str, zone: tzinfo) -> float | None:
    """The first moment in a text, in epoch seconds; `zone` is that of one without."""
    found = _MOMENT.search(text)
    if found is None:
        return None
    *numbers, fraction, universal, sign, hours, minutes = found.groups()
    if universal:
        zone = UTC
    elif sign:
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        try:
            zone = timezone(offset if sign == "+" else -offset)
        except ValueError:  # +99:00
            return None
    year, month, day, hour, minute, second = (int(number or 0) for number in numbers)
    try:
        whole = datetime(year, month, day, hour, minute, second, tzinfo=zone).timestamp()
    except (ValueError, OverflowError):  # 31 February; the year 0
        return None
    return whole + float(fraction or 0)


def _stated_error(body: bytes) -> ErrorDocument:
    """The error that a body states, with its message cut to the length that rules may search.

    Some vendors put the code into the message, before (`[1313][…]`) or after it (`… (2056)`).
    """
    document = read(body, failures_only=True)
    message = document.message[:_MESSAGE]
    code = document.code
    if not code and (within := _CODE_WITHIN.search(message)):
        code = within[1] or within[2]
    return ErrorDocument(document.type, code, message)

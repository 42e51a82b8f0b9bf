"""Which of an upstream's words a caller may see.

An upstream's error goes to the caller as it came, with three exceptions: the operator's
credential is cut out of it; words about the operator's account are replaced by the relay's own;
and an error that is no JSON document of the API becomes one, with the same status.
"""

import re
import time
from typing import Final

import msgspec

from relay.errors import OVERLOADED, RATE_LIMITED, ErrorShape, RelayError
from relay.gateway.dialect import UpstreamRefusal
from relay.gateway.error_fields import ErrorDocument
from relay.net.upstream.connection import FailureKind, UpstreamError
from relay.pool.routes import Target
from relay.pool.upstream import Upstream
from relay.pool.vendor_errors import Scope, Verdict
from relay.translate.messages.answer_form import is_untyped_error
from relay.translate.messages.error_document import caller_error, read, stream_error

OPERATORS_MATTER: Final = "No upstream can serve this now. Tell the operator of this relay."
_AT_LIMIT: Final = "The model's upstreams are at their rate limit. Try again in a moment."
_FAILED: Final = "The model's upstream failed. Try again in a moment."
_CONTENT_FIELDS: Final = re.compile(
    rb"^content-(?:type|encoding):[^\n]*\n", re.MULTILINE | re.IGNORECASE
)
_JSON_FIELD: Final = b"content-type: application/json\r\n"
_ERROR_DATA: Final = re.compile(rb'\{[^\n]{0,40}?"(?:error"[ ]*:|(?:object|type)"[ ]*:[ ]*"error")')
_OPERATORS_SCOPES: Final = (Scope.ACCOUNT, Scope.CREDENTIAL)
_ABOUT_OPERATOR: Final = re.compile(
    r"\borgani[sz]ation\b|\borg[-_]\w|\bworkspace\b|\bbilling\b|\bcredit balance\b|\bapi[ _-]?key\b"
    r"|\byour (?:[\w-]+ )?(?:account|plan|subscription|quota|balance|usage limits?)\b",
    re.IGNORECASE,
)


class StatedError(UpstreamError):
    """An upstream ended a stream with an error that its caller gets as `error`."""

    def __init__(self, verdict: Verdict, error: RelayError) -> None:
        super().__init__(FailureKind.CLOSED, verdict.reason)
        self.verdict = verdict
        self.error = error


_decode: Final = msgspec.json.Decoder(ErrorDocument).decode


def fit_refusal(
    request_id: str,
    upstream: Upstream,
    verdict: Verdict,
    refusal: UpstreamRefusal,
    *,
    as_came: bool,
) -> UpstreamRefusal:
    """An upstream's error as a caller may see it. `as_came`: it is not translated."""
    status, fields, payload = refusal.status, refusal.fields, refusal.payload
    payload = upstream.without_credential(payload)
    if upstream.repeats_credential(fields):
        fields = b""
    error: RelayError | None = None
    if verdict.scope is not Scope.CALLER and _is_about_operator(verdict, payload):
        error = _own_words(status)
    elif as_came and not _is_of_api(payload):
        error = caller_error(status, payload)[1]
    if error is not None:
        payload = error.body(ErrorShape.MESSAGES, request_id)
    is_json = b"content-type: application/json" in fields
    if as_came and (not is_json or b"content-encoding:" in fields):
        fields = _CONTENT_FIELDS.sub(b"", fields) + _JSON_FIELD
    return UpstreamRefusal(status, fields, payload)


def harmful_event(target: Target, name: bytes, data: bytes) -> StatedError | None:
    """The error in place of an event; None if a caller may see the event as it is.

    Any event may repeat the credential. Only an error speaks of the operator's account.
    """
    upstream = target.upstream
    if not upstream.repeats_credential(data):
        if name != b"error" and _ERROR_DATA.match(data) is None and not is_untyped_error(data):
            return None
        verdict = upstream.error_classifier.judge_event(data, target.name, time.time())
        hides = upstream.without_credential(data) != data
        if not hides and not _is_about_operator(verdict, data):
            return None
    return stated_error(target, data)


def stated_error(target: Target, data: bytes) -> StatedError:
    """The error event of a stream, with the words that a caller may see."""
    verdict = target.upstream.error_classifier.judge_event(data, target.name, time.time())
    return StatedError(verdict, ErrorWords(target).error_of(data))


class ErrorWords:
    """Makes errors of one target's error events."""

    __slots__ = ("_target",)

    def __init__(self, target: Target) -> None:
        self._target = target

    def error_of(self, data: bytes) -> RelayError:
        """The caller's error of an error event with this data."""
        upstream = self._target.upstream
        data = upstream.without_credential(data)
        error = stream_error(data)
        verdict = upstream.error_classifier.judge_event(data, self._target.name, time.time())
        return _own_words(error.kind.status) if _is_about_operator(verdict, data) else error


def _is_about_operator(verdict: Verdict, data: bytes) -> bool:
    if verdict.scope in _OPERATORS_SCOPES:
        return True
    if verdict.scope is Scope.CALLER:
        return False
    return _ABOUT_OPERATOR.search(read(data).message[:4096]) is not None


def _is_of_api(payload: bytes) -> bool:
    """Whether an error's document has the shape of the Messages API."""
    try:
        return bool(_decode(payload).error.message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _own_words(status: int) -> RelayError:
    if status == RATE_LIMITED.status:
        return RelayError(RATE_LIMITED, _AT_LIMIT)
    error = caller_error(status, b"")[1]
    if error.kind is OVERLOADED or status in (401, 402, 403, 407):
        return RelayError(OVERLOADED, OPERATORS_MATTER)
    return RelayError(error.kind, _FAILED)

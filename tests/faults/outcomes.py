"""The table of faults: each fault of the simulated upstream, and its outcome.

A row is an `x-simulate` script, the outcome for a caller of a document (JSON), and the one for
a caller of a stream (SSE), without another upstream. How an answer ends:

    complete    framing complete, connection reusable
    refused     an error document before any of the answer, connection reusable
    error event an `error` event within the stream, then a cut
    cut         the connection closes with incomplete framing: no last chunk, or too few octets

An answer is sent once it has content: a stream from its first content on, a document when it is
complete or above 1 MiB. A failure before that is refused, costs nothing, and leads to another
upstream if there is one, unless the request itself is at fault or the first upstream may still
be working on it (`elsewhere`).
"""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Outcome:
    """The caller's view of a fault, and its settlement."""

    status: int
    ends: Literal["complete", "refused", "error event", "cut"]
    logged: str  # prefix of the outcome in the access log
    kind: str = ""  # the error's type
    message: str = ""  # a part of its message
    slow: bool = False  # after a timeout, not at once
    readable: bool = True  # the SDK can read a complete answer
    rule: str = "refunded"  # of settlement, see relay.gateway.metering
    final: bool = False  # not retried at another upstream
    holds: float = 0.0  # seconds for which later requests wait

    @property
    def elsewhere(self) -> bool:
        """Whether another upstream answers instead, if there is one."""
        return self.ends == "refused" and not self.final


COMPLETE: Final = Outcome(200, "complete", "whole", rule="reported")
UNREADABLE: Final = Outcome(200, "complete", "whole", readable=False, rule="reported")
CUT: Final = Outcome(200, "cut", "cut: the upstream closed", rule="partial")
# A cut document is useless to its caller.
CUT_DOCUMENT: Final = Outcome(200, "cut", "cut: the upstream closed")
BROKE_OFF: Final = Outcome(
    200, "error event", "cut: the upstream closed", "api_error", "broke off", rule="partial"
)
FELL_SILENT: Final = Outcome(
    200,
    "error event",
    "cut: the upstream did not answer in time",
    "api_error",
    "in time",
    slow=True,
    rule="partial",
)
CUT_SILENT: Final = Outcome(200, "cut", "cut: the upstream did not answer in time", slow=True)
NO_ANSWER: Final = Outcome(502, "refused", "refused: ", "api_error", "broke off")
NO_HTTP: Final = Outcome(502, "refused", "refused: ", "api_error", "cannot be read")
TIMED_OUT: Final = Outcome(
    504, "refused", "refused: ", "api_error", "in time", slow=True, final=True
)
OPERATORS: Final = Outcome(503, "refused", "refused: ", "overloaded_error", "operator")
# After content, an upstream's own error event ends the stream and is passed on unchanged.
ERROR_EVENT: Final = Outcome(
    200, "complete", "whole", "overloaded_error", "Overloaded", rule="reported"
)


def own(status: int, kind: str, message: str = "", *, holds: float = 0.0) -> Outcome:
    """The upstream's own error, unchanged."""
    logged = f"refused: the upstream answered {status}"
    final = status in (400, 413)  # the request is at fault, at any upstream
    return Outcome(status, "refused", logged, kind, message, final=final, holds=holds)


OVERLOADED: Final = own(529, "overloaded_error", "Overloaded")
HTML: Final = own(500, "api_error", "answered 500")
NONE: Final = Outcome(502, "refused", "refused: ", "api_error", "cannot be read")
# An error of the upstream in an answer with status 200, word for word.
LATE: Final = own(500, "api_error", "KV cache is full")
# The same after content: its words in an error event.
LATE_EVENT: Final = Outcome(
    200,
    "error event",
    "cut: the upstream closed the connection early: in its answer",
    "api_error",
    "KV cache is full",
    rule="partial",
)

OUTCOMES: Final[dict[str, tuple[Outcome, Outcome]]] = {
    # an error of the upstream
    "status=400": (own(400, "invalid_request_error"),) * 2,
    "status=401": (OPERATORS, OPERATORS),
    "status=402": (OPERATORS, OPERATORS),
    "status=403": (OPERATORS, OPERATORS),
    "status=404": (own(404, "not_found_error"),) * 2,
    "status=413": (own(413, "request_too_large"),) * 2,
    "status=429": (own(429, "rate_limit_error", "rate limit"),) * 2,
    "status=429;retry-after=0.3": (own(429, "rate_limit_error", "rate limit", holds=0.3),) * 2,
    "status=500": (own(500, "api_error", "Internal server error"),) * 2,
    "status=503": (own(503, "overloaded_error"),) * 2,
    "fault=status": (OVERLOADED, OVERLOADED),
    "fault=html": (HTML, HTML),
    "fault=redirect": (NO_HTTP, NO_HTTP),
    "fault=empty": (NO_HTTP, NO_HTTP),
    # no answer
    "fault=close": (NO_ANSWER, NO_ANSWER),
    "fault=reset;at=0": (NO_ANSWER, NO_ANSWER),
    "fault=half-head": (NO_ANSWER, NO_ANSWER),
    "fault=huge-head": (NO_HTTP, NO_HTTP),
    "fault=garbage": (NO_HTTP, NO_HTTP),
    "fault=storm": (NO_HTTP, NO_HTTP),
    "fault=stall-head": (TIMED_OUT, TIMED_OUT),
    # an answer that breaks
    "fault=cut;at=0": (NO_ANSWER, NO_ANSWER),
    "fault=cut;at=1": (NO_ANSWER, NO_ANSWER),
    "fault=cut;at=3": (NO_ANSWER, NO_ANSWER),  # message_start, an empty text, a ping
    "fault=cut;at=4": (NO_ANSWER, BROKE_OFF),
    "fault=cut": (NO_ANSWER, BROKE_OFF),
    "fault=cut;at=9999": (NO_ANSWER, BROKE_OFF),
    "fault=cut;at=1500000;bytes=2000000": (CUT_DOCUMENT, BROKE_OFF),
    "fault=reset": (NO_ANSWER, BROKE_OFF),
    "fault=reset;at=2": (NO_ANSWER, NO_ANSWER),
    "fault=stall;at=0": (TIMED_OUT, TIMED_OUT),
    "fault=stall;at=3": (TIMED_OUT, TIMED_OUT),
    "fault=stall": (TIMED_OUT, FELL_SILENT),
    "fault=stall;at=1500000;bytes=2000000": (CUT_SILENT, FELL_SILENT),
    # within an event: no error event can follow
    "fault=truncated-chunk": (NO_ANSWER, CUT),
    "fault=truncated-chunk;at=3": (NO_ANSWER, NO_ANSWER),
    "fault=short-length": (NO_ANSWER, CUT),  # nor within a content-length
    "fault=no-final-chunk": (NO_ANSWER, BROKE_OFF),
    # an answer that ends cleanly but early
    "fault=clean-end;at=0": (NO_ANSWER, NO_ANSWER),
    "fault=clean-end;at=3": (NO_ANSWER, NO_ANSWER),
    "fault=clean-end": (NO_ANSWER, BROKE_OFF),
    "fault=clean-end;at=300": (NO_ANSWER, COMPLETE),  # after message_stop nothing is missing
    "fault=error;at=0": (OVERLOADED, OVERLOADED),
    "fault=error;at=3": (OVERLOADED, OVERLOADED),
    "fault=error": (OVERLOADED, ERROR_EVENT),
    "fault=garbage-sse": (NO_ANSWER, UNREADABLE),
    # an odd but good answer
    "fault=drip": (COMPLETE, COMPLETE),
    "fault=extra": (COMPLETE, COMPLETE),
    "fault=gzip": (COMPLETE, COMPLETE),
    "fault=zstd": (COMPLETE, COMPLETE),
    "fault=deflate": (COMPLETE, COMPLETE),
    "fault=other-form": (COMPLETE, COMPLETE),
    "fault=label": (COMPLETE, COMPLETE),
    "fault=no-stop": (COMPLETE, COMPLETE),
    # status 200, and no answer
    "fault=envelope": (LATE, LATE),
    "fault=nothing": (NONE, NONE),
    "fault=page": (NONE, NONE),
    "fault=error-object;at=0": (LATE, LATE),
    "fault=error-object;at=3": (LATE, LATE),
    "fault=error-object": (LATE, LATE_EVENT),
}

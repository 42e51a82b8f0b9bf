"""Each fault of the simulated upstream, and what becomes of it: the one table.

A row is an `x-simulate` text, what a caller of a whole (JSON) answer gets, and what a caller
of a stream (SSE) gets. How an answer ends:

    whole   as it should: framing complete, connection reusable
    refused with an error document, before any of the answer; connection reusable
    told    a stream that says what happened in an `error` event, then a cut
    cut     the connection closes with the framing incomplete: no last chunk, or too few octets
"""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Outcome:
    """What the caller gets."""

    status: int
    ends: Literal["whole", "refused", "told", "cut"]
    logged: str  # how the access log's outcome begins
    kind: str = ""  # the error's type
    message: str = ""  # and a part of what it says
    slow: bool = False  # comes with a deadline, not at once
    readable: bool = True  # the SDK makes a message of a whole answer


WHOLE: Final = Outcome(200, "whole", "whole")
UNREADABLE: Final = Outcome(200, "whole", "whole", readable=False)
CUT: Final = Outcome(200, "cut", "cut: the upstream closed")
BROKE_OFF: Final = Outcome(200, "told", "cut: the upstream closed", "api_error", "broke off")
FELL_SILENT: Final = Outcome(
    200, "told", "cut: the upstream did not answer in time", "api_error", "in time", slow=True
)
CUT_SILENT: Final = Outcome(200, "cut", "cut: the upstream did not answer in time", slow=True)
NO_ANSWER: Final = Outcome(502, "refused", "refused: ", "api_error", "broke off")
NO_HTTP: Final = Outcome(502, "refused", "refused: ", "api_error", "cannot be read")
TIMED_OUT: Final = Outcome(504, "refused", "refused: ", "api_error", "in time", slow=True)
OPERATORS: Final = Outcome(503, "refused", "refused: ", "overloaded_error", "operator")
# An error event is the upstream's own end of a stream, and is passed on as it is.
ERROR_EVENT: Final = Outcome(200, "whole", "whole", "overloaded_error", "Overloaded")


def own(status: int, kind: str, message: str = "") -> Outcome:
    """The upstream's own error, word for word."""
    return Outcome(status, "refused", "refused: the upstream answered", kind, message)


OVERLOADED: Final = own(529, "overloaded_error", "Overloaded")
HTML: Final = own(500, "", "<h1>Server Error</h1>")

OUTCOMES: Final[dict[str, tuple[Outcome, Outcome]]] = {
    # an answer in its own right
    "status=400": (own(400, "invalid_request_error"),) * 2,
    "status=401": (OPERATORS, OPERATORS),
    "status=402": (OPERATORS, OPERATORS),
    "status=403": (OPERATORS, OPERATORS),
    "status=404": (own(404, "not_found_error"),) * 2,
    "status=413": (own(413, "request_too_large"),) * 2,
    "status=429;retry-after=7": (own(429, "rate_limit_error", "rate limit"),) * 2,
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
    "fault=cut;at=0": (CUT, BROKE_OFF),
    "fault=cut;at=1": (CUT, BROKE_OFF),
    "fault=cut": (CUT, BROKE_OFF),
    "fault=cut;at=9999": (CUT, BROKE_OFF),
    "fault=reset": (CUT, BROKE_OFF),
    "fault=stall;at=0": (CUT_SILENT, FELL_SILENT),
    "fault=stall": (CUT_SILENT, FELL_SILENT),
    "fault=truncated-chunk": (CUT, CUT),  # within an event there is no room to say anything
    "fault=short-length": (CUT, CUT),  # nor where the length was told
    "fault=no-final-chunk": (CUT, BROKE_OFF),
    # an answer that lies
    "fault=clean-end;at=0": (CUT, BROKE_OFF),
    "fault=clean-end": (CUT, BROKE_OFF),
    "fault=clean-end;at=300": (CUT, WHOLE),  # after message_stop there is nothing to miss
    "fault=error;at=0": (OVERLOADED, ERROR_EVENT),
    "fault=error": (OVERLOADED, ERROR_EVENT),
    "fault=garbage-sse": (NO_HTTP, UNREADABLE),
    # an answer that is odd, and good
    "fault=drip": (WHOLE, WHOLE),
    "fault=extra": (WHOLE, WHOLE),
    "fault=gzip": (WHOLE, WHOLE),
}

"""Each fault of the simulated upstream, and what becomes of it: the one table.

A row is an `x-simulate` text, what a caller of a whole (JSON) answer gets, and what a caller
of a stream (SSE) gets, while there is no other upstream. How an answer ends:

    whole   as it should: framing complete, connection reusable
    refused with an error document, before any of the answer; connection reusable
    told    a stream that says what happened in an `error` event, then a cut
    cut     the connection closes with the framing incomplete: no last chunk, or too few octets

An answer is shown once it has brought something: a stream its first content, a document its end
or 1 MiB. What fails before that is refused, costs nothing, and is asked of another upstream if
there is one, unless the request itself is at fault or may still be worked on (`elsewhere`).
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
    rule: str = "refunded"  # how it is settled, see gateway.metering
    final: bool = False  # no other upstream is to be asked in its place
    holds: float = 0.0  # seconds for which the requests after it are held

    @property
    def elsewhere(self) -> bool:
        """Whether another upstream's answer takes its place, if there is another."""
        return self.ends == "refused" and not self.final


WHOLE: Final = Outcome(200, "whole", "whole", rule="reported")
UNREADABLE: Final = Outcome(200, "whole", "whole", readable=False, rule="reported")
UNMEASURED: Final = Outcome(200, "whole", "whole", rule="reserved")
CUT: Final = Outcome(200, "cut", "cut: the upstream closed", rule="partial")
# A document is of use as a whole only.
CUT_DOCUMENT: Final = Outcome(200, "cut", "cut: the upstream closed")
BROKE_OFF: Final = Outcome(
    200, "told", "cut: the upstream closed", "api_error", "broke off", rule="partial"
)
FELL_SILENT: Final = Outcome(
    200,
    "told",
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
# After content an error event is the upstream's own end of a stream, and passed on as it is.
ERROR_EVENT: Final = Outcome(
    200, "whole", "whole", "overloaded_error", "Overloaded", rule="reported"
)


def own(status: int, kind: str, message: str = "", *, holds: float = 0.0) -> Outcome:
    """The upstream's own error, word for word."""
    logged = f"refused: the upstream answered {status}"
    final = status in (400, 413)  # whoever is asked: it is the request that is at fault
    return Outcome(status, "refused", logged, kind, message, final=final, holds=holds)


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
    # within an event there is no room to say anything
    "fault=truncated-chunk": (NO_ANSWER, CUT),
    "fault=truncated-chunk;at=3": (NO_ANSWER, NO_ANSWER),
    "fault=short-length": (NO_ANSWER, CUT),  # nor where the length was told
    "fault=no-final-chunk": (NO_ANSWER, BROKE_OFF),
    # an answer that lies
    "fault=clean-end;at=0": (NO_ANSWER, NO_ANSWER),
    "fault=clean-end;at=3": (NO_ANSWER, NO_ANSWER),
    "fault=clean-end": (NO_ANSWER, BROKE_OFF),
    "fault=clean-end;at=300": (NO_ANSWER, WHOLE),  # after message_stop there is nothing to miss
    "fault=error;at=0": (OVERLOADED, OVERLOADED),
    "fault=error;at=3": (OVERLOADED, OVERLOADED),
    "fault=error": (OVERLOADED, ERROR_EVENT),
    "fault=garbage-sse": (NO_ANSWER, UNREADABLE),
    # an answer that is odd, and good
    "fault=drip": (WHOLE, WHOLE),
    "fault=extra": (WHOLE, WHOLE),
    "fault=gzip": (UNMEASURED, UNMEASURED),
}

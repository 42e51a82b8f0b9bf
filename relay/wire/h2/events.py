"""What happens on an HTTP/2 connection, for its owner.

Decides nothing: these are values.
"""

from typing import Final

from relay.errors import RelayError
from relay.wire.h2.stream import Stream

REQUEST: Final = 0  # a request has come; its body so far is `stream.early`
REFUSED: Final = 1  # a request has come that is answered with `error`
BODY: Final = 2  # `data` of a request's body; `stream.received` says whether it is complete
RESET: Final = 3  # the stream is over, by either side


class StreamEvent:
    """One event of one stream."""

    __slots__ = ("data", "error", "kind", "stream")

    def __init__(
        self, kind: int, stream: Stream, data: bytes = b"", error: RelayError | None = None
    ) -> None:
        self.kind = kind
        self.stream = stream
        self.data = data
        self.error = error

"""A request sent to its upstream, and the head of the answer judged.

What concerns the operator's account (its credential, its bill) or is no answer at all becomes
the relay's own error; any other error of the upstream is the caller's to see, word for word.
"""

import asyncio
import logging
from typing import Final

from relay.errors import BAD_UPSTREAM, OVERLOADED, UPSTREAM_TIMEOUT, Kind, RelayError
from relay.gateway.upstreams import Upstream
from relay.net.client import Trouble, UpstreamConnection, UpstreamError
from relay.wire.events import Request, Response

_log = logging.getLogger("relay.gateway")

_KINDS: Final[dict[Trouble, Kind]] = {
    Trouble.CONNECT: OVERLOADED,
    Trouble.TLS: OVERLOADED,
    Trouble.SILENT: UPSTREAM_TIMEOUT,
    Trouble.CLOSED: BAD_UPSTREAM,
    Trouble.GARBAGE: BAD_UPSTREAM,
}
_ADVICE: Final[dict[Trouble, str]] = {
    Trouble.CONNECT: "The model's upstream cannot be reached. Try again in a moment.",
    Trouble.TLS: "The model's upstream cannot be reached safely. Tell the operator of this relay.",
    Trouble.SILENT: "The model's upstream did not answer in time. Try again.",
    Trouble.CLOSED: "The model's upstream broke off its answer. Try again.",
    Trouble.GARBAGE: "The model's upstream sent an answer that cannot be read. Try again.",
}
_CREDENTIAL: Final = frozenset({401, 402, 403, 407})
_CONTENT: Final = (b"application/json", b"text/event-stream")


def relay_error(failure: UpstreamError) -> RelayError:
    """The upstream's failure as the caller is told of it."""
    return RelayError(_KINDS[failure.trouble], _ADVICE[failure.trouble])


async def dispatch(
    upstream: Upstream, request: Request, body: bytes
) -> tuple[UpstreamConnection, Response]:
    """Send a request; the connection, positioned at the answer's body, and its head.

    Raises:
        RelayError: 502, 503 or 504, there is no answer that could be passed on.
    """
    head = upstream.head(request, len(body))
    pool = upstream.pool
    connection = None
    try:
        connection = pool.take() or await pool.connect()
        try:
            response = await connection.send(head, body)
        except UpstreamError as failure:
            if not failure.stale:
                raise
            # The upstream had closed this idle connection: no octet of an answer came, so the
            # request was not served. Once more, and on a new one.
            connection = await pool.connect()
            response = await connection.send(head, body)
    except UpstreamError as failure:
        _log.warning("upstream %s %s", upstream.name, failure)
        raise relay_error(failure) from None
    except asyncio.CancelledError:
        if connection is not None:
            connection.close()
        raise
    refusal = _judge(response)
    if refusal is not None:
        reason, error = refusal
        _log.warning("upstream %s %s", upstream.name, reason)
        connection.close()
        raise error
    return connection, response


def _judge(response: Response) -> tuple[str, RelayError] | None:
    """Why the caller must not see this answer, for the log and for the caller; None: they may."""
    status = response.status
    if status == 200:
        kind = response.headers.get(b"content-type", b"")
        if response.length and kind.lower().startswith(_CONTENT):
            return None
        said = kind.decode("latin-1")[:64] or "nothing"
        return (
            f"answered 200 with {said}; is its base_url right?",
            RelayError(BAD_UPSTREAM, _ADVICE[Trouble.GARBAGE]),
        )
    if status in _CREDENTIAL:
        return (
            f"answered {status}: it does not accept the credential, or the account is short",
            RelayError(
                OVERLOADED, "No upstream can serve this now. Tell the operator of this relay."
            ),
        )
    if status < 400:
        return (
            f"answered {status}, which the Messages API never does; is its base_url right?",
            RelayError(BAD_UPSTREAM, _ADVICE[Trouble.GARBAGE]),
        )
    return None

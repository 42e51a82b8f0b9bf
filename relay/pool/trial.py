"""A test of one upstream for its operator: a small request, and the answer as it came.

Asks for one token, so it costs next to nothing and shows what a probe that only counts does not:
that the credential, the model and the account work. Changes no state of the upstream. Decides how
much of the answer is kept, without the credential.
"""

from dataclasses import dataclass
from time import monotonic
from typing import Final

import orjson

from relay.net.deadlines import Deadlines
from relay.net.upstream.body import ResponseBody
from relay.net.upstream.connection import UpstreamError
from relay.pool.upstream import Upstream

_SECONDS: Final = 30.0
_MAX_OCTETS: Final = 16 * 1024
_FIELDS: Final = b"content-type: application/json\r\nanthropic-version: 2023-06-01\r\n"
_SUCCESS: Final = range(200, 300)


@dataclass(frozen=True, slots=True)
class Trial:
    """What came back. `status` 0: nothing, and `body` says why. `head` are its fields."""

    status: int
    head: str
    body: str
    microseconds: int

    @property
    def ok(self) -> bool:
        return self.status in _SUCCESS


async def try_out(upstream: Upstream, model: str, deadlines: Deadlines) -> Trial:
    """Send the request. Must run in a `CoroutineRunner`.

    Raises:
        RelayError: the relay has no descriptor left.
    """
    message = {"role": "user", "content": "Say hi."}
    body = orjson.dumps({"model": model, "max_tokens": 1, "messages": [message]})
    head = upstream.messages_head(_FIELDS, len(body), counting=False)
    began = monotonic()
    try:
        connection = await upstream.pool.connect()
        try:
            answer = connection.send(head, body)
            connection.deadline = deadlines.now + _SECONDS
            response = await answer
            content = ResponseBody(connection, response, keep_framing=False)
            await content.look_ahead()
        finally:
            connection.close()
    except UpstreamError as failure:
        return Trial(0, "", str(failure), _since(began))
    fields = b"".join(b"%b: %b\r\n" % pair for pair in response.headers.items())
    return Trial(
        response.status,
        _shown(upstream, fields + response.onward),
        _shown(upstream, content.payload),
        _since(began),
    )


def _since(began: float) -> int:
    return int((monotonic() - began) * 1e6)


def _shown(upstream: Upstream, octets: bytes) -> str:
    """Octets of the upstream as text, without the credential."""
    text = upstream.without_credential(octets[:_MAX_OCTETS]).decode("utf-8", "replace")
    return text.replace("\r\n", "\n").strip()

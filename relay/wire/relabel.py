"""Corrects the label of a response whose body is passed on in another form.

Decides the fields that describe a body. Must not know the body.
"""

import re
from typing import Final

from relay.wire.events import UNTIL_CLOSE, Response

_DESCRIBING: Final = re.compile(rb"^content-(?:type|encoding):[^\n]*\n", re.MULTILINE)
_JSON: Final = b"application/json"
_EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"


def as_json(response: Response, body: bytes) -> Response:
    """The response with a JSON document as its complete body."""
    return _labelled(response, _JSON, len(body))


def as_event_stream(response: Response) -> Response:
    """The response with an event stream of unknown length as its body."""
    return _labelled(response, _EVENT_STREAM, UNTIL_CLOSE)


def _labelled(response: Response, content_type: bytes, length: int) -> Response:
    headers = {**response.headers, b"content-type": content_type}
    headers.pop(b"content-encoding", None)
    onward = _DESCRIBING.sub(b"", response.onward) + b"content-type: %b\r\n" % content_type
    return Response(response.status, headers, onward, length, response.keep_alive)

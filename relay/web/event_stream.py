"""An answer of server-sent events, whose source is closed at its end, whatever ends it."""

from collections.abc import AsyncGenerator
from typing import Any

from starlette.responses import Response

from relay.net.asgi import Receive, Send


class EventStream(Response):
    """See the module. Each item of the source is one or more complete events."""

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[bytes, None]) -> None:
        super().__init__(None)
        self._source = source

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Send the events as they come: ASGI's interface."""
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        headers.append((b"x-accel-buffering", b"no"))  # nginx in front would hold them back
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async for octets in self._source:
                await send({"type": "http.response.body", "body": octets, "more_body": True})
        finally:
            await self._source.aclose()
        await send({"type": "http.response.body", "body": b""})

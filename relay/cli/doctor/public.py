"""Connections to the public address, as a client opens them. Must not know what is asked."""

import http.client
import ssl
from urllib.parse import urlsplit


def connection_to(url: str, seconds: float) -> tuple[http.client.HTTPConnection, str]:
    """A connection that waits so long at most, and the path before every path."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    prefix = parts.path.rstrip("/")
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return (
            http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=seconds, context=context
            ),
            prefix,
        )
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds), prefix

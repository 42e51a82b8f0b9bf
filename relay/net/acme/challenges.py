"""Answers to an authority's challenges, while an order runs.

An order's thread puts them in, the loop reads them. Decides nothing. Must not know orders.
"""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Final

_APPLY_TIMEOUT_SECONDS: Final = 5.0


class Challenges:
    """The answers of HTTP-01 (RFC 8555 §8.3) and of TLS-ALPN-01 (RFC 8737)."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._http: dict[str, str] = {}  # token → key authorization
        self._tls: dict[str, ssl.SSLContext] = {}  # by domain
        self.on_change: Callable[[], None] = lambda: None  # of `is_pending`, in the loop

    @property
    def is_pending(self) -> bool:
        """Whether an authority may call with TLS-ALPN-01."""
        return bool(self._tls)

    def context(self, name: str) -> ssl.SSLContext | None:
        """For the TLS-ALPN-01 challenge of a name; None: there is none."""
        return self._tls.get(name)

    def key_authorization(self, token: str) -> str | None:
        """The answer to an HTTP-01 challenge; None: there is none."""
        return self._http.get(token)

    @contextlib.contextmanager
    def http(self, token: str, authorization: str) -> Iterator[None]:
        """Answer an HTTP-01 challenge within the block. For an order's thread."""
        self._http[token] = authorization
        try:
            yield
        finally:
            self._http.pop(token, None)

    @contextlib.contextmanager
    def tls(self, domain: str, context: ssl.SSLContext) -> Iterator[None]:
        """Answer a TLS-ALPN-01 challenge within the block. For an order's thread."""
        self._tls[domain] = context
        try:
            self._apply()
            yield
        finally:
            self._tls.pop(domain, None)
            self._apply()

    def _apply(self) -> None:
        """Have the listeners look; returns once they have."""
        applied = threading.Event()

        def change() -> None:
            self.on_change()
            self._loop.call_later(0.05, applied.set)  # a listener accepts anew on the next turn

        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(change)
            applied.wait(_APPLY_TIMEOUT_SECONDS)

"""One copy of a request head that a client sends on many connections.

An idle connection keeps its last head, which is the same on all connections of one client: without
this it would be most of the connection's memory. A copy goes with the last connection that has it.
"""

from typing import Final
from weakref import WeakValueDictionary

from relay.wire.events import Request


class RepeatedHead:
    """`text`: the head up to the digits of Content-Length, and after them."""

    __slots__ = ("__weakref__", "headers", "onward", "text")

    def __init__(self, text: tuple[bytes, bytes], request: Request) -> None:
        self.text = text
        self.headers = request.headers
        self.onward = request.onward


_kept: Final[WeakValueDictionary[tuple[bytes, bytes], RepeatedHead]] = WeakValueDictionary()


def repeated_head(before: bytes, after: bytes, request: Request) -> RepeatedHead:
    """The copy of this head; of a head that no connection has, a new one."""
    text = (before, after)
    head = _kept.get(text)
    if head is None:
        head = _kept[text] = RepeatedHead(text, request)
    return head

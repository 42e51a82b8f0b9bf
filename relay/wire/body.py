"""Bodies whose end is told by a length or by the connection: octets in, octets to pass on out.

With `chunked.ChunkScanner` these are the three kinds of extent of RFC 9112 §6.3. All have
`feed(data)` → the octets to pass on, `done`, and `rest`: what came after the body's end.
"""

from typing import Protocol


class Extent(Protocol):
    """Finds where a body ends while it passes by."""

    done: bool
    rest: bytes

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return those of them that belong to the body."""
        ...

    def at_boundary(self) -> bool:
        """Whether a new piece of the sender's own framing could be put here."""
        ...


class Sized:
    """A body of so many octets."""

    __slots__ = ("done", "left", "rest")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """See Extent."""
        size = len(data)
        if size < self.left:
            self.left -= size
            return data
        self.done = True
        if size == self.left:
            self.left = 0
            return data
        self.rest = data[self.left :]
        data = data[: self.left]
        self.left = 0
        return data

    def at_boundary(self) -> bool:
        """Never within a length that was promised."""
        return self.done


class UntilClose:
    """A body that ends when the connection does; the connection says so by `done = True`."""

    __slots__ = ("done", "rest")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """See Extent."""
        return data

    def at_boundary(self) -> bool:
        """Anywhere: there is no framing."""
        return True

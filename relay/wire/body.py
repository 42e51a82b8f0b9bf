"""Finds where a body ends: by its length, with the connection, or in its chunked coding.

These are the three kinds of extent of RFC 9112 §6.3; `chunked` has the third. Each has
`feed(data)`, which returns the octets to pass on, `done`, `rest` (the octets after the
body's end) and `at_boundary()`: whether a piece in the sender's framing could follow here.
"""

from typing import ClassVar, TypeAlias

from relay.wire.chunked import ChunkReader, ChunkScanner


class Sized:
    """A body of a given length in octets."""

    __slots__ = ("done", "left", "rest")

    single: ClassVar[bool] = False  # see ChunkScanner

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return those of them that belong to the body."""
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
        """Only at the end, as the length is fixed."""
        return self.done


class UntilClose:
    """A body that ends with the connection, whose owner then sets `done`."""

    __slots__ = ("done", "rest")

    single: ClassVar[bool] = False  # see ChunkScanner

    def __init__(self) -> None:
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; all of them belong to the body."""
        return data

    def at_boundary(self) -> bool:
        """Anywhere: there is no framing."""
        return True


Extent: TypeAlias = Sized | UntilClose | ChunkScanner | ChunkReader

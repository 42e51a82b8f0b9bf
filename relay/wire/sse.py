"""Splits a stream of octets into server-sent events (WHATWG HTML §9.2.6)."""

from typing import Final, NamedTuple

MAX_EVENT: Final = 1024 * 1024  # octets

# Octets are looked for as integers, and longer text with `find`: of bytes, `in` raises and discards
# a TypeError before it searches, which costs as much as all else that is done for an event.
_LINE_FEED: Final = 0x0A
_CARRIAGE_RETURN: Final = 0x0D
_NAME_AT: Final = len(b"event: ")


class Event(NamedTuple):
    """One event; `name` is empty if there was no `event:` line."""

    name: bytes
    data: bytes


class EventReader:
    """Octets in, complete events out, at any split. Skips events over MAX_EVENT octets.

    An octet is looked at once: a part of an event that waits for its end is not searched again.
    """

    __slots__ = ("_after_cr", "_part", "_skipping")

    def __init__(self) -> None:
        self._part = bytearray()  # of an event, each line ending in LF
        self._after_cr = False  # the last octet; an LF that follows belongs to the same line end
        self._skipping = False

    @property
    def pending(self) -> bool:
        """Whether part of an event has arrived, without its end."""
        return self._skipping or bool(self._part.strip(b"\n"))

    @property
    def incomplete(self) -> bytes:
        """The part of an event that has arrived without its end; empty if it is skipped."""
        return b"" if self._skipping else bytes(self._part.lstrip(b"\n"))

    def feed(self, data: bytes) -> list[Event]:
        """Take the next octets; return the events they complete."""
        if self._after_cr or _CARRIAGE_RETURN in data:
            data = self._with_line_feeds(data)
        part = self._part
        if part:
            if data.find(b"\n\n") < 0 and (data[:1] != b"\n" or part[-1] != _LINE_FEED):
                self._keep(data)
                return []
            data = bytes(part) + data
            part.clear()
        blocks = data.split(b"\n\n")
        rest = blocks.pop()
        if self._skipping and blocks:
            self._skipping = False
            del blocks[0]
        events = [event for block in blocks if (event := _event(block)) is not None]
        if rest:
            self._keep(rest)
        return events

    def _keep(self, rest: bytes) -> None:
        part = self._part
        part += rest
        if self._skipping or len(part) > MAX_EVENT:
            self._skipping = True
            del part[:-1]  # it may be the first octet of the event's end

    def _with_line_feeds(self, data: bytes) -> bytes:
        """LF for every line end; CR LF and CR are valid, too."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _event(block: bytes) -> Event | None:
    """Parse one block between empty lines; None if it has no data, as a comment."""
    head, found, rest = block.partition(b"\ndata: ")
    if found and head.startswith(b"event: ") and _LINE_FEED not in head and _LINE_FEED not in rest:
        return Event(head[_NAME_AT:], rest)  # as nearly all are
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(name, b"\n".join(data)) if data else None

"""Splits a stream of octets into server-sent events (WHATWG HTML §9.2.6)."""

import re
from typing import Final, NamedTuple

_BOUNDARY: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_EOL: Final = re.compile(rb"\r\n|\n|\r")
MAX_EVENT: Final = 1024 * 1024  # octets


class Event(NamedTuple):
    """One event; `name` is empty if there was no `event:` line."""

    name: bytes
    data: bytes


class EventReader:
    """Octets in, complete events out, at any split. Skips events over MAX_EVENT octets."""

    __slots__ = ("_buffer", "_skipping")

    def __init__(self) -> None:
        self._buffer = b""
        self._skipping = False

    @property
    def pending(self) -> bool:
        """Whether part of an event has arrived, without its end."""
        return self._skipping or bool(self._buffer.strip(b"\r\n"))

    @property
    def incomplete(self) -> bytes:
        """The part of an event that has arrived without its end; empty if it is skipped."""
        return b"" if self._skipping else self._buffer.lstrip(b"\r\n")

    def feed(self, data: bytes) -> list[Event]:
        """Take the next octets; return the events they complete."""
        buffer = self._buffer + data if self._buffer else data
        events: list[Event] = []
        start = 0
        searched = max(0, len(self._buffer) - 3)
        for match in _BOUNDARY.finditer(buffer, searched):
            block = buffer[start : match.start()]
            start = match.end()
            if self._skipping:
                self._skipping = False
            elif (event := _event(block)) is not None:
                events.append(event)
        self._buffer = buffer[start:]
        if len(self._buffer) > MAX_EVENT:
            self._skipping = True
            self._buffer = self._buffer[-3:]
        return events


def _event(block: bytes) -> Event | None:
    """Parse one block between empty lines; None if it has no data, as a comment."""
    name = b""
    data: list[bytes] = []
    for line in _EOL.split(block):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(name, b"\n".join(data)) if data else None

"""The octets between a worker and the owner, for requests that the owner answers.

A frame has a kind and a payload. The payload of a body is handed on in the parts that it comes in;
any other is collected, within a limit. Decides the form of frames. Must not know sockets.
"""

import struct
from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from relay.errors import Kind, RelayError

# From a worker:
REQUEST: Final = 1  # a `RequestHead`
CALL: Final = 2  # the name of a function of the owner; its values follow, each a BODY
BODY: Final = 3
BODY_END: Final = 4
BODY_FAILED: Final = 5  # a `Refusal`: the caller's body is too long, too slow or broken
# From the owner:
BODY_WANTED: Final = 16  # `BodyWanted`
RESPOND: Final = 17  # a complete answer
RESPOND_HEAD: Final = 18  # a complete answer to HEAD
BEGIN: Final = 19
DATA: Final = 20  # of an answer, or one value of a call's result
END: Final = 21
CLOSE: Final = 22  # the answer is cut behind what was sent
CUT: Final = 23  # the same, seen by callers of HTTP/1.0, too
FAILED: Final = 24  # of a call

_IN_PARTS: Final = frozenset({BODY, DATA})
_FRAME: Final = struct.Struct("<IB")  # octets of the payload, kind
_ANSWER: Final = struct.Struct("<Hq")  # status, length of the body
_RESPONSE: Final = struct.Struct("<HI")  # status, octets of the field lines
_MAX_COLLECTED_OCTETS: Final = 4 * 1024 * 1024  # of a frame that is no body


class RequestHead(msgspec.Struct, array_like=True, frozen=True):
    """A caller's request, and what the worker knows of the caller.

    The fields up to `http11` are those of `wire.events.Request`. `arrived` is monotonic time in
    seconds, which all processes share. `early` is a short body that came with the head.
    """

    method: bytes
    target: bytes
    path: bytes
    headers: dict[bytes, bytes]
    length: int
    http11: bool
    id: bytes
    peer: str
    is_secure: bool
    arrived: float
    early: bytes


class BodyWanted(msgspec.Struct, array_like=True, frozen=True):
    """The owner's endpoint awaits the body: at most `limit` octets, in memory for `owner`."""

    limit: int
    owner: str


class Refusal(msgspec.Struct, array_like=True, frozen=True):
    """A `RelayError` by value: its kind, message and header fields."""

    status: int
    messages_type: str
    openai_type: str
    code: str | None
    message: str
    headers: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def of(cls, error: RelayError) -> "Refusal":
        """By value."""
        kind = error.kind
        words = (kind.status, kind.messages_type, kind.openai_type, kind.code)
        return cls(*words, error.message, error.headers)

    @property
    def error(self) -> RelayError:
        """The error that it stands for."""
        kind = Kind(self.status, self.messages_type, self.openai_type, self.code)
        return RelayError(kind, self.message, headers=self.headers)


class Receiver(Protocol):
    """Takes what a `FrameReader` finds."""

    def take_frame(self, kind: int, payload: bytes) -> None: ...
    def take_part(self, data: bytes, ends: bool) -> None: ...


class FrameReader:
    """Finds frames in the octets of a connection."""

    __slots__ = ("_left", "_unread")

    def __init__(self) -> None:
        self._unread = b""  # a frame that is not complete
        self._left = 0  # octets of a body's frame that have yet to come

    def feed(self, data: bytes, receiver: Receiver) -> None:
        """Take the next octets.

        Raises:
            ValueError: they are no frames of this kind.
        """
        if self._unread:
            data, self._unread = self._unread + data, b""
        at, end = 0, len(data)
        while at < end:
            if self._left:
                part = data[at : at + self._left]
                at += len(part)
                self._left -= len(part)
                receiver.take_part(part, not self._left)
                continue
            start = at + _FRAME.size
            if start > end:
                break
            length, kind = _FRAME.unpack_from(data, at)
            if kind in _IN_PARTS:
                at, self._left = start, length
                if not length:
                    receiver.take_part(b"", True)
                continue
            if length > _MAX_COLLECTED_OCTETS:
                raise ValueError(f"a frame of kind {kind} has {length} octets")
            if start + length > end:
                break
            at = start + length
            receiver.take_frame(kind, data[start:at])
        self._unread = data[at:]


class Values:
    """The values of a call or of its result: a long one is never in one piece with the others."""

    __slots__ = ("_parts", "complete")

    def __init__(self) -> None:
        self.complete: list[bytes] = []
        self._parts: list[bytes] = []

    def take_part(self, data: bytes, ends: bool) -> None:
        """Take the next octets of a value; `ends`: it is complete."""
        self._parts.append(data)
        if ends:
            self.complete.append(data if len(self._parts) == 1 else b"".join(self._parts))
            self._parts.clear()


def value_frames(kind: int, values: Iterable[bytes]) -> list[bytes]:
    """The octets of a frame for each value, none of which is copied."""
    return [octets for value in values for octets in (_FRAME.pack(len(value), kind), value)]


def frame(kind: int, payload: bytes = b"") -> bytes:
    """A frame."""
    return _FRAME.pack(len(payload), kind) + payload


def frame_head(kind: int, length: int) -> bytes:
    """What goes before a payload of `length` octets."""
    return _FRAME.pack(length, kind)


def answer_head(kind: int, status: int, length: int, fields: bytes) -> bytes:
    """A frame of BEGIN or RESPOND_HEAD. `length` is as in wire.events."""
    return frame(kind, _ANSWER.pack(status, length) + fields)


def read_answer_head(payload: bytes) -> tuple[int, int, bytes]:
    """Status, length and field lines."""
    status, length = _ANSWER.unpack_from(payload)
    return status, length, payload[_ANSWER.size :]


def response(status: int, fields: bytes, body: bytes) -> bytes:
    """A frame of RESPOND."""
    return frame(RESPOND, _RESPONSE.pack(status, len(fields)) + fields + body)


def read_response(payload: bytes) -> tuple[int, bytes, bytes]:
    """Status, field lines and body."""
    status, length = _RESPONSE.unpack_from(payload)
    start = _RESPONSE.size + length
    return status, payload[_RESPONSE.size : start], payload[start:]

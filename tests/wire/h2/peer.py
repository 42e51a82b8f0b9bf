"""A client of the engine, made of hyperframe and hpack, and a server that answers its requests."""

from collections.abc import Iterable
from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from relay.wire.events import Limits
from relay.wire.h2.connection import Http2Engine
from relay.wire.h2.events import BODY, REFUSED, REQUEST, RESET, StreamEvent
from relay.wire.h2.frames import PREFACE
from relay.wire.h2.response_head import status_field
from relay.wire.h2.stream import Stream
from tests.fakes.http2 import get

GET = get("/")
POST = [(":method", "POST"), *GET[1:]]
ANSWER = b"hello"

Fields = Iterable[tuple[str, str]]


def parsed(octets: bytes) -> list[Frame]:
    """The frames of these octets."""
    frames = []
    while octets:
        frame, length = Frame.parse_frame_header(memoryview(octets[:9]))
        frame.parse_body(memoryview(octets[9 : 9 + length]))
        frames.append(frame)
        octets = octets[9 + length :]
    return frames


class Peer:
    """Sends frames to an engine. `serves`: complete requests are answered with `answer` at once."""

    def __init__(self, *, serves: bool = True, answer: bytes = ANSWER) -> None:
        self.engine = Http2Engine(Limits())
        self.serves = serves
        self.answer = answer
        self.now = 0.0
        self.frames: list[Frame] = []  # that the engine has sent
        self.requests: list[Stream] = []
        self.refused: list[StreamEvent] = []
        self.bodies: dict[int, bytes] = {}
        self.resets: list[int] = []
        self._encoder = Encoder()
        self._decoder = Decoder()
        self.heads: dict[int, dict[str, str]] = {}

    def open(self, settings: dict[int, int] | None = None) -> "Peer":
        """Send the preface and settings."""
        self.send(PREFACE + SettingsFrame(settings=settings or {}).serialize())
        return self

    def send(self, *frames: Frame | bytes) -> list[Frame]:
        """Send frames in one piece; returns the frames that answer them."""
        octets = b"".join(one if isinstance(one, bytes) else one.serialize() for one in frames)
        before = len(self.frames)
        events = self.engine.receive(octets, self.now)
        while True:
            self._handle(events)
            if not self.engine.more:
                break
            events = self.engine.receive(b"", self.now)
        self.collect(self.engine.take_output() + self.engine.table.pump(1 << 20))
        return self.frames[before:]

    def collect(self, octets: bytes) -> None:
        """Take octets that the engine, or one of its streams, has made."""
        for frame in parsed(octets):
            self.frames.append(frame)
            if isinstance(frame, HeadersFrame):
                decoded = self._decoder.decode(frame.data)
                self.heads[frame.stream_id] = {str(name): str(value) for name, value in decoded}

    def _handle(self, events: list[StreamEvent]) -> None:
        for event in events:
            stream = event.stream
            if event.kind == REQUEST:
                self.requests.append(stream)
                self.bodies[stream.id] = stream.early
            elif event.kind == BODY:
                self.bodies[stream.id] += event.data
            elif event.kind == RESET:
                self.resets.append(stream.id)
                self.engine.table.release(stream)
            elif event.kind == REFUSED:
                self.refused.append(event)
                self.respond(stream)
            if event.kind in (REQUEST, BODY) and self.serves:
                self.engine.table.credit(stream)
                if stream.received:
                    self.respond(stream)

    def respond(self, stream: Stream) -> None:
        """Answer a request."""
        octets = self.engine.head_prefix()
        is_head = stream.request.method == b"HEAD"
        octets = stream.send_head(octets + status_field(200), end=is_head)
        if not is_head:
            octets += stream.end(self.answer)
        self.engine.table.release(stream)
        self.collect(octets)

    # --- frames -----------------------------------------------------------------------

    def block(self, fields: Fields, *, huffman: bool = True) -> bytes:
        """A header block."""
        return self._encoder.encode(list(fields), huffman=huffman)

    def headers(
        self, stream: int, fields: Fields = GET, *, flags: str = "ES", **more: Any
    ) -> Frame:
        """A HEADERS frame; `flags` are the first letters of END_HEADERS and END_STREAM, and of
        PADDED and PRIORITY (E, S, P, I)."""
        return HeadersFrame(stream, self.block(fields), flags=_flags(flags), **more)

    def continuation(self, stream: int, data: bytes, *, flags: str = "E") -> Frame:
        """A CONTINUATION frame."""
        return ContinuationFrame(stream, data, flags=_flags(flags))

    def data(self, stream: int, data: bytes = b"body", *, flags: str = "S", **more: Any) -> Frame:
        """A DATA frame."""
        return DataFrame(stream, data, flags=_flags(flags), **more)

    # --- what came ----------------------------------------------------------------------

    @property
    def goaway(self) -> int | None:
        """The code of the last GOAWAY, None if there was none."""
        codes = [frame.error_code for frame in self.frames if isinstance(frame, GoAwayFrame)]
        return codes[-1] if codes else None

    @property
    def reset_codes(self) -> dict[int, int]:
        """The codes of the streams that the engine has reset."""
        return {
            frame.stream_id: frame.error_code
            for frame in self.frames
            if isinstance(frame, RstStreamFrame)
        }

    def payload(self, stream: int) -> bytes:
        """The octets of DATA frames on a stream."""
        return b"".join(
            frame.data
            for frame in self.frames
            if isinstance(frame, DataFrame) and frame.stream_id == stream
        )

    def is_answered(self, stream: int) -> bool:
        """Whether a complete answer has come."""
        ended = any(
            "END_STREAM" in frame.flags for frame in self.frames if frame.stream_id == stream
        )
        return ended and self.heads.get(stream, {}).get(":status") == "200"

    def lives(self) -> bool:
        """Whether the connection answers a PING."""
        answers = self.send(PingFrame(opaque_data=b"are-you?"))
        return any(isinstance(one, PingFrame) and "ACK" in one.flags for one in answers)

    def window_updates(self, stream: int) -> list[int]:
        """The increments that the engine has sent for a stream."""
        return [
            frame.window_increment
            for frame in self.frames
            if isinstance(frame, WindowUpdateFrame) and frame.stream_id == stream
        ]


def _flags(letters: str) -> list[str]:
    names = {"E": "END_HEADERS", "S": "END_STREAM", "P": "PADDED", "I": "PRIORITY"}
    return [names[letter] for letter in letters]

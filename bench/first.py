"""The client of the time to the first event: one stream after another on one connection.

Decides which octets are the first event, and whether a stream is complete. Must not know which
proxy answers. The upstream sends a stream in one write, so its own pace is no part of the time.
"""

from time import perf_counter_ns

from bench.loadgen import HEAD_END, OK, JsonLoad, KeepAliveClient, LoadError

_END = b"\r\n0\r\n\r\n"


class FirstClient(KeepAliveClient):
    """A request out, its stream in; records when content was there."""

    __slots__ = ("seen",)

    def __init__(self, load: JsonLoad) -> None:
        super().__init__(load)
        self.seen = 0  # nanoseconds; 0: there was no content yet

    def send(self, due: int = 0) -> None:
        self.seen = 0
        super().send(due)

    def data_received(self, data: bytes) -> None:
        now = perf_counter_ns()
        load = self.load
        stream = self.buffer = self.buffer + data if self.buffer else data
        if not self.seen and load.dialect.first.search(stream):
            self.seen = now
        if not stream.endswith(_END):
            return
        self.buffer = b""
        if not stream.startswith(OK) or not self.seen or load.dialect.last not in stream:
            load.fail(LoadError(f"a stream is wrong: {stream[:600].decode(errors='replace')!r}"))
            self.leave()
            return
        load.completed += 1
        load.answer_bytes += len(stream)
        if not load.answer:
            load.answer = stream
        if load.recording:
            load.latencies.append(self.seen - self.sent)
        if load.saturated:
            self.send()
        else:
            load.idle.append(self)


def stream_text(load: JsonLoad) -> str:
    """The text of the first stream."""
    return load.dialect.stream_text(load.answer.partition(HEAD_END)[2])

"""A load generator that overlooks a wrong answer makes every figure worthless."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest

from bench.dialects import CHAT, MESSAGES, Dialect
from bench.loadgen import JsonLoad, LoadError, quantile
from bench.streams import StreamClient, StreamLoad
from tests.fakes.listening import listening

_MESSAGE = b'{"type":"message","content":[]}'
_JSON = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(_MESSAGE), _MESSAGE)
_SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_EVENTS = [
    b'event: message_start\ndata: {"type":"message_start"}\n\n',
    b'event: content_block_delta\ndata: {"text":"\xc3\xbc"}\n\n',
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
]


def _chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


_BODY = b"".join(map(_chunk, _EVENTS))
_STREAM = _SSE_HEAD + _BODY + b"0\r\n\r\n"


@asynccontextmanager
async def _origin(*pieces: bytes, close: bool = False) -> AsyncIterator[int]:
    """A server that answers every request with these octets; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                if close:
                    break
                await reader.read(4096)
        finally:
            writer.close()

    async with listening(serve) as port:
        yield port


async def _fetch(port: int, dialect: Dialect = MESSAGES) -> JsonLoad:
    load = JsonLoad(port, b"GET / HTTP/1.1\r\n\r\n", dialect)
    try:
        await load.open(1)
    finally:
        load.close()
    return load


async def test_an_answer_in_two_pieces_is_checked_too() -> None:
    head, end, body = _JSON.partition(b"\r\n\r\n")
    async with _origin(head + end, body.replace(b"message", b"mistake")) as port:
        with pytest.raises(LoadError, match="is no message"):
            await _fetch(port)


async def test_an_answer_may_end_with_a_newline() -> None:
    answer = _JSON.replace(b"Length: 31", b"Length: 32") + b"\n"
    async with _origin(answer) as port:
        assert (await _fetch(port)).completed == 1


async def _stream(port: int) -> StreamLoad:
    load = StreamLoad(port, b"GET / HTTP/1.1\r\n\r\n")
    try:
        await load.open(2)
        await load.ended(2.0)
    finally:
        load.close()
    return load


class _Sink(asyncio.Transport):
    """A transport that discards all writes."""

    def write(self, data: object) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


def _fed(pieces: list[bytes], dialect: Dialect = MESSAGES) -> StreamLoad:
    load = StreamLoad(0, b"", dialect)
    load.payloads = []
    client = StreamClient(load)
    client.connection_made(_Sink())
    for piece in pieces:
        client.data_received(piece)
    return load


async def test_a_complete_answer_counts_as_one() -> None:
    async with _origin(_JSON) as port:
        load = await _fetch(port)
    assert (load.completed, load.answer_bytes) == (1, len(_JSON))


async def test_an_answer_in_pieces_counts_as_one() -> None:
    async with _origin(*(_JSON[at : at + 7] for at in range(0, len(_JSON), 7))) as port:
        assert (await _fetch(port)).completed == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (_JSON.replace(b"200 OK", b"429 Too Many Requests"), "429 Too Many Requests"),
        (_JSON.replace(_MESSAGE, _MESSAGE[:-1] + b" "), "no JSON"),
        (_JSON.replace(b'"message"', b'"unknown"'), "no message"),
        (_JSON.replace(b"Content-Length", b"X-Length"), "without content-length"),
        (_JSON + b"x", "does not end where its length says"),
    ],
)
async def test_a_wrong_answer_ends_the_round(answer: bytes, message: str) -> None:
    async with _origin(answer) as port:
        with pytest.raises(LoadError, match=message):
            await _fetch(port)


async def test_a_cut_answer_ends_the_round() -> None:
    async with _origin(_JSON[:-5], close=True) as port:
        with pytest.raises(LoadError, match="closed"):
            await _fetch(port)


async def test_a_complete_stream_is_counted_by_its_events() -> None:
    async with _origin(_STREAM) as port:
        load = await _stream(port)
    assert (load.completed, load.live, load.counts) == (2, 0, [3, 3])


async def test_a_cut_stream_ends_the_round() -> None:
    async with _origin(_SSE_HEAD + _BODY, close=True) as port:
        with pytest.raises(LoadError, match="cut after 3 events"):
            await _stream(port)


@pytest.mark.parametrize("size", range(1, 80))
def test_the_split_of_reads_does_not_change_the_count_of_events(size: int) -> None:
    load = _fed([_STREAM[at : at + size] for at in range(0, len(_STREAM), size)])
    assert (load.failure, load.completed, load.events) == (None, 1, 3)


@pytest.mark.parametrize("size", range(1, 80))
def test_chunk_boundaries_do_not_change_the_count_of_events(size: int) -> None:
    body = b"".join(_EVENTS)
    chunks = [_chunk(body[at : at + size]) for at in range(0, len(body), size)]
    load = _fed([_SSE_HEAD, *chunks, b"0\r\n\r\n"])
    assert (load.failure, load.completed, load.events) == (None, 1, 3)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (_SSE_HEAD + _chunk(_EVENTS[0]) + b"0\r\n\r\n", "without message_stop"),
        (_STREAM + b"x", "after the end"),
        (_SSE_HEAD + b"5\r\nevent: \r\n", "does not end where its size says"),
        (_SSE_HEAD.replace(b"200 OK", b"503 Busy") + _BODY, "503 Busy"),
        (_SSE_HEAD.replace(b"chunked", b"identity") + _BODY, "not chunked"),
    ],
)
def test_a_wrong_stream_ends_the_round(answer: bytes, message: str) -> None:
    failure = _fed([answer]).failure
    assert failure is not None
    assert message in str(failure)


@pytest.mark.parametrize("dialect", [MESSAGES, CHAT])
@pytest.mark.parametrize("stream", [True, False])
def test_a_request_declares_the_length_of_its_body(dialect: Dialect, stream: bool) -> None:
    asked = dialect.request(1, "key", "tokens=1", stream=stream)
    head, _, body = asked.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert 300 <= len(body) <= 700
    assert orjson.loads(body)["stream"] is stream


def _chunk_of(delta: str) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{%b}}]}\n\n' % delta.encode()


_CHAT_EVENTS = [
    _chunk_of('"role":"assistant","content":""'),
    _chunk_of('"content":"Gr"'),
    _chunk_of('"content":"ü\\n"'),
    b": keep-alive\n\n",
    _chunk_of(""),
    b'data: {"choices":[],"usage":{}}\n\n',
    b"data: [DONE]\n\n",
]


@pytest.mark.parametrize("size", [1, 7, 33, 64, 100, 10_000])
def test_a_chat_stream_is_counted_and_read_at_every_split(size: int) -> None:
    body = b"".join(_CHAT_EVENTS)
    chunks = [_chunk(body[at : at + size]) for at in range(0, len(body), size)]
    load = _fed([_SSE_HEAD, *chunks, b"0\r\n\r\n"], CHAT)
    assert (load.failure, load.completed, load.events) == (None, 1, 7)
    assert load.text() == "Grü\n"


def test_the_role_is_not_the_first_content_of_a_chat_stream() -> None:
    assert not _fed([_SSE_HEAD, _chunk(_CHAT_EVENTS[0])], CHAT).first_content
    assert len(_fed([_SSE_HEAD, *map(_chunk, _CHAT_EVENTS[:2])], CHAT).first_content) == 1


def test_a_chat_stream_without_its_end_ends_the_round() -> None:
    failure = _fed([_SSE_HEAD, *map(_chunk, _CHAT_EVENTS[:-1]), b"0\r\n\r\n"], CHAT).failure
    assert "without [DONE]" in str(failure)


def test_an_error_in_a_chat_stream_is_no_text() -> None:
    events = [_CHAT_EVENTS[1], b'data: {"error":{"message":"Overloaded"}}\n\n', _CHAT_EVENTS[-1]]
    load = _fed([_SSE_HEAD, *map(_chunk, events), b"0\r\n\r\n"], CHAT)
    with pytest.raises(LoadError, match="Overloaded"):
        load.text()


def _answer(document: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(document), document)


async def test_a_chat_completion_is_read() -> None:
    document = b'{"object":"chat.completion","choices":[{"message":{"content":"hi"}}]}'
    async with _origin(_answer(document)) as port:
        assert (await _fetch(port, CHAT)).text == "hi"


@pytest.mark.parametrize(
    ("document", "message"),
    [(_MESSAGE, "no chat.completion"), (b'{"object":"chat.completion"}', "no content")],
)
async def test_an_answer_of_another_dialect_ends_the_round(document: bytes, message: str) -> None:
    async with _origin(_answer(document)) as port:
        with pytest.raises(LoadError, match=message):
            await _fetch(port, CHAT)


def test_quantiles_of_few_samples_are_samples() -> None:
    assert quantile([], 0.5) == 0
    assert quantile([3], 0.99) == 3
    assert quantile([4, 1, 3, 2], 0.5) == 3

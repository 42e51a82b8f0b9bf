"""Header compression, held to the `hpack` library in both directions."""

import pytest
from hpack import Decoder, Encoder, NeverIndexedHeaderTuple
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from relay.wire.h2 import hpack as ours
from relay.wire.h2.hpack import CompressionError, HeaderBombError, HeaderDecoder
from relay.wire.h2.huffman import HuffmanError, decode
from relay.wire.h2.response_head import fields_block, length_field, status_field

_huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)

names = st.sampled_from(
    ["accept", "x-api-key", "authorization", "cookie", ":path", "content-length", "x-one", "x-two"]
)
values = st.text(st.characters(max_codepoint=127), max_size=300)
blocks = st.lists(st.lists(st.tuples(names, values), max_size=8), max_size=8)


def decoded(decoder: HeaderDecoder, block: bytes) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value, *_ in decoder.decode(block)]


@given(st.binary(max_size=200))
def test_huffman_strings_are_read_as_written(text: bytes) -> None:
    assert decode(_huffman.encode(text)) == text


@given(st.binary(max_size=40))
def test_any_octets_are_a_huffman_string_or_an_error(octets: bytes) -> None:
    try:
        text = decode(octets)
    except HuffmanError:
        return
    assert _huffman.encode(text) == octets


@pytest.mark.parametrize("octets", [b"\xff\xff\xff\xff\xff", b"\x3f\xff\xff\xff\xff"])
def test_eos_within_a_huffman_string_is_an_error(octets: bytes) -> None:
    with pytest.raises(HuffmanError):
        decode(octets)


@given(blocks, st.booleans(), st.booleans())
def test_blocks_are_read_as_written(
    written: list[list[tuple[str, str]]], huffman: bool, sensitive: bool
) -> None:
    encoder, decoder = Encoder(), HeaderDecoder(1 << 20)
    for number, fields in enumerate(written):
        if number == 3:
            encoder.header_table_size = 100
        if number == 5:
            encoder.header_table_size = 4096
        sent = [NeverIndexedHeaderTuple(*field) if sensitive else field for field in fields]
        block = encoder.encode(sent, huffman=huffman)
        expected = [(name.encode(), value.encode()) for name, value in fields]
        assert decoded(decoder, block) == expected


@given(st.binary(max_size=60))
def test_any_octets_are_a_block_or_an_error(octets: bytes) -> None:
    decoder = HeaderDecoder(1 << 16)
    try:
        fields = decoded(decoder, octets)
    except CompressionError:
        return
    library = Decoder()
    library.max_allowed_table_size = 4096
    try:
        theirs = library.decode(octets, raw=True)
    except Exception:  # it is stricter about table sizes, and laxer elsewhere
        return
    assert [(bytes(name), bytes(value)) for name, value in theirs] == fields


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"\xff", id="an index cut off"),
        pytest.param(b"\xff\xff\xff\xff\xff\xff\x01", id="an index of too many octets"),
        pytest.param(b"\xff\xff\xff\xff\x7f", id="an index that is too large"),
        pytest.param(b"\xbe", id="an empty table"),
        pytest.param(b"\x7e\x01a", id="a name of an empty table"),
        pytest.param(b"\x00", id="a name cut off"),
        pytest.param(b"\x00\x05ab", id="a name longer than the block"),
        pytest.param(b"\x00\x7f", id="a length cut off"),
        pytest.param(b"\x00\x01a", id="no value"),
        pytest.param(b"\x20\x20\x20\x20\x20", id="five size updates"),
        pytest.param(b"\x3f\xff\xff\xff\x7f", id="a huge table"),
        pytest.param(b"\x82\x20", id="a size update behind a field"),
    ],
)
def test_a_broken_block_is_an_error(block: bytes) -> None:
    with pytest.raises(CompressionError):
        HeaderDecoder(1 << 16).decode(block)


def test_an_entry_larger_than_the_table_empties_it() -> None:
    decoder = HeaderDecoder(1 << 16)
    decoder.decode(b"\x40\x01a\x01b")
    assert decoded(decoder, b"\xbe") == [(b"a", b"b")]
    decoder.decode(b"\x40\x01a\x7f\x89\x26" + b"x" * 5000)
    with pytest.raises(CompressionError):
        decoder.decode(b"\xbe")


def test_a_name_may_come_from_the_table() -> None:
    decoder = HeaderDecoder(1 << 16)
    decoder.decode(b"\x40\x01a\x01b")
    assert decoded(decoder, b"\x0f\x2f\x01c\x7e\x01d") == [(b"a", b"c"), (b"a", b"d")]


def test_literals_that_come_again_are_cached_but_no_credential() -> None:
    literal = b"\x00\x06x-once\x0212"
    secret = b"\x1f\x08\x18Bearer sk-llmapi-0123456"
    ours._literals.clear()
    decoder = HeaderDecoder(1 << 16)
    for _ in range(2):
        assert decoded(decoder, literal) == [(b"x-once", b"12")]
        assert decoded(decoder, secret) == [(b"authorization", b"Bearer sk-llmapi-0123456")]
    assert list(ours._literals) == [(b"x-once", b"\x0212")]
    for number in range(2000):
        decoder.decode(b"\x00\x06x-once\x04%04d" % number)
    assert len(ours._literals) <= 1024
    decoder.decode(b"\x00\x06x-long\x7f\xad\x01" + b"x" * 300)
    assert all(len(value) < 300 for _, value in ours._literals)


def test_a_block_that_would_become_too_large_is_a_bomb() -> None:
    decoder = HeaderDecoder(1000)
    decoder.decode(b"\x40\x01a\x7f\x81\x03" + b"x" * 512)
    with pytest.raises(HeaderBombError):
        decoder.decode(b"\xbe\xbe")


lines = st.lists(
    st.tuples(
        st.sampled_from(["content-type", "date", "x-long-name-of-ours", "Retry-After", "server"]),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=400),
    ),
    max_size=10,
)


@given(lines, st.sampled_from([200, 204, 401, 404, 429, 503, 529]), st.integers(0, 1 << 40))
def test_a_response_head_is_read_as_written(
    fields: list[tuple[str, str]], status: int, length: int
) -> None:
    octets = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
    block = status_field(status) + fields_block(octets) + length_field(length)
    expected = [(":status", str(status))]
    expected += [(name.lower(), value) for name, value in fields]
    expected += [("content-length", str(length))]
    for _ in range(2):  # the second time from the cache
        assert [(str(n), str(v)) for n, v in Decoder().decode(block)] == expected


def test_a_long_value_has_a_long_length() -> None:
    block = fields_block(b"location: " + b"x" * 5000 + b"\r\n")
    ((name, value),) = Decoder().decode(block)
    assert (str(name), str(value)) == ("location", "x" * 5000)


def test_fields_of_a_connection_are_left_out() -> None:
    octets = b"connection: close\r\ntransfer-encoding: chunked\r\nkeep-alive: 5\r\n"
    assert fields_block(octets) == b""


def test_the_caches_of_lines_stay_small() -> None:
    from relay.wire.h2 import response_head

    for number in range(1200):
        fields_block(b"x-%d: %d\r\n" % (number, number))
    assert len(response_head._lines) <= 513
    assert len(response_head._names) <= 512
    assert fields_block(b"") == b""
    before = dict(response_head._lines)
    fields_block(b"request-id: req_1\r\nx-padding: " + b"x" * 200 + b"\r\n")
    assert response_head._lines == before

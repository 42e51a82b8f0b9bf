"""A compressed body is decoded exactly, and never beyond its limit."""

import gzip
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import RelayError
from relay.wire.encoding import decoded

LIMIT = 100_000
Encoder = Callable[[bytes], bytes]


def streamed(body: bytes) -> bytes:
    """As Rust's encoders write it: a frame without its size."""
    machine = zstandard.ZstdCompressor().compressobj()
    return machine.compress(body) + machine.flush()


ENCODERS: dict[bytes, Encoder] = {
    b"gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"zstd": zstandard.ZstdCompressor().compress,
}
WAYS = [*ENCODERS.items(), (b"zstd", streamed)]


@given(body=st.binary(max_size=5000), repeated=st.integers(1, 20))
@pytest.mark.parametrize(("name", "encode"), WAYS)
def test_an_encoded_body_is_decoded(
    name: bytes, encode: Encoder, body: bytes, repeated: int
) -> None:
    assert decoded(encode(body * repeated), name, LIMIT) == body * repeated


def test_the_name_may_be_written_in_any_case() -> None:
    assert decoded(gzip.compress(b"{}"), b" GZIP ", LIMIT) == b"{}"
    assert decoded(b"{}", b"identity", LIMIT) == b"{}"


@given(cut=st.integers(1, 40))
@pytest.mark.parametrize(("name", "encode"), WAYS)
def test_a_body_that_was_cut_is_refused(name: bytes, encode: Encoder, cut: int) -> None:
    encoded = encode(b'{"model":"claude-sonnet-4-7","input":"Hello, relay!"}')
    with pytest.raises(RelayError) as refused:
        decoded(encoded[:-cut], name, LIMIT)
    assert refused.value.kind.status == 400


@given(octets=st.binary(max_size=100))
@pytest.mark.parametrize("name", ENCODERS)
def test_arbitrary_octets_end_in_nothing_but_a_refusal(name: bytes, octets: bytes) -> None:
    with pytest.raises(RelayError) as refused:
        decoded(octets, name, LIMIT)
    assert refused.value.kind.status == 400


@pytest.mark.parametrize(("name", "encode"), WAYS)
def test_nothing_may_follow_the_body(name: bytes, encode: Encoder) -> None:
    with pytest.raises(RelayError) as refused:
        decoded(encode(b"{}") + b"x", name, LIMIT)
    assert refused.value.kind.status == 400


def test_nothing_may_follow_a_frame_however_far_it_is() -> None:
    frame = zstandard.ZstdCompressor().compress(b"{}")
    with pytest.raises(RelayError) as refused:
        decoded(frame + bytes(3000), b"zstd", LIMIT)
    assert refused.value.kind.status == 400


@pytest.mark.parametrize(("name", "encode"), WAYS)
def test_a_body_may_have_its_limit_and_not_an_octet_more(name: bytes, encode: Encoder) -> None:
    assert len(decoded(encode(b"a" * LIMIT), name, LIMIT)) == LIMIT
    with pytest.raises(RelayError) as refused:
        decoded(encode(b"a" * (LIMIT + 1)), name, LIMIT)
    assert refused.value.kind.status == 413


@pytest.mark.parametrize("name", ENCODERS)
def test_a_decompression_bomb_is_refused_before_it_inflates(name: bytes) -> None:
    bomb = ENCODERS[name](bytes(1 << 27))
    with pytest.raises(RelayError) as refused:
        decoded(bomb, name, LIMIT)
    assert refused.value.kind.status == 413


def test_an_unknown_encoding_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RelayError) as refused:
        decoded(b"{}", b"br", LIMIT)
    assert refused.value.kind.status == 415
    assert (b"accept-encoding", b"gzip, zstd") in refused.value.headers

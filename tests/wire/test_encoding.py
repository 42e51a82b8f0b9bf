"""A compressed body is decoded exactly, and never beyond its limit."""

import gzip
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import RelayError
from relay.wire.encoding import decoded, decoded_if_small
from tests.fakes.memory import peak_octets

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


@pytest.mark.parametrize(("name", "encode"), WAYS)
@pytest.mark.parametrize("octets", [3000, 600_000])
def test_nothing_may_follow_the_body_however_far_it_is(
    name: bytes, encode: Encoder, octets: int
) -> None:
    with pytest.raises(RelayError) as refused:
        decoded(encode(b"{}") + bytes(octets), name, LIMIT)
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
    assert (b"accept-encoding", b"gzip, deflate, zstd") in refused.value.headers


# --- small bodies ----------------------------------------------------------------------


@given(body=st.binary(max_size=3000), repeated=st.integers(1, 20), size=st.integers(0, 9000))
@pytest.mark.parametrize("name", [*ENCODERS, b" X-GZIP "])
def test_a_small_body_is_decoded_and_a_larger_one_is_not(
    name: bytes, body: bytes, repeated: int, size: int
) -> None:
    body *= repeated
    encoded = ENCODERS.get(name, gzip.compress)(body)
    small = decoded_if_small(encoded, name, size)
    if name == b"zstd" and not body:
        assert small is None
    else:
        assert small == (body if len(body) <= size else None)
    assert small is None or small == decoded(encoded, name, LIMIT)


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        (b"zstd", streamed(b"{}")),  # does not state its size
        (b"zstd", zstandard.compress(b"{}") + b"x"),
        (b"zstd", zstandard.compress(b"{}" * 900)[:-1]),
        (b"zstd", b"no frame"),
        (b"gzip", gzip.compress(b"{}") + b"x"),
        (b"gzip", gzip.compress(b"{}")[:-1]),
        (b"deflate", b"no deflate"),
        (b"br", b"{}"),
        (b"identity", b"{}"),
        (b"", b"{}"),
    ],
    ids=[
        "zstd-without-size", "zstd-and-more", "zstd-cut", "no-zstd", "gzip-and-more", "gzip-cut",
        "no-deflate", "br", "identity", "none",
    ],
)  # fmt: skip
def test_a_body_that_the_other_decoder_judges_is_no_small_one(name: bytes, octets: bytes) -> None:
    assert decoded_if_small(octets, name, 5000) is None


@pytest.mark.parametrize("name", ENCODERS)
def test_a_bomb_is_no_small_body_and_takes_no_memory(name: bytes) -> None:
    bomb = ENCODERS[name](bytes(1 << 27))
    assert decoded_if_small(bomb, name, 5000) is None
    assert peak_octets(lambda: decoded_if_small(bomb, name, 5000)) < 1 << 20


@pytest.mark.parametrize(
    ("name", "compress"), [(b"gzip", gzip.compress), (b"zstd", zstandard.compress)]
)
def test_a_body_may_have_members_but_not_any_number(name: bytes, compress: Encoder) -> None:
    assert decoded(compress(b"ab") * 100, name, 1000) == b"ab" * 100
    with pytest.raises(RelayError):
        decoded(compress(b"ab") * 101, name, 1000)


@pytest.mark.parametrize("name", [b"gzip", b"deflate", b"zstd"])
def test_an_empty_body_is_no_compressed_one(name: bytes) -> None:
    with pytest.raises(RelayError):
        decoded(b"", name, 1000)

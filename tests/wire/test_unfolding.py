"""Compressed bodies of upstreams, at any cut, by their octets and not by their label."""

import gzip
import os
import zlib

import pytest
import zstandard

from relay.errors import RelayError
from relay.wire.body import Sized, UntilClose
from relay.wire.chunked import ChunkReader
from relay.wire.unfolding import Unfolded
from tests.fakes.answers import LAST, chunk

TEXT = b'{"type":"message","content":[]}' * 40
RAW = zlib.compressobj(wbits=-15)
CODED = {
    "gzip": gzip.compress(TEXT),
    "two-gzip-members": gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:]),
    "zlib": zlib.compress(TEXT),
    "raw-deflate": RAW.compress(TEXT) + RAW.flush(),
    "zstd": zstandard.compress(TEXT),
    "identity": TEXT,
}
LABEL = {"zlib": b"deflate", "raw-deflate": b"Deflate "}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize("coding", CODED)
@pytest.mark.parametrize("framing", ["sized", "chunked", "until-close"])
def test_a_body_unfolds_at_any_cut(coding: str, size: int, framing: str) -> None:
    octets = CODED[coding]
    extent: Sized | ChunkReader | UntilClose = Sized(len(octets))
    if framing == "chunked":
        octets, extent = chunk(octets) + LAST, ChunkReader()
    elif framing == "until-close":
        extent = UntilClose()
    unfolded = Unfolded(extent, LABEL.get(coding, b""))
    pieces = [octets[at : at + size] for at in range(0, len(octets), size)]
    assert b"".join(map(unfolded.feed, pieces)) == TEXT
    assert unfolded.done or (framing == "until-close" and unfolded.finished())
    assert unfolded.at_boundary()


def test_octets_after_the_body_are_kept_apart() -> None:
    octets = CODED["gzip"]
    unfolded = Unfolded(Sized(len(octets)), b"gzip")
    assert unfolded.feed(octets + b"HTTP") == TEXT
    assert (unfolded.done, unfolded.rest) == (True, b"HTTP")


@pytest.mark.parametrize("coding", ["gzip", "zlib", "raw-deflate", "zstd"])
@pytest.mark.parametrize("cut", [1, 3, 20])
def test_a_cut_coding_is_an_error(coding: str, cut: int) -> None:
    octets = CODED[coding][:-cut] if cut < 20 else CODED[coding][:3]
    with pytest.raises(RelayError):
        Unfolded(Sized(len(octets)), LABEL.get(coding, b"")).feed(octets)
    unfolded = Unfolded(UntilClose(), LABEL.get(coding, b""))
    unfolded.feed(octets)
    assert not unfolded.finished()


@pytest.mark.parametrize(
    "octets",
    [CODED["gzip"] + b"more", CODED["gzip"][:30] + b"\xff" * 30, CODED["zstd"] + b"more"],
    ids=["after-gzip", "within-gzip", "after-zstd"],
)
def test_a_broken_coding_is_an_error(octets: bytes) -> None:
    with pytest.raises(RelayError, match="broken"):
        Unfolded(Sized(len(octets)), b"").feed(octets)


@pytest.mark.parametrize("coding", ["gzip", "zlib", "raw-deflate", "zstd"])
@pytest.mark.parametrize("more", [b"m", b"more", bytes(3000)], ids=["octet", "word", "far"])
@pytest.mark.parametrize("together", [True, False], ids=["in-one-piece", "in-the-next"])
def test_nothing_may_follow_a_coding(coding: str, more: bytes, together: bool) -> None:
    octets = CODED[coding]
    unfolded = Unfolded(UntilClose(), LABEL.get(coding, b""))
    pieces = [octets + more] if together else [octets, more]
    with pytest.raises(RelayError, match="broken"):
        b"".join(map(unfolded.feed, pieces))


@pytest.mark.parametrize("label", [b"br", b"compress", b""])
def test_an_unknown_coding_is_an_error(label: bytes) -> None:
    with pytest.raises(RelayError, match="not asked for"):
        Unfolded(UntilClose(), label).feed(b"\x8b\x0f\x80{}")


@pytest.mark.parametrize(
    "bomb",
    [gzip.compress(bytes(64 << 20)), zstandard.compress(bytes(64 << 20))],
    ids=["gzip", "zstd"],
)
def test_a_bomb_is_an_error_before_it_unfolds(bomb: bytes) -> None:
    unfolded = Unfolded(UntilClose(), b"")
    with pytest.raises(RelayError, match="too many"):
        unfolded.feed(bomb)


def test_many_pieces_may_unfold_to_more_than_one_may() -> None:
    text = os.urandom(1 << 20) * 5
    octets = gzip.compress(text)
    unfolded = Unfolded(UntilClose(), b"")
    pieces = [octets[at : at + 65536] for at in range(0, len(octets), 65536)]
    assert b"".join(map(unfolded.feed, pieces)) == text

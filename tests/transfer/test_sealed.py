"""The encrypted stream: any damage, cut or exchange of blocks is noticed."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.transfer import TransferError, sealed
from relay.transfer.sealed import MAGIC, SealedReader, SealedWriter

HEAD = len(MAGIC) + 16 + 7


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 64 octets, and a cheap key."""
    monkeypatch.setattr(sealed, "_BLOCK_OCTETS", 64)
    monkeypatch.setitem(sealed._SCRYPT, "n", 2)


def seal(*pieces: bytes) -> bytes:
    file = io.BytesIO()
    writer = SealedWriter(file, "correct horse")
    for piece in pieces:
        writer.write(piece)
    writer.close()
    return file.getvalue()


def unseal(octets: bytes, passphrase: str = "correct horse", size: int = -1) -> bytes:
    file = io.BytesIO(octets)
    assert file.read(len(MAGIC)) == MAGIC
    reader = SealedReader(file, passphrase)
    parts = [reader.read(size)]
    while size >= 0 and parts[-1]:
        parts.append(reader.read(size))
    return b"".join(parts)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 128, 1000])
@pytest.mark.parametrize("size", [-1, 1, 50, 64, 4096])
def test_what_is_written_is_read(length: int, size: int) -> None:
    plain = bytes(index % 251 for index in range(length))
    assert unseal(seal(plain[:10], plain[10:]), size=size) == plain


def test_the_same_octets_are_never_sealed_alike() -> None:
    assert seal(b"same") != seal(b"same")
    assert b"same" not in seal(b"same")


@given(place=st.integers(0, 400), bit=st.integers(0, 7))
def test_a_changed_bit_is_noticed(place: int, bit: int) -> None:
    octets = bytearray(seal(bytes(300)))
    index = len(MAGIC) + place % (len(octets) - len(MAGIC))
    octets[index] ^= 1 << bit
    with pytest.raises(TransferError, match="the passphrase is wrong, or the file is damaged"):
        unseal(bytes(octets))


@pytest.mark.parametrize("blocks", [0, 1, 2, 3, 4])
def test_a_cut_between_blocks_is_noticed(blocks: int) -> None:
    octets = seal(bytes(300))  # of five blocks
    with pytest.raises(TransferError):
        unseal(octets[: HEAD + blocks * 80])


def test_exchanged_and_repeated_blocks_are_noticed() -> None:
    octets = seal(bytes(64), bytes(64), bytes(64))
    head, first, second, third = (
        octets[:HEAD], octets[HEAD:][:80], octets[HEAD + 80 :][:80], octets[HEAD + 160 :]
    )  # fmt: skip
    for blocks in ([second, first, third], [first, first, third], [first, third]):
        with pytest.raises(TransferError):
            unseal(head + b"".join(blocks))


def test_a_wrong_passphrase_is_refused() -> None:
    with pytest.raises(TransferError):
        unseal(seal(b"x"), "wrong horse")

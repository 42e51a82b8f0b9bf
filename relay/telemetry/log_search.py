"""Searches access logs for a request: the present file, rotated ones, compressed ones.

Decides which files belong to a log, and reads them in pieces, the newest first. For commands, not
for a server: it waits for the disk. Must not know what a line means, but for its id.
"""

import bz2
import gzip
import lzma
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import msgspec

_PIECE_OCTETS: Final = 1 << 20
_OPENERS: Final[dict[str, Callable[..., IO[Any]]]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
_SEPARATORS: Final = (".", "-")  # access.log.1, access.log-20260408.gz


class UnreadableLogError(Exception):
    """A file of the log cannot be read; the message is one line for the operator."""


def log_files(path: Path) -> list[Path]:
    """A log's file and its rotated ones, the newest first."""
    try:
        beside = [
            one
            for one in path.parent.iterdir()
            if one.name.startswith(tuple(path.name + mark for mark in _SEPARATORS))
        ]
    except OSError:
        beside = []
    dated = sorted(beside, key=_modified_at, reverse=True)
    return [path, *dated] if path.exists() or not dated else dated


def search(file: Path, prefix: str) -> Iterator[dict[str, Any]]:
    """The lines of a JSON log whose `id` begins with `prefix`.

    Raises:
        UnreadableLogError: the file, or the rest of it, cannot be read.
    """
    opener = _OPENERS.get(file.suffix)
    if opener is None and file.suffix in (".zst", ".lz4", ".Z", ".zip"):
        raise UnreadableLogError(f"{file} is compressed in a way that is not read here; unpack it")
    try:
        with open(file, "rb") if opener is None else opener(file, "rb") as octets:
            yield from search_stream(octets, prefix)
    except (OSError, EOFError, lzma.LZMAError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UnreadableLogError(f"{file} cannot be read ({reason or error})") from None


def search_stream(stream: IO[Any], prefix: str) -> Iterator[dict[str, Any]]:
    """As `search`, in an open binary stream."""
    needle, rest = prefix.encode(), b""
    while piece := stream.read(_PIECE_OCTETS):
        octets = rest + piece
        cut = octets.rfind(b"\n") + 1
        yield from _found(octets[:cut], needle, prefix)
        rest = octets[cut:]
    yield from _found(rest, needle, prefix)


def _found(octets: bytes, needle: bytes, prefix: str) -> Iterator[dict[str, Any]]:
    position = octets.find(needle)
    while position >= 0:
        begin, end = octets.rfind(b"\n", 0, position) + 1, octets.find(b"\n", position)
        end = len(octets) if end < 0 else end
        try:
            line = msgspec.json.decode(octets[begin:end])
        except (msgspec.DecodeError, UnicodeDecodeError):
            line = None
        if isinstance(line, dict) and str(line.get("id", "")).startswith(prefix):
            yield line
        position = octets.find(needle, end)


def _modified_at(file: Path) -> float:
    try:
        return os.stat(file).st_mtime
    except OSError:
        return 0.0

"""Feeds octets to a reader in any pieces and returns the result.

A stream may be cut anywhere, so every promise about reading is checked in one piece, octet by
octet and at random splits; the results must not differ.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from relay.errors import RelayError
from relay.wire.body import Extent
from relay.wire.events import Limits
from relay.wire.h1 import HeadReader

MakeReader = Callable[[Limits], HeadReader[Any]]


class Refused(NamedTuple):
    """The reader refused the octets."""

    status: int
    message: str


class Waits(NamedTuple):
    """The reader needs more; `octets` were fed since it last returned a head."""

    octets: int


class Read(NamedTuple):
    """A complete message was read; `rest` is all that was fed after its end."""

    what: Any
    rest: bytes


def octet_by_octet(octets: bytes) -> list[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]


def split_at(octets: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The pieces between cuts, wherever those fall (also empty pieces)."""
    edges = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    return [octets[begin:end] for begin, end in itertools.pairwise(edges)]


def feedings(octets: bytes, splits: int = 4) -> Iterator[list[bytes]]:
    """In one piece, octet by octet, and cut at random (with the same seed on every run)."""
    yield [octets]
    if len(octets) <= 2048:
        yield octet_by_octet(octets)
    else:  # a long one: single octets where a head's limits lie, larger pieces between
        yield split_at(octets, [*range(64), *range(8100, 8300), *range(32600, 32900)])
    chance = random.Random(octets)
    for _ in range(splits):
        cuts = [chance.randrange(len(octets) + 1) for _ in range(chance.randrange(1, 6))]
        yield split_at(octets, cuts)


def heads(reader: HeadReader[Any], pieces: Iterable[bytes]) -> list[Any]:
    """All results of reading a stream of heads; a Refused or Waits comes last."""
    results: list[Any] = []
    fed = 0
    for piece in pieces:
        more = piece
        while True:
            try:
                found = reader.feed(more)
            except RelayError as error:
                return [*results, Refused(error.kind.status, error.message)]
            if found is None:
                fed += len(more)
                break
            results.append(found[0])
            fed = 0
            more = found[1]
            if not more:
                break
    return [*results, Waits(fed)]


def first_head(reader: HeadReader[Any], pieces: list[bytes]) -> Read | Refused | Waits:
    """The result of reading the head that `pieces` begin with."""
    for at, piece in enumerate(pieces):
        try:
            found = reader.feed(piece)
        except RelayError as error:
            return Refused(error.kind.status, error.message)
        if found is not None:
            return Read(found[0], found[1] + b"".join(pieces[at + 1 :]))
    return Waits(sum(map(len, pieces)))


def body(make: Callable[[], Extent], pieces: list[bytes]) -> tuple[bytes, Read | Refused | Waits]:
    """The octets that an extent passes on, and how it ends; `Read.what` has them too."""
    extent = make()
    passed = b""
    for at, piece in enumerate(pieces):
        try:
            passed += extent.feed(piece)
        except RelayError as error:
            return passed, Refused(error.kind.status, error.message)
        if extent.done:
            return passed, Read(passed, extent.rest + b"".join(pieces[at + 1 :]))
    return passed, Waits(sum(map(len, pieces)))

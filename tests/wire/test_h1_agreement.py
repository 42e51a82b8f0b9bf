"""Both readers of heads agree: a head that the canonical one reads, the legal one reads alike.

The canonical reader may return None for any head. A head that it does read must give the
same request or response in the legal reader, which has h11 behind it. Each head is read
twice, since cached field lines take another path.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given

from relay.wire import h1, h1_legal
from relay.wire.events import Request, Response

from .generated import REQUEST_LINES, STATUS_LINES, chance_head, heads

Reader = Callable[[bytes], Any]
CASES = 6_000
_REQUESTS = (h1.read_request, h1_legal.read_request, REQUEST_LINES)
_RESPONSES = (h1.read_response, h1_legal.read_response, STATUS_LINES)


def agree(head: bytes, canonical: Reader, legal: Reader) -> bool:
    """Whether the canonical reader took the head. Raises if the readers disagree."""
    first = canonical(head)
    again = canonical(head)
    assert first == again, "a head reads differently once its lines are cached"
    if first is None:
        return False
    assert _plain(first) == _plain(legal(head))
    return True


def _plain(head: Request | Response) -> dict[str, object]:
    """The head's parts, with one blank after each onward colon, where the readers may differ."""
    lines = []
    for line in head.onward.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        lines.append(name + b": " + value.strip(b" \t") + b"\r\n")
    parts = {name: getattr(head, name) for name in dir(head) if not name.startswith("_")}
    return {**parts, "onward": b"".join(lines)}


@example(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nClose: x\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost:a\r\n\r\n")
@given(heads(REQUEST_LINES))
def test_both_readers_agree_on_a_canonical_request(
    head: bytes,
) -> None:
    agree(head, h1.read_request, h1_legal.read_request)


@example(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
@example(b"HTTP/1.1 200 \r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
@given(heads(STATUS_LINES))
def test_both_readers_agree_on_a_canonical_response(
    head: bytes,
) -> None:
    agree(head, h1.read_response, h1_legal.read_response)


@pytest.mark.parametrize(
    ("canonical", "legal", "lines"), [_REQUESTS, _RESPONSES], ids=["requests", "responses"]
)
def test_the_readers_agree_on_thousands_of_chance_heads(
    canonical: Reader, legal: Reader, lines: tuple[bytes, ...]
) -> None:
    taken = 0
    for seed in range(CASES):
        head = chance_head(random.Random(seed), lines)
        try:
            taken += agree(head, canonical, legal)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {head!r}") from error
    assert taken > CASES / 20, "the generator makes too few canonical heads"

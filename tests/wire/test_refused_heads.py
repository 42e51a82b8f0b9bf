"""What can be read of octets that are no request: enough for an error in the caller's shape."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire.h1 import read_refused


@pytest.mark.parametrize(
    ("octets", "method", "path", "headers"),
    [
        (
            b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nOrigin: https://b\r\nbad line\r\n",
            b"POST",
            b"/v1/messages",
            {b"origin": b"https://b"},
        ),
        (b"GET /v1/models?x=1 HTTP/9\r\n\r\n", b"GET", b"/v1/models", {}),
        (b"\x16\x03\x01\x02\x00", b"", b"", {}),
        (b"", b"", b"", {}),
    ],
)
def test_a_refused_head_is_read_as_far_as_it_goes(
    octets: bytes, method: bytes, path: bytes, headers: dict[bytes, bytes]
) -> None:
    request = read_refused(octets)
    assert (request.method, request.path) == (method, path)
    assert headers.items() <= request.headers.items()
    assert request.length == 0


@given(st.binary(max_size=400))
def test_any_octets_can_be_refused(octets: bytes) -> None:
    request = read_refused(octets)
    assert len(request.method) + len(request.path) <= len(octets)

"""The PROXY protocol's header, version 2."""

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire import proxy_protocol as pp

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = bytes([192, 0, 2, 1, 10, 0, 0, 1]) + b"\xc0\x00\x01\xbb"
V6 = ipaddress.ip_address("2001:db8::1").packed * 2 + b"\xc0\x00\x01\xbb"


def header(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(rest).to_bytes(2, "big") + rest


def read(data: bytes) -> str | None:
    head, rest = data[: pp.HEADER_OCTETS], data[pp.HEADER_OCTETS :]
    assert pp.rest_octets(head) == len(rest)
    return pp.source_address(head, rest)


@pytest.mark.parametrize(
    ("command", "family", "rest", "source"),
    [
        (0x21, 0x11, V4, "192.0.2.1"),
        (0x21, 0x21, V6, "2001:db8::1"),
        (0x21, 0x11, V4 + b"\x04\x00\x03abc\x03\x00\x04crc!", "192.0.2.1"),
        (0x21, 0x31, b"/run/a.sock".ljust(108, b"\0") * 2, None),
        (0x21, 0x00, b"", None),
        (0x20, 0x00, b"", None),
        (0x20, 0x11, V4, None),  # the addresses of a check are skipped
        (0x20, 0x99, b"anything", None),
    ],
)
def test_a_header_names_its_source(
    command: int, family: int, rest: bytes, source: str | None
) -> None:
    assert read(header(command, family, rest)) == source


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PROXY TCP4 192.0", "no PROXY header of version 2"),
        (b"GET / HTTP/1.1\r\n", "no PROXY header"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcde", "no PROXY header"),
        (header(0x11, 0x11, V4), "version and command 0x11"),
        (header(0x22, 0x11, V4), "version and command 0x22"),
        (header(0x21, 0x12, V4), "family and transport 0x12"),
        (header(0x21, 0x41, V4), "family and transport 0x41"),
        (header(0x21, 0x11, V4[:-1]), "too few"),
        (header(0x21, 0x21, V4), "too few"),
        (header(0x21, 0x31, V6), "too few"),
        (header(0x21, 0x11, V4 + bytes(2037)), "2049 octets"),
        (header(0x21, 0x11, V4 + b"\x04\x00"), "without its length"),
        (header(0x21, 0x11, V4 + b"\x04\x00\x04abc"), "beyond the header's end"),
    ],
)
def test_a_header_that_is_none_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(data)


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=64))
def test_octets_of_any_kind_are_read_or_refused(tail: bytes, rest: bytes) -> None:
    for head in (tail, SIGNATURE + tail[:4], SIGNATURE + b"\x21\x11" + tail[:2]):
        with contextlib.suppress(ValueError):
            length = pp.rest_octets(head)
            assert length <= pp.MAX_REST_OCTETS
            source = pp.source_address(head, rest[:length].ljust(length, b"\0"))
            assert source is None or ipaddress.ip_address(source)


@given(st.ip_addresses(), st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40))))
def test_every_address_comes_back_with_any_extensions(
    source: ipaddress.IPv4Address | ipaddress.IPv6Address, extensions: list[tuple[int, bytes]]
) -> None:
    rest = source.packed * 2 + bytes(4)
    for kind, value in extensions[:20]:
        rest += bytes([kind]) + len(value).to_bytes(2, "big") + value
    family = 0x11 if source.version == 4 else 0x21
    assert read(header(0x21, family, rest)) == str(source)

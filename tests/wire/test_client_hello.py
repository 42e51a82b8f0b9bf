"""The ClientHello of real clients, and of octets that are none."""

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire.client_hello import MAX_OCTETS, ClientHello, client_hello, record_octets


def hello_of(name: str | None, protocols: list[str]) -> bytes:
    """The first octets that OpenSSL sends."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(protocols)
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    ("name", "protocols"),
    [
        ("relay.example", ["acme-tls/1"]),
        ("Relay.Example", ["h2", "http/1.1"]),
        ("relay.example", []),
        (None, []),
    ],
)
def test_name_and_protocols_of_openssl_are_read(name: str | None, protocols: list[str]) -> None:
    data = hello_of(name, protocols)
    assert record_octets(data[:5]) == len(data)
    expected = ClientHello((name or "").lower(), tuple(one.encode() for one in protocols))
    assert client_hello(data) == expected


def test_a_hello_without_extensions_is_read() -> None:
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    assert client_hello(b"\x16\x03\x01\x00\x00" + message) == ClientHello("", ())


def test_a_name_of_another_kind_is_no_host_name() -> None:
    names = b"\x00\x04" + b"\x01\x00\x01a"
    extension = b"\x00\x00" + len(names).to_bytes(2, "big") + names
    extensions = len(extension).to_bytes(2, "big") + extension
    body = b"\x03\x03" + bytes(32) + b"\x00\x00\x00\x00" + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    assert client_hello(b"\x16\x03\x01\x00\x00" + message) == ClientHello("", ())


@pytest.mark.parametrize(
    "data", [b"GET /", b"\x17\x03\x03\x00\x01", b"\x16\x02\x00\x00\x10", b"\x16\x03\x01\xff\xff"]
)
def test_octets_of_no_handshake_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no TLS handshake|too long"):
        record_octets(data)


def test_every_cut_of_a_hello_is_refused() -> None:
    data = hello_of("relay.example", ["acme-tls/1"])
    for end in range(5, len(data)):
        with pytest.raises(ValueError, match="ends early"):
            client_hello(data[:end])
    with pytest.raises(ValueError, match="no ClientHello"):
        client_hello(data[:5] + b"\x02" + data[6:])


@given(st.data())
def test_a_hello_with_changed_octets_is_read_or_refused(draw: st.DataObject) -> None:
    data = bytearray(hello_of("relay.example", ["acme-tls/1"]))
    for _ in range(draw.draw(st.integers(1, 8))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        assert record_octets(bytes(data[:5])) <= MAX_OCTETS
        client_hello(bytes(data))

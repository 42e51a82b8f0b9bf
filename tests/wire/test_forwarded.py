"""The caller behind trusted proxies."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire.forwarded import TrustedProxies

PROXIES = TrustedProxies(
    [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "2001:db8::/32", "127.0.0.1/32")]
)


def caller(field: bytes | None) -> str:
    headers = {} if field is None else {b"x-forwarded-for": field}
    return PROXIES.caller("10.0.0.1", headers)


@pytest.mark.parametrize(
    ("field", "found"),
    [
        (None, "10.0.0.1"),
        (b"", "10.0.0.1"),
        (b"192.0.2.1", "192.0.2.1"),
        (b"8.8.8.8, 192.0.2.1", "192.0.2.1"),  # the left one is the caller's own invention
        (b"8.8.8.8,192.0.2.1 ,\t10.9.9.9", "192.0.2.1"),
        (b"192.0.2.1, 10.0.0.3, 2001:db8::5, 127.0.0.1", "192.0.2.1"),
        (b"10.0.0.3, 10.0.0.2", "10.0.0.3"),  # a caller within the network
        (b"192.0.2.1:4711", "192.0.2.1"),
        (b"[2001:db9::1]:443", "2001:db9::1"),
        (b"2001:DB9::1", "2001:db9::1"),
        (b"::ffff:192.0.2.1", "192.0.2.1"),
        (b"192.0.2.1, ::ffff:10.0.0.7", "192.0.2.1"),
        (b"192.0.2.1, unknown", "10.0.0.1"),
        (b"192.0.2.1, unknown, 10.0.0.9", "10.0.0.9"),
        (b"fe80::1%eth0", "10.0.0.1"),
        (b"'; drop table", "10.0.0.1"),
        (b"\xff\xfe", "10.0.0.1"),
        (b"1.2.3.4:99x", "10.0.0.1"),
        (b",".join([b"192.0.2.1"] + [b"10.0.0.2"] * 40), "10.0.0.2"),  # 32 in a row at most
    ],
)
def test_the_rightmost_untrusted_address_is_the_caller(field: bytes | None, found: str) -> None:
    assert caller(field) == found


@pytest.mark.parametrize(
    ("peer", "is_trusted"),
    [
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("2001:db8:1::1", True),
        ("::ffff:10.0.0.1", True),
        ("unix", False),
        ("", False),
    ],
)
def test_only_peers_of_the_networks_are_trusted(peer: str, is_trusted: bool) -> None:
    assert PROXIES.trusts(peer) is is_trusted


def test_unix_sockets_are_trusted_where_they_are_named() -> None:
    assert TrustedProxies([], unix=True).trusts("unix")


@given(st.binary(max_size=200))
def test_any_field_gives_an_address(field: bytes) -> None:
    assert ipaddress.ip_address(caller(field))


@given(st.binary(max_size=100), st.ip_addresses(v=4))
def test_a_caller_cannot_choose_its_address(invented: bytes, real: ipaddress.IPv4Address) -> None:
    """The proxy appends the address that it was called from."""
    if not PROXIES.trusts(str(real)):
        assert caller(invented + b", " + str(real).encode()) == str(real)

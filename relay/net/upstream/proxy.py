"""A socket to an upstream through an egress proxy.

Decides how a tunnel is requested and how a proxy's refusal is reported. python-socks implements
SOCKS5; CONNECT is implemented here, because the proxy's answer may come in pieces and none of it
may stay in the tunnel. Must not know TLS to the upstream, HTTP in the tunnel, time limits or
environment variables. No text made here contains a user or a password.
"""

import asyncio
import os
import re
import socket
from base64 import b64encode
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, cast

from relay.config import ProxyUrl
from relay.net.descriptors import is_exhausted
from relay.net.upstream.connection import FailureKind, UpstreamError
from relay.net.upstream.resolver import Resolver

_MAX_HEAD_OCTETS: Final = 16 * 1024
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r\n")
_NO_TIMEOUT_SECONDS: Final = 86_400.0  # python-socks needs one; the caller's ends earlier

# RFC 1928 §6
_REPLIES: Final = {
    1: "general failure",
    2: "its rules do not allow this",
    3: "network unreachable",
    4: "host unreachable",
    5: "the upstream refused the connection",
    6: "TTL expired",
    7: "CONNECT is not supported",
    8: "it does not know this kind of address",
}


@dataclass(frozen=True, slots=True)
class Egress:
    """A proxy, and how it is reached."""

    proxy: ProxyUrl
    resolver: Resolver
    seconds: float  # for a connection to it, shared by its addresses

    async def dial(self) -> socket.socket:
        """A connection to the proxy itself. Raises OSError."""
        return await self.resolver.connect(self.proxy.host, self.proxy.port, self.seconds)

    async def connect(self, *_: object, **__: object) -> socket.socket:
        """As python-socks calls the proxy in front of a proxy."""
        return await self.dial()


async def connect(egress: Egress, host: str, port: int) -> socket.socket:
    """A non-blocking socket whose other end is `host`:`port`, through a proxy.

    The name `host` is resolved here for socks5, and by the proxy for socks5h and http.
    There is no time limit; on cancellation the socket is closed.

    Raises:
        UpstreamError: CONNECT. The text names the proxy and its answer.
        OSError: this process has no descriptor left.
    """
    proxy = egress.proxy
    try:
        host = host if ":" in host else host.encode("idna").decode()
    except UnicodeError:
        raise UpstreamError(FailureKind.CONNECT, "the upstream's host is no name") from None
    try:
        if proxy.scheme == "http":
            return await _http(egress, host, port)
        return await _socks(egress, host, port)
    except OSError as error:
        if is_exhausted(error):
            raise
        raise _failed(proxy, _reason(error)) from None


def _failed(proxy: ProxyUrl, reason: str) -> UpstreamError:
    return UpstreamError(FailureKind.CONNECT, f"proxy {proxy}: {reason}")


def _reason(error: OSError) -> str:
    """The system's text for an error; the loop words a failed connection differently."""
    if error.errno is not None and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or "no connection"


async def _socks(egress: Egress, host: str, port: int) -> socket.socket:
    # Imported only here: most relays have no proxy, and save its memory and start-up time.
    from python_socks import ProxyConnectionError, ProxyError, ProxyType
    from python_socks.async_.asyncio import Proxy as Socks

    proxy = egress.proxy
    if proxy.scheme == "socks5":
        host = await _address(egress.resolver, host)
    socks = Socks(
        ProxyType.SOCKS5,
        proxy.host,
        proxy.port,
        proxy.user or None,
        proxy.password or None,
        rdns=True,  # the proxy resolves a host that is still a name
        forward=cast(Any, egress),  # the connection to the proxy, by the relay's own resolver
        loop=asyncio.get_running_loop(),
    )
    try:
        return await socks.connect(host, port, timeout=_NO_TIMEOUT_SECONDS)
    except ProxyConnectionError as error:
        cause = error.__cause__
        raise _failed(proxy, _reason(cause if isinstance(cause, OSError) else error)) from None
    except ProxyError as error:
        raise _failed(proxy, _socks_refusal(proxy, error.error_code, str(error))) from None
    except (ValueError, AssertionError):  # UnicodeDecodeError too: a bound name of other octets
        raise _failed(proxy, "it did not answer in SOCKS5") from None


def _socks_refusal(proxy: ProxyUrl, code: int | None, text: str) -> str:
    """A SOCKS5 proxy's refusal in the relay's words. `text` is python-socks' own."""
    if code is not None:
        return _REPLIES.get(int(code), f"reply {int(code)}")
    if text.startswith("Username and password"):
        return "it does not accept the credentials"
    if text.startswith("No acceptable"):
        return "it does not accept the credentials" if proxy.user else "it wants credentials"
    if text.startswith("Connection closed"):
        return "it closed the connection"
    return "it did not answer in SOCKS5"


async def _address(resolver: Resolver, host: str) -> str:
    """The first address of a name, IPv4 first: fewer proxies can reach IPv6."""
    try:
        found = await resolver.resolve(host)
    except OSError as error:
        reason = f"{host} cannot be resolved: {_reason(error)}"
        raise UpstreamError(FailureKind.CONNECT, reason) from None
    return str(min(found, key=lambda one: one[0] != socket.AF_INET)[1][0])


async def _http(egress: Egress, host: str, port: int) -> socket.socket:
    proxy = egress.proxy
    name = f"[{host}]" if ":" in host else host
    credential = ""
    if proxy.user or proxy.password:
        basic = b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        credential = f"proxy-authorization: Basic {basic}\r\n"
    request = f"CONNECT {name}:{port} HTTP/1.1\r\nhost: {name}:{port}\r\n{credential}\r\n"
    loop = asyncio.get_running_loop()
    tunnel = await egress.dial()
    try:
        await loop.sock_sendall(tunnel, request.encode())
        head = b""
        while (end := head.find(b"\r\n\r\n")) < 0:
            data = await loop.sock_recv(tunnel, 4096)
            head += data
            if not data:
                raise _failed(proxy, "it closed the connection")
            if len(head) > _MAX_HEAD_OCTETS or not head.startswith(b"HTTP/1."[: len(head)]):
                raise _failed(proxy, "it did not answer in HTTP/1.1")
        status = _STATUS.match(head)
        if status is None:
            raise _failed(proxy, "it did not answer in HTTP/1.1")
        code = int(status[1])
        if not 200 <= code < 300:
            raise _failed(proxy, _http_refusal(proxy, code))
        if len(head) > end + 4:  # neither TLS nor HTTP lets a server speak first
            raise _failed(proxy, "it sent unexpected octets")
    except BaseException:
        tunnel.close()
        raise
    return tunnel


def _http_refusal(proxy: ProxyUrl, code: int) -> str:
    """A refusal's status with its standard phrase; the proxy's own phrase is not trusted."""
    if code == 407:
        known = proxy.user or proxy.password
        return f"407, it {'does not accept the credentials' if known else 'wants credentials'}"
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)

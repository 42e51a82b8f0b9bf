"""Addresses of upstreams and proxies: looked up apart from the connections that need them.

One thread per name that is being looked up, and one look-up per name at a time: a name whose
server is silent delays nobody but itself. (The loop's own look-ups share four threads, so two
silent names block all.) Addresses are remembered and renewed while they are in use. If a renewal
fails or hangs, the last good addresses serve on.

Decides when a name is looked up, and in which order its addresses are tried. Must not know what
is sent to them.
"""

import asyncio
import contextlib
import ipaddress
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from relay.net.descriptors import is_exhausted
from relay.net.socket_options import read_little

# (family, address) as `socket.connect` takes it, but for the port.
_Address = tuple[int, tuple[Any, ...]]
LookUp = Callable[..., list[tuple[Any, ...]]]  # as socket.getaddrinfo

_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class Ages:
    """When addresses are looked up again, in seconds."""

    renew: float = 30.0  # from this age on, a use renews the addresses in the background
    fresh: float = 60.0  # from this age on, a use waits for the renewal
    wait: float = 1.0  # from the renewal's start; then the last good addresses serve
    retry: float = 5.0  # between two look-ups, while older addresses serve


class _Name:
    """One name: its last good addresses, and the look-up that is running."""

    __slots__ = ("addresses", "asked_at", "is_refused", "resolved_at", "running")

    def __init__(self) -> None:
        self.addresses: list[_Address] = []
        self.resolved_at = _NEVER
        self.asked_at = _NEVER
        self.is_refused = False  # none of the addresses accepted a connection lately
        self.running: asyncio.Future[None] | None = None


class Resolver:
    """Names and their addresses, shared by all upstreams of a relay."""

    def __init__(self, look_up: LookUp = socket.getaddrinfo, ages: Ages | None = None) -> None:
        """`look_up` is called as `socket.getaddrinfo`, on a thread."""
        self._look_up = look_up
        self._ages = ages or Ages()
        self._loop = asyncio.get_running_loop()
        self._names: dict[str, _Name] = {}

    async def resolve(self, host: str) -> list[_Address]:
        """The addresses of a host, in the order in which to try them. An IP address is its own.

        There is no time limit for the first look-up of a name. Cancelling the caller does not
        cancel the look-up: its result serves the next one.

        Raises:
            OSError: the name cannot be resolved, and no address of it is known.
            UnicodeError: it is no name.
        """
        literal = _literal(host)
        if literal is not None:
            return [literal]
        name = self._names.setdefault(host, _Name())
        now = self._loop.time()
        age = now - name.resolved_at
        ages = self._ages
        if not name.addresses:
            await asyncio.shield(name.running or self._start(host, name))
        elif age > ages.renew or name.is_refused:
            if name.running is None and now - name.asked_at > ages.retry:
                self._start(host, name)
            patience = name.asked_at + ages.wait - now
            is_old = age > ages.fresh or name.is_refused
            if name.running is not None and is_old and patience > 0:
                await asyncio.wait([name.running], timeout=patience)
        return list(name.addresses)

    async def connect(self, host: str, port: int, seconds: float) -> socket.socket:
        """A non-blocking TCP connection to the first address that accepts one.

        Each address but the last gets an equal share of `seconds`, so that one that does not
        answer leaves time for the others. It is tried last from then on. The last one has no
        time limit of its own.

        Raises:
            OSError, UnicodeError: see `resolve`; or no address accepts a connection.
        """
        addresses = await self.resolve(host)
        share = seconds / (len(addresses) + 1)
        failure = OSError("the name has no address")
        for index, address in enumerate(addresses):
            is_last = index == len(addresses) - 1
            try:
                async with asyncio.timeout(None if is_last else share):
                    return await self._dial(address, port)
            except TimeoutError:
                failure = TimeoutError("it does not answer")
            except OSError as error:
                if is_exhausted(error):  # here: no other address helps
                    raise
                failure = error
            self._demote(host, address)
        name = self._names.get(host)
        if name is not None:
            name.is_refused = True
        raise failure

    async def _dial(self, address: _Address, port: int) -> socket.socket:
        """Connect to one address. Raises OSError."""
        family, (ip, *rest) = address
        dialled = socket.socket(family, socket.SOCK_STREAM)
        try:
            dialled.setblocking(False)
            dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            read_little(dialled)
            with contextlib.suppress(BlockingIOError):
                dialled.connect((ip, port, *rest))
                return dialled
            await self._writable(dialled)
            number = dialled.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise OSError(number, os.strerror(number))
        except BaseException:
            dialled.close()
            raise
        return dialled

    async def _writable(self, dialled: socket.socket) -> None:
        done: asyncio.Future[None] = self._loop.create_future()
        descriptor = dialled.fileno()
        self._loop.add_writer(descriptor, _finish, done, None)
        try:
            await done
        finally:
            self._loop.remove_writer(descriptor)

    def _demote(self, host: str, address: _Address) -> None:
        name = self._names.get(host)
        if name is not None and address in name.addresses:
            name.addresses.remove(address)
            name.addresses.append(address)

    def _start(self, host: str, name: _Name) -> asyncio.Future[None]:
        """Look a name up on a thread; the future ends with the look-up."""
        done: asyncio.Future[None] = self._loop.create_future()
        done.add_done_callback(_retrieve)
        name.running = done
        name.asked_at = self._loop.time()

        def run() -> None:
            found: list[_Address] = []
            failure: Exception | None = None
            try:
                rows = self._look_up(host, None, type=socket.SOCK_STREAM)
                found = [(row[0], (row[4][0], *row[4][2:])) for row in rows]
            except (OSError, UnicodeError) as error:
                failure = error
            except Exception as error:  # the future must end, whatever it is
                failure = OSError(f"the look-up failed: {error}")
            with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
                self._loop.call_soon_threadsafe(self._learn, name, done, found, failure)

        # A daemon, so that a look-up that hangs does not hold up the end of the process.
        try:
            threading.Thread(target=run, name=f"resolve {host}", daemon=True).start()
        except RuntimeError:
            self._learn(name, done, [], OSError("no thread is left to look it up"))
        return done

    def _learn(
        self,
        name: _Name,
        done: asyncio.Future[None],
        found: list[_Address],
        failure: Exception | None,
    ) -> None:
        """Take the result of a look-up over."""
        name.running = None
        if found:
            name.addresses = list(dict.fromkeys(found))
            name.resolved_at = self._loop.time()
            name.is_refused = False
        elif not name.addresses:
            _finish(done, failure or OSError("the name has no address"))
            return
        _finish(done, None)


def _literal(host: str) -> _Address | None:
    """An IP address as an address; None: it is a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return socket.AF_INET, (host,)
    # A zone such as "fe80::1%eth0" is a number to the kernel: getaddrinfo knows it.
    return None if address.scope_id else (socket.AF_INET6, (host,))


def _finish(done: asyncio.Future[None], failure: Exception | None) -> None:
    if done.done():
        return
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(failure)


def _retrieve(done: asyncio.Future[None]) -> None:
    """Mark a failure as seen: nobody may be waiting for a renewal."""
    if not done.cancelled():
        done.exception()

"""Where a relay listens: on sockets bound here, passed by the service manager, or handed over.

Decides which socket serves which address. Must not know what is served, or how sockets come from
another process.
"""

import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from relay import config
from relay.api.plain_http import HttpChallenges, open_plain_http
from relay.net.deadlines import Deadlines
from relay.net.listener import listen
from relay.net.server import Listener, Server

# The names of sockets that the service manager passed.
PASSED: Final = "passed"
PASSED_PLAIN: Final = "passed plain"


@dataclass(slots=True)
class PassedSockets:
    """Listening sockets that the service manager passed, by what they are for."""

    callers: list[socket.socket] = field(default_factory=list)
    operator: list[socket.socket] = field(default_factory=list)
    plain: list[socket.socket] = field(default_factory=list)  # beside https

    def separate(self, settings: config.ServerSettings) -> None:
        """Find those of plain HTTP among those of callers, by their ports."""
        if settings.tls is None:
            return
        ports = {address.port for address in settings.redirect_addresses}
        ports -= {0, *(address.port for address in settings.listen)}
        for sock in list(self.callers):
            if sock.family != socket.AF_UNIX and sock.getsockname()[1] in ports:
                self.callers.remove(sock)
                self.plain.append(sock)


class Listeners:
    """All listeners of a relay. Each has a name, by which another process knows its socket:
    `PASSED`, `PASSED_PLAIN`, or its kind and the address of the settings."""

    def __init__(self) -> None:
        self.named: list[tuple[str, Listener]] = []
        self._known: set[Listener] = set()
        self._handed: dict[str, list[socket.socket]] = {}

    def hand(self, name: str, sockets: Sequence[socket.socket]) -> None:
        """Use these sockets for the address of that name, in place of new ones."""
        self._handed.setdefault(name, []).extend(sockets)

    def hand_passed(self, passed: PassedSockets, settings: config.Settings) -> None:
        """Use the service manager's sockets in place of those of the settings."""
        passed.separate(settings.server)
        self.hand(name_of("admin", settings.admin_address), passed.operator)
        self.hand(PASSED, passed.callers)
        self.hand(PASSED_PLAIN, passed.plain)

    async def open_passed(
        self, server: Server, tls: ssl.SSLContext | None, name: str = PASSED
    ) -> list[str]:
        """Listen on the sockets of that name; returns where. Raises OSError."""
        scheme = "https" if tls else "http"
        places = []
        for sock in self._handed.pop(name, []):
            port = await listen(server, sock=sock, tls=tls)
            bound = config.Address.tcp(str(sock.getsockname()[0]), port)
            places.append(f"{scheme}://{bound}" if port else "a Unix socket")
        self._note(server, name)
        return places

    async def open_plain(
        self,
        settings: config.ServerSettings,
        challenges: HttpChallenges | None,
        deadlines: Deadlines,
    ) -> Server:
        """Listen for plain HTTP beside https, on passed sockets or where the settings say. Raises
        OSError."""
        if self._handed.get(PASSED_PLAIN):
            settings = msgspec.structs.replace(settings, redirect_listen=[])

        async def bind(server: Server, address: config.Address) -> None:
            await self.bind(server, "plain", address)

        server, _ = await open_plain_http(settings, challenges, deadlines, bind)
        await self.open_passed(server, None, PASSED_PLAIN)
        return server

    async def open(
        self,
        server: Server,
        kind: str,
        address: config.Address,
        tls: ssl.SSLContext | None = None,
    ) -> config.Address:
        """Listen on `address`; returns the address with the port that was bound.

        Raises:
            OSError: the address cannot be bound; the message names it.
        """
        try:
            port = await self.bind(server, kind, address, tls)
        except OSError as error:
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror or str(error)
            raise OSError(f"cannot listen on {address}: {reason}") from None
        return address if address.path is not None else config.Address.tcp(address.host, port)

    async def bind(
        self,
        server: Server,
        kind: str,
        address: config.Address,
        tls: ssl.SSLContext | None = None,
    ) -> int:
        """As `open`; returns the port. Raises OSError as the kernel words it."""
        name = name_of(kind, address)
        port = -1
        for sock in self._handed.pop(name, []):
            port = await listen(server, sock=sock, tls=tls)
        if port < 0:
            port = await listen(server, address.host, address.port, path=address.path, tls=tls)
        self._note(server, name)
        return port

    def close_unused(self) -> None:
        """Close the sockets that were handed over for addresses that are no longer configured."""
        for sockets in self._handed.values():
            for sock in sockets:
                sock.close()
        self._handed.clear()

    def _note(self, server: Server, name: str) -> None:
        """Note the name of a server's latest listeners."""
        latest = [one for one in server.listeners if one not in self._known]
        self._known.update(latest)
        self.named += [(name, one) for one in latest]


def name_of(kind: str, address: config.Address) -> str:
    """The name of the sockets for an address; `kind` is the server's: listen, admin or plain."""
    return f"{kind} {address}"

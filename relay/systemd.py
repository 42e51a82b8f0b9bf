"""The systemd units of an installed relay: its sockets and a hardened service.

Decides every line. Must not know systemctl or where the files are written.
"""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay import config
from relay.config import Settings

NAME: Final = "relay"
REDIRECT_UNIT: Final = "relay-redirect.socket"  # where port 80 is listened on
STATE_FOLDER: Final = "/var/lib/relay"
_STOP_MARGIN_SECONDS: Final = 30

_SOCKET: Final = """\
[Unit]
Description=Relay: sockets{note}

[Socket]
{listen}
FileDescriptorName={kind}
Service={name}.service
BindIPv6Only=ipv6-only
Backlog=4096

[Install]
WantedBy=sockets.target
"""

_SERVICE: Final = """\
[Unit]
Description=Relay: one endpoint for many large-language-model upstreams
Requires={name}.socket
After=network-online.target {name}.socket
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=all
ExecStart={program} serve --takeover --config {path}
ExecReload=/bin/kill -HUP $MAINPID
Sockets={sockets}
Restart=on-failure
RestartSec=1
WatchdogSec=30
TimeoutStartSec=60
TimeoutStopSec={stop}
LimitNOFILE=524288
{user}
{state}

UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
PrivateUsers=yes
ProtectHostname=yes
ProtectClock=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


class UnitError(Exception):
    """The settings do not fit a unit; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Install:
    """What is installed: the command that runs it, its relay.toml, and its user ("": a dynamic
    one)."""

    program: tuple[str, ...]
    path: str
    user: str = ""


def units(settings: Settings, install: Install) -> dict[str, str]:
    """The files by name.

    Raises:
        UnitError: an address or a path cannot be used in a unit.
    """
    sockets = {f"{NAME}.socket": _socket(settings.server.listen, "listen")}
    redirects = settings.server.redirect_addresses if settings.server.tls else ()
    if redirects:  # a unit of its own: the relay starts without it where port 80 is in use
        sockets[REDIRECT_UNIT] = _socket(redirects, "redirect", " for plain HTTP")
    for text in (install.path, *install.program):
        if not text.isprintable() or any(character in text for character in " \"'%$\\"):
            raise UnitError(f"{text!r}: a path in a unit has no spaces, quotes, % or $")
    used = (install.program[0], install.path)
    in_home = any(text.startswith(("/home/", "/root/")) for text in used)
    service = _SERVICE.format(
        name=NAME,
        sockets=" ".join(sockets),
        program=" ".join(install.program),
        path=install.path,
        stop=int(settings.server.timeouts.drain) + _STOP_MARGIN_SECONDS,
        user=f"User={install.user}" if install.user else "DynamicUser=yes",
        state=_state_lines(settings, install),
        home="read-only" if in_home else "yes",
    )
    return {**sockets, f"{NAME}.service": service}


def _socket(addresses: Sequence[config.Address], kind: str, note: str = "") -> str:
    """Raises UnitError."""
    setting = "redirect_listen" if note else "listen"
    lines = [_listen_line(address, setting) for address in addresses]
    return _SOCKET.format(name=NAME, listen="\n".join(lines), kind=kind, note=note)


def _state_lines(settings: Settings, install: Install) -> str:
    """The folder that the service may write: that of the database."""
    folder = Path(os.path.realpath(settings.database.path)).parent
    lines = f"StateDirectory={NAME}\nStateDirectoryMode=0700"
    if str(folder) in (STATE_FOLDER, "/var/lib/private/relay"):
        return lines
    if not install.user:
        raise UnitError(
            f"database.path: the service's own user writes below {STATE_FOLDER} only; write "
            f'path = "{STATE_FOLDER}/relay.db", or install it with --user NAME'
        )
    return f"{lines}\nReadWritePaths={folder}"


def _listen_line(address: config.Address, setting: str) -> str:
    if address.path is not None:
        return f"ListenStream={address.path}"
    if address.port == 0:
        raise UnitError(f"server.{setting}: {address}: a unit needs the number of a port")
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        raise UnitError(
            f"server.{setting}: {address}: a unit needs an IP address in place of the name"
        ) from None
    return f"ListenStream={address}"

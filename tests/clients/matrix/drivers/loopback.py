"""Refuses every connection and look-up beyond loopback, once it is imported.

`outside` has the hosts that were refused: a client may swallow the error.
"""

import ipaddress
import sys
from typing import Any

outside: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = str(arguments[1][0])
    elif event == "socket.getaddrinfo":
        host = str(arguments[0])
    else:
        return
    try:
        known = ipaddress.ip_address(host).is_loopback
    except ValueError:
        known = host == "localhost"
    if not known:
        outside.append(host)
        raise OSError(f"{host} is not to be reached")


sys.addaudithook(_watch)

"""Whether a URL can be one of PostgreSQL, before anything connects to it.

Decides the words for a URL that cannot. None of them has the password. Must not know who asks.
"""

import re
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

NO_NAME: Final = (
    "its host is no name: a part between dots is empty, or longer than 63 letters; correct the host"
)
_UNREADABLE: Final = (
    "it is no URL that PostgreSQL's client can read; write it as "
    "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, and in the password %40 for @, %2F for / and "
    "%25 for %"
)


def read_url(url: str) -> dict[str, str]:
    """Its parts, by the names that PostgreSQL's client gives them: `host`, `port`, `dbname` …

    Raises:
        ValueError: it cannot be used: found, "; ", and the remedy.
    """
    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    # Its message may have a part of the password; undecodable octets raise UnicodeDecodeError.
    except (psycopg.ProgrammingError, UnicodeDecodeError):
        raise ValueError(_UNREADABLE) from None
    hosts, ports = parts.get("host", ""), parts.get("port", "0")
    # Of a password with an unescaped `@` or `/`, the rest ends up in one of these.
    is_cut = "@" in hosts or "@" in parts.get("dbname", "")
    if is_cut or not re.fullmatch(r"[0-9,]*", ports):
        raise ValueError(_UNREADABLE)
    try:
        for host in hosts.split(","):
            if not host.startswith("/"):  # the folder of a socket
                host.encode("idna")  # as the system's resolver gets it
    except UnicodeError:
        raise ValueError(NO_NAME) from None
    return parts

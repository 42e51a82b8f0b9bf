"""Where limits are kept that several machines share.

Decides which values are accepted. Must not know how the ledger is reached.
"""

import shlex
import sys
from typing import Final, Literal

import msgspec

from relay import secret
from relay.config.checks import check_name
from relay.config.forms import DatabaseUrl

CLIENT: Final = "psycopg[binary]>=3.3,<4"  # the extra `cluster` in pyproject.toml
_SCHEMES = ("postgresql://", "postgres://")
_EXAMPLE = "postgresql://relay@db.example/relay"


def missing_client() -> str:
    """The words for an environment without the client of PostgreSQL, with the command for it."""
    python = shlex.quote(sys.executable)
    return f"needs the client of PostgreSQL: {python} -m pip install '{CLIENT}'"


class LedgerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """PostgreSQL that several relays share; without `url` the limits are this relay's own."""

    url: DatabaseUrl = ""
    on_outage: Literal["refuse", "local"] = "refuse"
    node: str = ""  # the relay's name among the others; "": of its host and its database

    def __post_init__(self) -> None:
        if self.url.startswith("$"):
            raise ValueError(f"url is taken literally; write env:{self.url.strip('${}')}")
        if self.url and not self.url.startswith((*_SCHEMES, "env:", "file:")):
            raise ValueError(f"url must be as {_EXAMPLE}, or env:NAME or file:/path of one")
        if self.node:
            check_name("node", self.node)

    def __repr__(self) -> str:
        return f"Ledger({self.on_outage!r})"  # the rest may hold a secret

    def resolved_url(self) -> str:
        """The URL itself.

        Raises:
            ValueError: the variable or file that `url` names cannot be read, or has no such URL.
        """
        url = secret.resolve(self.url).reveal()
        if not url.startswith(_SCHEMES):
            raise ValueError(f"it must be as {_EXAMPLE}")
        return url

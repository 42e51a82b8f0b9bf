"""relay.toml as values: every setting, its default, and what is accepted.

    schema     the sections, each with its checks
    explain    a wrong setting → its dotted path and what is accepted there
    accepts    what a model takes, and changes of that
    vendors    the vendors that are shipped (vendors.toml), and whose an upstream is
    models     which model takes what (models.toml)
    load       the file, what its sections say of each other, and how it is shown

Nothing here opens a socket or a database.
"""

from relay.config.capabilities import Accepts
from relay.config.errors import ConfigError
from relay.config.load import LATER, effective, load, parse
from relay.config.models import accepts_of
from relay.config.schema import (
    Address,
    Database,
    Limit,
    Limits,
    Log,
    Model,
    Plan,
    Pool,
    Price,
    Quota,
    Responses,
    Route,
    Rule,
    Server,
    ServerTimeouts,
    Settings,
    Tls,
    Upstream,
    UpstreamTimeouts,
    Vendor,
    address,
)
from relay.config.vendors import serves, vendor_of

__all__ = [
    "LATER",
    "Accepts",
    "Address",
    "ConfigError",
    "Database",
    "Limit",
    "Limits",
    "Log",
    "Model",
    "Plan",
    "Pool",
    "Price",
    "Quota",
    "Responses",
    "Route",
    "Rule",
    "Server",
    "ServerTimeouts",
    "Settings",
    "Tls",
    "Upstream",
    "UpstreamTimeouts",
    "Vendor",
    "accepts_of",
    "address",
    "effective",
    "load",
    "parse",
    "serves",
    "vendor_of",
]

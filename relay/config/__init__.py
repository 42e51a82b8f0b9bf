"""relay.toml as values: every setting, its default, and what is accepted.

    schema     the sections, each with its checks
    explain    a wrong setting → its dotted path and what is accepted there
    accepts    what a model takes, and changes of that
    vendors    the vendors that are shipped (vendors.toml), and whose an upstream is
    models     which model takes what (models.toml)
    load       the file, what its sections say of each other, and how it is shown

Nothing here opens a socket or a database.
"""

from relay.config.capabilities import Capabilities
from relay.config.errors import ConfigError
from relay.config.load import LATER, effective, load, parse
from relay.config.models import accepts_of
from relay.config.schema import (
    Address,
    DatabaseSettings,
    HeadLimitSettings,
    LimitSettings,
    LogSettings,
    ModelSettings,
    PlanPollSettings,
    PlanSettings,
    PoolSettings,
    PriceSettings,
    ResponsesSettings,
    RouteSettings,
    RuleSettings,
    ServerSettings,
    ServerTimeoutSettings,
    Settings,
    TlsSettings,
    UpstreamSettings,
    UpstreamTimeoutSettings,
    VendorSettings,
    address,
)
from relay.config.vendors import serves, vendor_of

__all__ = [
    "LATER",
    "Address",
    "Capabilities",
    "ConfigError",
    "DatabaseSettings",
    "HeadLimitSettings",
    "LimitSettings",
    "LogSettings",
    "ModelSettings",
    "PlanPollSettings",
    "PlanSettings",
    "PoolSettings",
    "PriceSettings",
    "ResponsesSettings",
    "RouteSettings",
    "RuleSettings",
    "ServerSettings",
    "ServerTimeoutSettings",
    "Settings",
    "TlsSettings",
    "UpstreamSettings",
    "UpstreamTimeoutSettings",
    "VendorSettings",
    "accepts_of",
    "address",
    "effective",
    "load",
    "parse",
    "serves",
    "vendor_of",
]

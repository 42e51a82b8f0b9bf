"""relay.toml as values: every setting, its default, and its checks.

    schema        the sections, each with its checks; those of vendors, of certificates and
                  proxies in front, of backups, alerts, traces, pages, mail, other providers and
                  payments, and of the shared ledger are in `vendor_schema`, `tls_schema`,
                  `backup`, `alerts`, `traces`, `web`, `oidc`, `payments`, `ledger`
    checks        checks that several sections share
    forms         kinds of settings, and the words for what each accepts
    values        durations, addresses and proxy URLs, parsed once
    errors        a wrong setting → its dotted path and what is accepted there
    capabilities  what a model accepts
    names         the model that a requested name means
    models        the capabilities of known models (models.toml)
    vendors       known vendors (vendors.toml), and the vendor of an upstream
    anchored      names of files, made absolute
    load          reading the file, cross-field checks, showing the settings

Nothing here opens a socket or a database.
"""

from relay.config.alerts import AlertingSettings, AlertSettings
from relay.config.backup import BackupSettings, StorageSettings
from relay.config.capabilities import EFFORTS, Capabilities
from relay.config.errors import ConfigError
from relay.config.ledger import CLIENT, LedgerSettings, missing_client
from relay.config.load import effective, load, load_text, masked_upstream, parse, read_text
from relay.config.models import accepts_of
from relay.config.names import SUFFIX_1M, ModelNames, Remembered, exact_names
from relay.config.oidc import OidcSettings
from relay.config.payments import OfferSettings, PaymentsSettings
from relay.config.schema import (
    CostCapSettings,
    DatabaseSettings,
    HeadLimitSettings,
    LimitSettings,
    LogSettings,
    ModelSettings,
    PlanSettings,
    PoolSettings,
    PriceSettings,
    ResponsesSettings,
    RouteSettings,
    ServerSettings,
    ServerTimeoutSettings,
    Settings,
    UpstreamSettings,
    UpstreamTimeoutSettings,
)
from relay.config.tls_schema import AcmeSettings, Network, TlsSettings, certificate_files
from relay.config.traces import TracesSettings
from relay.config.values import Address, AdminAddress, Duration, ProxyUrl
from relay.config.vendor_schema import PlanPollSettings, RuleSettings, VendorSettings
from relay.config.vendors import serves, vendor_of
from relay.config.web import MailSettings, WebSettings

__all__ = [
    "CLIENT",
    "EFFORTS",
    "SUFFIX_1M",
    "AcmeSettings",
    "Address",
    "AdminAddress",
    "AlertSettings",
    "AlertingSettings",
    "BackupSettings",
    "Capabilities",
    "ConfigError",
    "CostCapSettings",
    "DatabaseSettings",
    "Duration",
    "HeadLimitSettings",
    "LedgerSettings",
    "LimitSettings",
    "LogSettings",
    "MailSettings",
    "ModelNames",
    "ModelSettings",
    "Network",
    "OfferSettings",
    "OidcSettings",
    "PaymentsSettings",
    "PlanPollSettings",
    "PlanSettings",
    "PoolSettings",
    "PriceSettings",
    "ProxyUrl",
    "Remembered",
    "ResponsesSettings",
    "RouteSettings",
    "RuleSettings",
    "ServerSettings",
    "ServerTimeoutSettings",
    "Settings",
    "StorageSettings",
    "TlsSettings",
    "TracesSettings",
    "UpstreamSettings",
    "UpstreamTimeoutSettings",
    "VendorSettings",
    "WebSettings",
    "accepts_of",
    "certificate_files",
    "effective",
    "exact_names",
    "load",
    "load_text",
    "masked_upstream",
    "missing_client",
    "parse",
    "read_text",
    "serves",
    "vendor_of",
]

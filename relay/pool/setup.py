"""An upstream's settings together with everything that they name: credential, proxy, certificates.

Decides whether an upstream has changed since it was read. Reading blocks, so a running relay reads
on a thread. Must not know connections or requests.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from relay import config
from relay.config import ConfigError, ProxyUrl
from relay.net import tls as certificates
from relay.net.upstream.connection import Origin
from relay.quota.plans import Plan, compile_plan
from relay.secret import Secret


@dataclass(frozen=True, slots=True)
class UpstreamSetup:
    """One upstream as it was read. `ca` is the content of its file; `limits` its own plan's."""

    settings: config.UpstreamSettings
    vendor: config.VendorSettings
    longest_cooldown: float  # seconds
    credential: Secret
    proxy: ProxyUrl | None
    ca: bytes
    tls: ssl.SSLContext | None
    limits: Plan | None

    @classmethod
    def read(
        cls,
        settings: config.UpstreamSettings,
        all_settings: config.Settings,
        before: "UpstreamSetup | None" = None,
    ) -> "UpstreamSetup":
        """Read the files and variables that `settings` name. Keeps the objects of `before` whose
        settings are the same.

        Raises:
            ValueError: the credential, the proxy or the `ca` file cannot be read.
        """
        ca = b"" if settings.ca is None else _content(settings.ca)
        secure = urlsplit(settings.base_url).scheme == "https"
        if before is not None and secure and before.tls is not None and ca == before.ca:
            tls: ssl.SSLContext | None = before.tls
        else:
            tls = certificates.upstream(settings.ca) if secure else None
        limits = None if before is None else before.limits
        if before is None or settings.limits != before.settings.limits:
            limits = _compiled(settings)
        return cls(
            settings,
            config.vendor_of(all_settings, settings),
            all_settings.pool.longest_cooldown.seconds,
            settings.credential(),
            settings.proxy(),
            ca,
            tls,
            limits,
        )

    def __repr__(self) -> str:
        return f"<UpstreamSetup {self.settings.name}>"  # the rest may hold secrets

    @property
    def origin(self) -> Origin:
        """Where the upstream is."""
        parts = urlsplit(self.settings.base_url)
        assert parts.hostname is not None
        times = self.settings.timeouts
        return Origin(
            host=parts.hostname,
            port=parts.port or (443 if parts.scheme == "https" else 80),
            tls=self.tls,
            egress=self.proxy,
            connect_time=times.connect,
            first_byte_time=times.first_byte,
            silence_time=times.silence,
            idle_time=times.idle,
        )

    def is_same_place(self, other: "UpstreamSetup") -> bool:
        """Whether both name the same account at the same server: health and counters stay."""
        mine, others = self.settings, other.settings
        return mine.name == others.name and mine.base_url == others.base_url

    def new_secrets(self, before: "UpstreamSetup") -> list[str]:
        """The settings that read the same and name something else: a rotated file or variable."""
        names = []
        if self.credential != before.credential and self.settings.api_key.startswith(_REFERENCES):
            names.append("api_key")
        if self.proxy != before.proxy and (self.settings.egress or "").startswith(_REFERENCES):
            names.append("egress")
        if self.ca != before.ca and self.settings.ca == before.settings.ca:
            names.append("ca")
        return names


_REFERENCES = ("env:", "file:")


def read_setups(
    settings: config.Settings, before: dict[str, UpstreamSetup] | None = None
) -> list[UpstreamSetup]:
    """All upstreams of the settings; `before` are those in force, by name. Blocks.

    Raises:
        ConfigError: a credential, a proxy or a `ca` file cannot be read.
    """
    setups = []
    for index, section in enumerate(settings.upstream):
        try:
            section.proxy()
        except ValueError as error:
            raise ConfigError(f"upstream[{index}].egress", str(error)) from None
        try:
            setups.append(UpstreamSetup.read(section, settings, (before or {}).get(section.name)))
        except ValueError as error:
            raise ConfigError(f"upstream[{index}]", str(error)) from None
    return setups


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""  # `certificates.upstream` says what is wrong


def _compiled(settings: config.UpstreamSettings) -> Plan | None:
    if not settings.limits:
        return None
    plan = config.PlanSettings(id=settings.name, limits=settings.limits)
    return compile_plan(plan, f"upstream {settings.name!r}")

"""Vendors: the shipped ones (vendors.toml), those of relay.toml, and the vendor of an upstream.

Must not know what a vendor's answers mean (`relay.pool.vendor_errors`).
"""

import functools
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from relay.config.errors import ConfigError, explain
from relay.config.schema import Settings, UpstreamSettings
from relay.config.values import decode
from relay.config.vendor_schema import VendorSettings

_SHIPPED: Final = Path(__file__).with_name("vendors.toml")
_GENERIC: Final = VendorSettings(name="generic")


@functools.cache
def shipped() -> tuple[VendorSettings, ...]:
    """The vendors of the package's vendors.toml, `generic` among them.

    Raises:
        ConfigError: the file cannot be used, as the installation is damaged.
    """
    try:
        tree = tomllib.loads(_SHIPPED.read_text(encoding="utf-8"))
        found = msgspec.convert(tree, Settings, dec_hook=decode).vendor
    except msgspec.ValidationError as error:
        raise ConfigError("", f"{_SHIPPED}: {explain(str(error), tree)}") from None
    except (OSError, ValueError) as error:
        raise ConfigError("", f"{_SHIPPED}: {error}") from None
    if all(vendor.name != _GENERIC.name for vendor in found):
        found.append(_GENERIC)
    return tuple(found)


def merged(own: Iterable[VendorSettings], given: Iterable[set[str]]) -> list[VendorSettings]:
    """The shipped vendors with the changes of relay.toml, then those that only relay.toml has.

    `given` has, for each of `own`, the names of the settings that were written. Only these change
    a shipped vendor of the same name; lists and tables are replaced.
    """
    vendors = {vendor.name: vendor for vendor in shipped()}
    for vendor, names in zip(own, given, strict=True):
        base = vendors.get(vendor.name, vendor)
        changes = {name: getattr(vendor, name) for name in names}
        vendors[vendor.name] = msgspec.structs.replace(base, **changes)
    return list(vendors.values())


def vendor_of(settings: Settings, upstream: UpstreamSettings) -> VendorSettings:
    """The vendor that `upstream` names, else the vendor of its host, else `generic`.

    Of several vendors the one with the longest host wins, of equal ones the last: relay.toml's
    before a shipped one.
    """
    name = upstream.vendor or _recognised(settings.vendor, upstream.base_url)
    for vendor in settings.vendor:
        if vendor.name == name:
            return vendor
    return _GENERIC


def _recognised(vendors: Iterable[VendorSettings], base_url: str) -> str:
    host = (urlsplit(base_url).hostname or "").rstrip(".")
    longest, name = 0, _GENERIC.name
    for vendor in vendors:
        for domain in vendor.hosts:
            if (host == domain or host.endswith("." + domain)) and len(domain) >= longest:
                longest, name = len(domain), vendor.name
    return name


def serves(vendor: VendorSettings, name: str) -> bool:
    """Whether `vendor` may have a model of this name, by its settings. Case is ignored."""
    lower = name.lower()
    return not vendor.models or any(fnmatchcase(lower, one.lower()) for one in vendor.models)

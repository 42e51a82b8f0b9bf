"""Who sells an upstream: the shipped vendors, those of relay.toml, and which one it is.

Decides what a vendor's settings are and whose an upstream is; what its answers mean is decided
elsewhere (`gateway/trouble.py`).
"""

import functools
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from relay.config.errors import ConfigError, explain
from relay.config.schema import Settings, UpstreamSettings, VendorSettings

_SHIPPED = Path(__file__).with_name("vendors.toml")
_GENERIC = VendorSettings(name="generic")


@functools.cache
def shipped() -> tuple[VendorSettings, ...]:
    """The vendors of the package's vendors.toml, `generic` among them.

    Raises:
        ConfigError: that file cannot be used; only a broken installation has such a one.
    """
    try:
        tree = tomllib.loads(_SHIPPED.read_text(encoding="utf-8"))
        found = msgspec.convert(tree, Settings).vendor
    except msgspec.ValidationError as error:
        raise ConfigError("", f"{_SHIPPED}: {explain(str(error))}") from None
    except (OSError, ValueError) as error:
        raise ConfigError("", f"{_SHIPPED}: {error}") from None
    if all(vendor.name != _GENERIC.name for vendor in found):
        found.append(_GENERIC)
    return tuple(found)


def merged(own: Iterable[VendorSettings], given: Iterable[set[str]]) -> list[VendorSettings]:
    """The shipped vendors with the changes of relay.toml, then those that only it has.

    `given` has the names of the settings that each of `own` was written with: just these change
    a shipped vendor of the same name, lists and tables as a whole.
    """
    vendors = {vendor.name: vendor for vendor in shipped()}
    for vendor, names in zip(own, given, strict=True):
        base = vendors.get(vendor.name, vendor)
        changes = {name: getattr(vendor, name) for name in names}
        vendors[vendor.name] = msgspec.structs.replace(base, **changes)
    return list(vendors.values())


def vendor_of(settings: Settings, upstream: UpstreamSettings) -> VendorSettings:
    """Whose `upstream` is: the vendor that it names, else that of its host, else `generic`.

    Of several the one with the longest host is taken, of equal ones the last: one of relay.toml
    rather than a shipped one.
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
        for at in vendor.hosts:
            if (host == at or host.endswith("." + at)) and len(at) >= longest:
                longest, name = len(at), vendor.name
    return name


def serves(vendor: VendorSettings, name: str) -> bool:
    """Whether `vendor` may know a model of this name, as far as its settings tell.

    Case does not matter: vendors take their models' names in any.
    """
    lower = name.lower()
    return not vendor.models or any(fnmatchcase(lower, one.lower()) for one in vendor.models)

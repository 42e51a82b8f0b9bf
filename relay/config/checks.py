"""Checks that several sections of relay.toml share.

Each raises `ValueError` with a message that begins with the setting's name and says what to write
instead. Must not know the sections.
"""

import math
import re
from typing import Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec

from relay.forbidden_addresses import is_forbidden

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MODEL_NAME: Final = re.compile(r"[!#-\[\]-~]{1,128}")  # no quote, no backslash
_URL_TEXT: Final = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&()*+,;=%-]+")


def check_name(setting: str, name: str) -> None:
    """A name: up to 64 letters, digits, dots, underscores and hyphens."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{setting}: {name!r} is no name: up to 64 letters, digits, . _ and -")


def check_model_id(setting: str, name: str) -> None:
    """A model's id: printable ASCII that needs no escaping in JSON, and no `*`."""
    _check_model_name(setting, name)
    if "*" in name:
        raise ValueError(
            f"{setting}: {name!r} is no model id: only aliases may have a *, at the end, for the "
            "rest of a name"
        )


def check_alias(name: str) -> None:
    """A further name of a model, or the beginning of names and `*`; "*" alone is every name."""
    _check_model_name("aliases", name)
    if "*" in name[:-1]:
        raise ValueError(
            f"aliases: {name!r} has a * before its end; only the last character may be one, for "
            "the rest of a name"
        )


def is_model_name(name: str) -> bool:
    """Whether a name could be a model's: it is short and needs no escaping in JSON."""
    return _MODEL_NAME.fullmatch(name) is not None


def _check_model_name(setting: str, name: str) -> None:
    if not is_model_name(name):
        raise ValueError(
            f"{setting}: {name!r} is no model id: printable ASCII without spaces or quotes"
        )


def check_positive(section: msgspec.Struct, *names: str) -> None:
    """Seconds above zero and finite: the settings of these `names`, or all of the section."""
    for name in names or section.__struct_fields__:
        value = getattr(section, name)
        if not value > 0 or not math.isfinite(value):
            raise ValueError(f"{name} must be more than 0 seconds, and finite")


def check_url(setting: str, text: str) -> None:
    """An origin with an optional path, safe to show and to join with a path."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for anything but a number up to 65535
    except ValueError:
        raise ValueError(f"{setting} has a host or port that cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{setting} must begin with http:// or https:// and name a host")
    if is_forbidden(parts.hostname.rstrip(".")):
        raise ValueError(f"{setting} names a cloud's metadata service, which holds credentials")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{setting} takes a scheme, host, port and path, nothing else")
    if not _URL_TEXT.fullmatch(text):
        raise ValueError(f"{setting} must be plain ASCII without spaces or quotes")


def check_pattern(setting: str, text: str) -> None:
    """A regular expression for error messages."""
    if not text:
        raise ValueError(f"{setting} must not be empty; leave it out for any message")
    try:
        re.compile(text, re.IGNORECASE)  # with the flags of its use: `re` caches it
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{setting} is no regular expression that can be used: {error}") from None


def check_time_zone(setting: str, name: str) -> None:
    """An IANA time zone that this system knows."""
    if name == "UTC":  # needs no database of zones
        return
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"{setting}: {name!r} is no time zone known here; write an IANA name such as "
            "Asia/Shanghai, and see that the system's tzdata is installed"
        ) from None

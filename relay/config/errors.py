"""Errors in relay.toml, as its author needs them.

Turns msgspec's message into the setting's dotted path and what is accepted there, which it reads
from the structs in `schema`. Must not know files.
"""

import re
import types
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from relay.config.schema import Settings
from relay.config.values import Address


class ConfigError(Exception):
    """A setting that cannot be used: its dotted `path`, and in `reason` what is accepted."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason


_AT: Final = re.compile(r"(.*) - at `\$?\.?(.*)`", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`")
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")


def explain(text: str) -> ConfigError:
    """msgspec's message → the dotted path and what is accepted there."""
    match = _AT.fullmatch(text)
    reason, path = (match[1], match[2]) if match else (text, "")
    if (missing := _MISSING.fullmatch(reason)) is not None:
        path = f"{path}.{missing[1]}".lstrip(".")
        return ConfigError(path, f"is missing; write {_accepted(path)}")
    if (unknown := _UNKNOWN.fullmatch(reason)) is not None:
        fields = ", ".join(_accepted_fields(path))
        return ConfigError(
            f"{path}.{unknown[1]}".lstrip("."), f"unknown setting; accepted here: {fields}"
        )
    if reason.startswith(("Expected", "Invalid enum value")):
        return ConfigError(path, f"{reason}; accepted: {_accepted(path)}")
    first, _, rest = reason.partition(" ")
    kind = _type_at(path)
    if rest and first.rstrip(":") in getattr(kind, "__struct_fields__", ()):
        # Raised by a section's own check, whose message begins with the setting.
        return ConfigError(f"{path}.{first.rstrip(':')}".lstrip("."), rest)
    if kind is Address:  # its text is quoted, so the name of the list is enough
        path = re.sub(r"\[\d+\]$", "", path)
    return ConfigError(path, reason)


def _type_at(path: str, *, unwrapped: bool = True) -> Any:
    """The annotation of the setting at a dotted path; `unwrapped`: of a union, the first type."""
    here: Any = Settings
    for step in re.findall(r"[^.\[\]]+|\[\.*\d*\]", path):
        if step.startswith("["):
            parts = [part for part in _parts(here) if get_origin(part) in (list, dict)]
            here = get_args(parts[0])[-1]
        else:
            here = get_type_hints(_unwrap(here))[step]
    return _unwrap(here) if unwrapped else here


def _parts(kind: Any) -> list[Any]:
    """The types that a union accepts, without None; another type alone."""
    if get_origin(kind) in (Union, types.UnionType):
        return [part for part in get_args(kind) if part is not type(None)]
    return [kind]


def _unwrap(kind: Any) -> Any:
    return _parts(kind)[0]


def _accepted_fields(path: str) -> list[str]:
    return sorted(getattr(_type_at(path), "__struct_fields__", ()))


_WORDS: Final[dict[Any, str]] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def _accepted(path: str) -> str:
    try:
        kinds = _parts(_type_at(path, unwrapped=False))
    except (KeyError, IndexError, TypeError):  # pragma: no cover - another form of msgspec's paths
        return "see relay.toml"
    return " or ".join(_accepted_words(kind) for kind in kinds)


def _accepted_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(f'"{value}"' for value in get_args(kind))
    if get_origin(kind) is list:
        return "a list [ … ]"
    if get_origin(kind) is dict or hasattr(kind, "__struct_fields__"):
        return "a table { … }"
    if isinstance(kind, type) and issubclass(kind, str):
        return "text in quotes"
    return _WORDS.get(kind, "see relay.toml")

"""Errors in relay.toml, as its author needs them.

Turns msgspec's message into the setting's dotted path and what is accepted there, which it reads
from the structs in `schema`. Must not know files.
"""

import json
import re
import types
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from relay.config.forms import Mailbox
from relay.config.schema import Settings
from relay.config.tls_schema import Network
from relay.config.values import (
    SECRET_NAME,
    Address,
    AdminAddress,
    Duration,
    DurationOrOff,
    decode,
)


class ConfigError(Exception):
    """A setting that cannot be used: its dotted `path`, and in `reason` what is accepted."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason


_MAX_SHOWN: Final = 40  # characters of a value; credentials are longer
_STEP: Final = re.compile(r"[^.\[\]]+|\[\.*\d*\]")
_BARE_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_AT: Final = re.compile(r"(.*) - at `\$?\.?(.*)`", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`")
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")


def explain(text: str, tree: dict[str, Any]) -> ConfigError:
    """msgspec's message on a parsed document → the dotted path and what is accepted there."""
    match = _AT.fullmatch(text)
    reason, path = (match[1], match[2]) if match else (text, "")
    written, value = _locate(path, tree)
    if (missing := _MISSING.fullmatch(reason)) is not None:
        accepted = _accepted(f"{path}.{missing[1]}".lstrip("."))
        return ConfigError(f"{written}.{missing[1]}".lstrip("."), f"is missing; write {accepted}")
    if (unknown := _UNKNOWN.fullmatch(reason)) is not None:
        fields = ", ".join(_accepted_fields(path))
        return ConfigError(
            f"{written}.{unknown[1]}".lstrip("."), f"unknown setting; accepted here: {fields}"
        )
    if reason.startswith(("Expected", "Invalid enum value")):
        return ConfigError(
            written,
            _in_brackets(path, written, value)
            or f"must be {_accepted(path)}, not {_shown(value, path, written)}",
        )
    first, _, rest = reason.partition(" ")
    kind = _type_at(path)
    if rest and first.rstrip(":") in getattr(kind, "__struct_fields__", ()):
        # Raised by a section's own check, whose message begins with the setting.
        name = first.rstrip(":")
        written = f"{written}.{name}".lstrip(".")
        there = _harmless(value.get(name), f"{path}.{name}".lstrip("."), written)
        return ConfigError(written, _with_value(rest, there))
    return ConfigError(written, reason)


def _type_at(path: str, *, unwrapped: bool = True) -> Any:
    """The annotation of the setting at a dotted path; `unwrapped`: of a union, the first type."""
    here: Any = Settings
    for step in _STEP.findall(path):
        if step.startswith("["):
            parts = [part for part in _parts(here) if get_origin(part) in (list, dict)]
            here = get_args(parts[0])[-1]
        else:
            here = get_type_hints(_unwrap(here), include_extras=True)[step]
    return _unwrap(here) if unwrapped else here


def _parts(kind: Any) -> list[Any]:
    """The types that a union accepts, without None and msgspec's UNSET; another type alone."""
    if get_origin(kind) in (Union, types.UnionType):
        return [part for part in get_args(kind) if part not in (type(None), msgspec.UnsetType)]
    return [kind]


def _unwrap(kind: Any) -> Any:
    return _parts(kind)[0]


def _accepted_fields(path: str) -> list[str]:
    return sorted(getattr(_type_at(path), "__struct_fields__", ()))


# --- a value of another type ---


def _locate(path: str, tree: dict[str, Any]) -> tuple[str, Any]:
    """A path of msgspec's as people write it, which has the name in place of `[...]`, and the value
    there."""
    here: Any = tree
    written = passed = ""
    for step in _STEP.findall(path):
        passed += step if step.startswith("[") else f".{step}"
        if step == "[...]":
            step = _wrong_name(here, _type_at(passed.lstrip("."), unwrapped=False))
        if step.startswith("["):
            here = here[int(step[1:-1])]
            written += step
        else:
            here = here[step]
            name = step if _BARE_NAME.fullmatch(step) else json.dumps(step, ensure_ascii=False)
            written += f".{name}"
    return written.lstrip("."), here


def _wrong_name(table: dict[str, Any], kind: Any) -> str:
    """The first name in a table whose value is of another type."""
    for name, value in table.items():
        try:
            msgspec.convert(value, kind, dec_hook=decode)
        except msgspec.ValidationError:
            return name
    raise AssertionError  # pragma: no cover - msgspec has found one


_WORDS: Final[dict[Any, str]] = {
    Duration: 'a duration in quotes, such as "5m"',
    DurationOrOff: 'a duration in quotes, such as "5m" or "off"',
    Address: 'an address in quotes, such as "127.0.0.1:8080"',
    AdminAddress: 'an address in quotes, such as "127.0.0.1:8081" or "unix"',
    Network: 'a network in quotes, such as "10.0.0.0/8"',
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def _accepted(path: str) -> str:
    kinds = _parts(_type_at(path, unwrapped=False))
    return " or ".join(_accepted_words(kind) for kind in kinds)


def _accepted_words(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        base, meta = get_args(kind)
        return meta.description or f"{_accepted_words(base)} from {meta.ge} to {meta.le}"
    if get_origin(kind) is Literal:
        return " or ".join(f'"{value}"' for value in get_args(kind))
    if get_origin(kind) is list:
        return "a list [ … ]"
    if get_origin(kind) is dict or hasattr(kind, "__struct_fields__"):
        return "a table { … }"
    return _WORDS.get(kind, "text in quotes")


def _in_brackets(path: str, written: str, value: Any) -> str:
    """The reason for [name] in place of [[name]], or the reverse; empty: it is neither."""
    kinds = _parts(_type_at(path, unwrapped=False))
    if len(kinds) > 1 or written.endswith("]"):
        return ""
    header = re.sub(r"\[\d+\]", "", written)
    if isinstance(value, dict) and _holds_tables(kinds[0]):
        return f"must be a list of tables, written [[{header}]] or [{{ … }}], not a table"
    if isinstance(value, list) and not _is_single(kinds[0]) and get_origin(kinds[0]) is not list:
        return f"must be a table, written [{header}] or {{ … }}, not a list"
    return ""


def _holds_tables(kind: Any) -> bool:
    return get_origin(kind) is list and hasattr(get_args(kind)[0], "__struct_fields__")


def _shown(value: Any, path: str, written: str) -> str:
    """A value as it is written; its kind alone where it may be a secret: if it is long, stands in
    the place of a list or a table, or by the setting's name."""
    kinds = _parts(_type_at(path, unwrapped=False))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        takes_text = any(map(_is_text, kinds))
        return "a number" if takes_text and SECRET_NAME.search(written) else str(value)
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a table"
    if not isinstance(value, str):
        return "a date or a time"
    # A setting that takes one of several words is no secret.
    takes_word = any(get_origin(kind) is Literal for kind in kinds)
    text = json.dumps(value, ensure_ascii=False)
    is_harmless = takes_word or all(map(_is_single, kinds))
    return text if is_harmless and len(text) <= _MAX_SHOWN else "text"


def _harmless(value: Any, path: str, written: str) -> str:
    """A number, or a text of a kind that is no secret, as it is written; empty: anything else."""
    kind = _type_at(path)
    if isinstance(value, int | float):
        return _shown(value, path, written)
    if not isinstance(value, str) or SECRET_NAME.search(written) or not _is_known(kind):
        return ""
    text = json.dumps(value, ensure_ascii=False)
    may_have_secret = kind != Mailbox and re.search("[@?#]", value)  # in a URL
    return "" if may_have_secret or len(text) > _MAX_SHOWN else text


def _is_known(kind: Any) -> bool:
    """Whether texts of a type have a form, and are no secrets."""
    if get_origin(kind) is Annotated:
        return not get_args(kind)[1].extra
    return kind in _WORDS


def _with_value(reason: str, there: str) -> str:
    """A section's reason, and the value that is there, if that is known."""
    if not there or not reason.startswith(("must ", "has ", "takes ", "names ")):
        return reason
    is_plain = reason.startswith("must ") and not re.match("must not |.*[;:] ", reason)
    return f"{reason}, not {there}" if is_plain else f"{reason}; it is {there}"


def _is_text(kind: Any) -> bool:
    base = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return isinstance(base, type) and issubclass(base, str)


def _is_single(kind: Any) -> bool:
    """Whether values of a type are neither lists nor tables."""
    return get_origin(kind) not in (list, dict) and not hasattr(kind, "__struct_fields__")

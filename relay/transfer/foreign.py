"""Accounts, keys and upstreams of another relay, in one vocabulary for all sources.

Decides which of them can be taken over, and the words for the others. Must not know any
source's tables, or the relay's database.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from relay import secret

_HINT_CHARACTERS: Final = 4
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")
_MICRO: Final = 10**6
_OFFSET: Final = re.compile(r"([+-]\d\d)$")


@dataclass(frozen=True, slots=True)
class ForeignUser:
    """An account; `email` may be empty."""

    ref: str  # its id there
    email: str
    name: str
    group: str = ""  # a plan, if relay.toml has one of this id
    suspended: bool = False
    is_admin: bool = False
    balance_micro: int = 0
    created_at: float | None = None  # epoch seconds


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A key that works there."""

    owner: str  # the ref of its user; "": nobody's
    name: str
    digest: bytes
    hint: str
    expires_at: float | None = None
    created_at: float | None = None
    restriction: str = ""  # a bound that a key here cannot have


@dataclass(frozen=True, slots=True)
class ForeignUpstream:
    """A credential that speaks the Messages API."""

    name: str
    base_url: str
    api_key: str
    auth: str = "x-api-key"
    priority: int = 0
    weight: int = 1
    max_concurrency: int = 0


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that is not taken over, and why."""

    kind: str  # user, key or upstream
    name: str
    why: str


@dataclass(slots=True)
class Foreign:
    """Everything that was found in a source."""

    users: list[ForeignUser] = field(default_factory=list)
    keys: list[ForeignKey] = field(default_factory=list)
    upstreams: list[ForeignUpstream] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def leave_out(self, kind: str, name: object, why: str) -> None:
        self.left_out.append(LeftOut(kind, str(name), why))


def hashed(key: str) -> tuple[bytes, str]:
    """A plain key's digest and hint."""
    prefix = "sk-" if key.startswith("sk-") else ""
    return secret.digest(key.encode()), f"{prefix}…{key[-_HINT_CHARACTERS:]}"


def upstream_name(text: object, taken: set[str]) -> str:
    """A name for an upstream that is valid and not taken; it is taken from then on."""
    base = _NOT_IN_NAMES.sub("-", str(text)).strip("-._")[:56] or "upstream"
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    taken.add(name)
    return name


# --- values, which are text in a dump and of SQLite's types in a file ---


def number(value: object) -> float:
    """0.0 for anything that is no number."""
    try:
        return float(str(value))
    except ValueError:
        return 0.0


def text(value: object) -> str:
    return "" if value is None else str(value).strip()


def flag(value: object) -> bool:
    return str(value).lower() in ("1", "t", "true", "yes")


def micro_dollars(dollars: object) -> int:
    return round(number(dollars) * _MICRO)


def moment(value: object) -> float | None:
    """Epoch seconds, of epoch seconds or of a date and time (UTC, if it gives no offset)."""
    written = text(value)
    if not written:
        return None
    try:
        return float(written)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(_OFFSET.sub(r"\1:00", written))
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()

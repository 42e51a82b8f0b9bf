"""One call: who makes it, what its path, query and body say, and what it may use.

Decides how bodies, queries and cursors are read. Must not know endpoints.
"""

import base64
import binascii
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar
from urllib.parse import parse_qsl

import msgspec

from relay.config import Settings
from relay.pool.leases import Upstreams
from relay.provisioning.problems import Problem
from relay.store.admin_keys import AdminKey
from relay.store.database import Database

T = TypeVar("T")
MAX_BODY_OCTETS: Final = 64 * 1024


class Monitor(Protocol):
    """Reads all processes of a relay."""

    async def view(self) -> list[dict[str, Any]]:
        """The state of each upstream, as `Upstreams.view`."""
        ...


class Operator(Protocol):
    """The relay's operator has it."""

    @property
    def monitor(self) -> Monitor: ...


class RunningRelay(Protocol):
    """The parts of a relay that endpoints use."""

    @property
    def settings(self) -> Settings: ...
    @property
    def database(self) -> Database: ...
    @property
    def upstreams(self) -> Upstreams: ...
    @property
    def operator(self) -> Operator: ...
    async def refresh(self) -> None: ...


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query or a body without fields."""


class ListPage(msgspec.Struct, Generic[T], frozen=True):
    """A part of a list. `next_cursor` asks for the next part; null: this is the last."""

    data: list[T]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Call:
    """See the module. `database` writes as the admin key; `now` is epoch seconds."""

    relay: RunningRelay
    key: AdminKey
    database: Database
    path: tuple[str, ...]  # the parts that the route leaves open
    query: Any
    body: Any
    now: float = field(default_factory=time.time)

    @property
    def settings(self) -> Settings:
        """relay.toml as it is in force."""
        return self.relay.settings


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, and the value that becomes JSON."""

    value: Any
    status: int = 200


Endpoint = Callable[[Call], Awaitable[Reply]]


def read_query(query: bytes, type: type[T]) -> T:
    """The query as a value. A name that ends in [] is a list. Raises Problem: 400."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise Problem(400, "The query is not name=value pairs, percent-encoded.") from None
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name.endswith("[]"):
            values.setdefault(name, []).append(value)
        elif name in values:
            raise Problem(400, f"The query has {name[:64]!r} twice.")
        else:
            values[name] = value
    try:
        return msgspec.convert(values, type, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(400, f"The query: {error}.") from None


def read_body(body: bytes, type: type[T]) -> T:
    """The body as a value. Raises Problem: 400."""
    try:
        return msgspec.json.decode(body or b"{}", type=type)
    except msgspec.ValidationError as error:
        raise Problem(400, f"The body: {error}.") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Problem(400, "The body is not valid JSON.") from None


def cursor_of(place: str) -> str:
    """A cursor that leads on from a place in a list."""
    return base64.urlsafe_b64encode(b"c1:" + place.encode()).decode().rstrip("=")


def place_of(cursor: str | None) -> str:
    """The place that a cursor leads on from; empty: the beginning. Raises Problem: 400."""
    if not cursor:
        return ""
    try:
        octets = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        if octets.startswith(b"c1:"):
            return octets[3:].decode()
    except (binascii.Error, ValueError):
        pass
    raise Problem(400, "The cursor is none of this API: pass `next_cursor` on as it came.")


def page(found: list[T], limit: int, place: Callable[[T], str]) -> tuple[list[T], str | None]:
    """One part of a list of which `limit + 1` were read, and the cursor of the next one."""
    if len(found) <= limit:
        return found, None
    part = found[:limit]
    return part, cursor_of(place(part[-1]))

"""What is known of one request, from all that records it.

A request is described by a full record (in flight, among the latest failures, or a line of the
access log) and by its row in the database; either may be missing. Decides what each of them adds.
Must not know how the facts are worded (`api.explanation`), nor record anything itself.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from relay.clock import rfc3339
from relay.store.records import AdmissionRow
from relay.store.request_search import Billing
from relay.store.usage import Request

IN_FLIGHT: Final = "requests in flight"
FAILURES: Final = "failures since the start"
DATABASE: Final = "database"
LOG: Final = "access log"

_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_FIRST_NAME: Final = re.compile(rf"({_NAME}): ")


class Said(msgspec.Struct, frozen=True):
    """An upstream, and why it was passed over, or how it failed."""

    upstream: str
    why: str


class Tokens(msgspec.Struct, frozen=True):
    """Counts; None: not stated."""

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None


class RouteEntry(msgspec.Struct, frozen=True):
    """An upstream of a model's route."""

    upstream: str
    priority: int
    model: str  # its name there


class LimitNow(msgspec.Struct, frozen=True):
    """A limit of the account's present plan. `reset`: when it is full again; empty: it is."""

    limit: str
    remaining: int
    reset: str


class Facts(msgspec.Struct, omit_defaults=True):
    """See the module. Fields of the access log have the same names and meanings here.

    `state`: `in flight`, `ended`, or `open` (admitted, its end is not written). `stage`: of a
    request in flight. `recorded`: a full record was found, so an empty `choice`, `passed` or
    `tried` means that there was none. `reported` are the upstream's counts, `charged` those that
    were charged.
    """

    id: str
    state: str
    stage: str = ""
    recorded: bool = False
    found_in: list[str] = []
    time: str = ""
    peer: str = ""
    method: str = ""
    path: str = ""
    dialect: str = ""
    status: int | None = None
    outcome: str = ""
    user: str = ""
    user_id: str = ""
    key: str = ""
    agent: str = ""
    model: str = ""
    route: list[RouteEntry] = []
    upstream: str = ""
    choice: str = ""
    passed: list[Said] = []
    tried: list[Said] = []
    words: str = ""  # of the latest upstream that failed it
    served: str = ""
    upstream_id: str = ""
    stop: str = ""
    rule: str = ""
    reserved: int | None = None
    held_micro: int | None = None
    reported: Tokens | None = None
    charged: Tokens | None = None
    cost_micro: int | None = None
    billed: Billing | None = None
    plan: str = ""  # of a request in flight
    plan_now: str = ""
    limits_now: list[LimitNow] = []
    us: int | None = None
    wait_us: int | None = None
    relay_us: int | None = None
    upstream_us: int | None = None
    first_us: int | None = None
    not_searched: list[str] = []


class Match(msgspec.Struct):
    """The requests that a process has in memory by the beginning of an id: their ids, and what is
    known of the one if it is only one."""

    ids: list[str]
    facts: Facts | None


def add_record(facts: Facts, record: dict[str, Any], found_in: str, names: Iterable[str]) -> None:
    """Add a full record: the fields of a line of the access log. `names`: known upstreams."""
    facts.recorded = True
    facts.found_in.append(found_in)
    for field in _RECORD_TEXTS:
        setattr(facts, field, record.get(field) or getattr(facts, field))
    facts.status = record.get("status") or facts.status
    facts.passed = parse_reasons(record.get("passed") or "", names)
    facts.tried = parse_reasons(record.get("tried") or "", names)
    for field in ("us", "wait_us", "relay_us", "upstream_us", "first_us"):
        setattr(facts, field, record.get(field) or 0)
    reported = Tokens(*[record.get(field) for field in Tokens.__struct_fields__])
    facts.reported = None if reported == Tokens() else reported


_RECORD_TEXTS: Final = (
    "time", "peer", "method", "path", "outcome", "rule", "user", "key", "agent", "model",
    "upstream", "choice", "served", "upstream_id", "stop",
)  # fmt: skip


def add_row(facts: Facts, row: Request, billed: Billing | None) -> None:
    """Add the row of a request that has ended. It is the authority on the settlement."""
    facts.found_in.append(DATABASE)
    facts.time = facts.time or rfc3339(row.time)
    facts.key, facts.user_id, facts.dialect = row.key_id, row.user_id, row.dialect
    facts.model = facts.model or row.model
    facts.status = facts.status or row.status
    facts.outcome = row.outcome
    facts.upstream = facts.upstream or row.upstream or ""
    facts.served = facts.served or (row.served or "")
    facts.reserved, facts.rule, facts.cost_micro = row.reserved, row.rule, row.cost_micro
    facts.charged = Tokens(row.input, row.output, row.cache_read, row.cache_write)
    facts.us = row.duration_us if facts.us is None else facts.us
    facts.upstream_us = row.ttfb_us if facts.upstream_us is None else facts.upstream_us
    facts.billed = billed


def add_admission(facts: Facts, row: AdmissionRow) -> None:
    """Add the admission of a request whose end is not written."""
    facts.found_in.append(DATABASE)
    facts.state = "open"
    facts.time = rfc3339(row.time)
    facts.key, facts.user_id, facts.dialect = row.key_id, row.user_id, row.dialect
    facts.model, facts.reserved, facts.held_micro = row.model, row.reserved, row.billed_micro


def parse_reasons(text: str, names: Iterable[str]) -> list[Said]:
    """`one: paused; two: 529: overloaded` by upstream. A reason may have `; ` and `: ` itself, so
    an entry begins only with a name that is known."""
    first = _FIRST_NAME.match(text)
    if first is None:
        return [Said("", text)] if text else []
    known = "|".join(re.escape(name) for name in sorted({*names, first[1]}, key=len, reverse=True))
    parts = re.split(rf"(?:^|; )({known}): ", text)[1:]
    return [Said(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]


def tried_last(tried: list[Said]) -> str:
    """The upstream that failed last; a request goes to none twice."""
    return tried[-1].upstream if tried else ""

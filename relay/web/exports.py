"""Exports without a cap: the log and the statement as CSV, all of an account as JSON.

Read and sent piece by piece, so their length does not matter.
"""

import csv
import io
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from starlette.responses import Response, StreamingResponse

from relay.accounts import sessions
from relay.clock import rfc3339
from relay.store import balance, thresholds, usage
from relay.store.keys import list_own_keys
from relay.store.payments import Payment, PaymentFilter, payments
from relay.store.request_log import RequestFilter, own_requests
from relay.store.usage import Request
from relay.web.overview_pages import key_names
from relay.web.pages import Pages
from relay.web.request_pages import read_filter
from relay.web.visit import Visit
from relay.web.way_pages import describe_ways

_ROWS: Final = 500
_COLUMNS: Final = (
    "time", "id", "key", "model", "served", "dialect", "status", "outcome", "rule", "input",
    "output", "cache_read", "cache_write", "cost_usd", "first_ms", "duration_ms",
)  # fmt: skip
_ENTRY_COLUMNS: Final = (
    "time", "entry", "kind", "reason", "amount_usd", "balance_usd", "request", "about", "note",
)  # fmt: skip
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?")


def add(pages: Pages) -> None:
    """Register the pages."""
    pages.get("/dashboard/requests.csv", requests_csv)
    pages.get("/dashboard/balance.csv", statement_csv)
    pages.get("/account/export.json", account_json)


async def _all_requests(visit: Visit, which: RequestFilter) -> AsyncIterator[list[Request]]:
    before: int | None = 2**62
    while before is not None:
        page = await own_requests(visit.database, visit.user.id, which, _ROWS, before)
        if page.rows:
            yield page.rows
        before = page.before


async def requests_csv(visit: Visit) -> Response:
    """The log under its filters, the newest request first."""
    which, _ = read_filter(visit)
    name_of = await key_names(visit)

    async def pieces() -> AsyncIterator[str]:
        yield csv_line(_COLUMNS)
        async for rows in _all_requests(visit, which):
            yield "".join(csv_line(_values(row, name_of(row.key_id))) for row in rows)

    return download(pieces(), "text/csv; charset=utf-8", "requests", "csv")


def _values(row: Request, key: str) -> tuple[object, ...]:
    first = None if row.ttfb_us is None else row.ttfb_us / 1000
    duration = None if row.duration_us is None else row.duration_us / 1000
    return (
        rfc3339(row.time), row.id, key, row.model, row.served or "",
        row.dialect, row.status, row.outcome, row.rule, row.input, row.output,
        row.cache_read, row.cache_write, _usd(row.cost_micro), first, duration,
    )  # fmt: skip


def csv_line(values: tuple[object, ...]) -> str:
    """A line of a CSV; no spreadsheet takes one of its texts for a formula."""
    line = io.StringIO()
    csv.writer(line).writerow(f"'{one}" if _is_formula(one) else one for one in values)
    return line.getvalue()


def _is_formula(value: object) -> bool:
    return isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value)


async def statement_csv(visit: Visit) -> Response:
    """The statement, the newest entry first."""

    async def pieces() -> AsyncIterator[str]:
        yield csv_line(_ENTRY_COLUMNS)
        async for entries in _statement(visit):
            yield "".join(csv_line(_entry_values(one)) for one in entries)

    return download(pieces(), "text/csv; charset=utf-8", "statement", "csv")


def _entry_values(one: balance.Entry) -> tuple[object, ...]:
    return (
        rfc3339(one.time), one.id, one.kind, one.reason, _usd(one.amount_micro),
        _usd(one.balance_after), one.request_id or "", one.about or "", one.note,
    )  # fmt: skip


def _usd(micro: int) -> str:
    """Exact to the micro-dollar, whatever the amount."""
    units, rest = divmod(abs(micro), 10**6)
    return f"{'-' if micro < 0 else ''}{units}.{rest:06d}"


async def account_json(visit: Visit) -> Response:
    """Everything that is kept of an account, but for digests of secrets."""
    user = visit.user
    keys = await list_own_keys(visit.database, user.id)
    opened = await sessions.list_sessions(visit.database, visit.settings.web, user, visit.now)
    which = usage.Filter(user_id=user.id)
    days = await usage.sums(visit.database, "day", which)
    head = {
        "account": msgspec.to_builtins(user),
        "keys": msgspec.to_builtins(keys),
        "sessions": [
            {"created_at": one.created_at, "seen_at": one.seen_at, "address": one.address,
             "agent": one.agent}
            for one in opened
        ],
        "ways_to_log_in": await describe_ways(visit),
        "thresholds": msgspec.to_builtins(await thresholds.choice_of(visit.database, user.id)),
        "usage_by_day": msgspec.to_builtins(days),
    }  # fmt: skip

    async def pieces() -> AsyncIterator[bytes]:
        yield msgspec.json.encode(head)[:-1]
        async for piece in _array("statement", _statement(visit)):
            yield piece
        async for piece in _array("payments", all_payments(visit, PaymentFilter(user.id))):
            yield piece
        async for piece in _array("requests", _all_requests(visit, RequestFilter())):
            yield piece
        yield b"}\n"

    return download(pieces(), "application/json", "account", "json")


async def _statement(visit: Visit) -> AsyncIterator[list[balance.Entry]]:
    before: int | None = None
    while entries := await balance.statement(visit.database, visit.user.id, _ROWS, before):
        yield entries
        before = entries[-1].id


async def all_payments(visit: Visit, which: PaymentFilter) -> AsyncIterator[list[Payment]]:
    """Payments, the newest first."""
    before: int | None = 2**62
    while before is not None:
        page = await payments(visit.database, which, _ROWS, before)
        if page.rows:
            yield page.rows
        before = page.before


async def _array(name: str, source: AsyncIterator[list[Any]]) -> AsyncIterator[bytes]:
    yield b',"%b":[' % name.encode()
    is_first = True
    async for rows in source:
        yield (b"" if is_first else b",") + msgspec.json.encode(rows)[1:-1]
        is_first = False
    yield b"]"


def download(
    pieces: AsyncIterator[str] | AsyncIterator[bytes], kind: str, name: str, suffix: str
) -> Response:
    """A file that a browser saves, sent piece by piece."""
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    disposition = f'attachment; filename="{name}-{day}.{suffix}"'
    return StreamingResponse(pieces, media_type=kind, headers={"content-disposition": disposition})

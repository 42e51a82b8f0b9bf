"""The journal's transactions: each function here is one, or a part of one.

Decides how entries are laid out in SQL. Must not know when they are written.

`write` puts new entries on disk: the admitted requests and the state of their limits, together in
one row of `batch`, since an answer may be waiting for them; and a row of `usage` for each request
that ended, with its charge. Now and then `fold` brings those into the tables that are read: the
sums of `usage_hour` and `answer_day`, and the state of each limit. A crash between the two loses
nothing (`recover`).

Why two steps: rows that are written twice, or by triggers, cost twice. Measured, CPU per request
under full load, with the rest of the metering: insert first and update later, triggers for sums and
charges: 46 µs; this: 25 to 30.
"""

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain, starmap
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec.structs import astuple

from relay.store import answers
from relay.store.database import transaction

_log = logging.getLogger(__name__)

# scope, owner, kind, per (seconds), refill, size, used, moment (ms): as the ledger gives them.
BucketRow: TypeAlias = tuple[str, str, str, int, str, int, int, int]
MONEY: Final = "money"  # the kind of a row with charges
CHARGED: Final = "charged"  # the refill of such a row, which the statement has already

# How a request was settled. reported: by the upstream's usage; partial: by the usage reported
# until the answer was cut, and the length of its text; left: by its prompt, as its caller left
# before the answer said anything; reserved: by the reservation, as nothing was reported;
# refunded: not at all; crashed: by the reservation, as the relay ended first.
Rule: TypeAlias = Literal["reported", "partial", "left", "reserved", "refunded", "crashed"]


class AdmissionRow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A request that was admitted."""

    id: str
    time: float
    key_id: str
    user_id: str
    model: str
    dialect: str
    reserved: int  # tokens
    billed_micro: int  # its charge if the relay ends first; 0: not billed by the token


class Settlement(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How a request ended."""

    id: str
    status: int | None
    served: str | None
    upstream: str | None
    input: int | None
    output: int | None
    cache_read: int | None
    cache_write: int | None
    cost_micro: int
    ttfb_us: int | None
    duration_us: int | None
    outcome: str
    rule: Rule


class Charge(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The cost of a request that is billed by the token."""

    user_id: str
    time: float
    micro: int  # above zero
    request_id: str
    note: str


# A row of `usage` has both.
_FIELDS: Final = (*AdmissionRow.__struct_fields__[:-1], *Settlement.__struct_fields__[1:])
_ROW: Final = "(" + ", ".join("?" * len(_FIELDS)) + ")"
_COLUMNS: Final = ", ".join(_FIELDS)
_MAX_INSERT_ROWS: Final = 1024  # of 19 values; a statement takes up to 32,766 values
_MAX_COUNT: Final = 10**12  # tokens or micro-dollars of a request; millions can be summed up
_MAX_INTEGER: Final = 2**63 - 1  # of SQLite; JSON would take more
_FOLD_ROWS: Final = 8_000  # about 10 ms, for which the journal waits

_BATCH: Final = """INSERT INTO batch (number, after, opened, buckets)
    VALUES (?, (SELECT coalesce(max(number), 0) FROM usage), ?, ?)"""
_CHARGE: Final = """INSERT INTO statement
        (user_id, time, kind, amount_micro, balance_after, request_id, note)
    VALUES (?1, ?2, 'charge', -?3,
        coalesce((SELECT micro FROM balance WHERE user_id = ?1), 0) - ?3, ?4, ?5)"""
_BUCKET: Final = """INSERT INTO bucket (scope, owner, kind, per, refill, size, used, moment)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET refill = excluded.refill, size = excluded.size,
        used = excluded.used, moment = excluded.moment"""
_SUM: Final = """INSERT INTO usage_hour
    SELECT hour, user_id, key_id, model, sum(requests), sum(refunded), sum(input), sum(output),
        sum(cache_read), sum(cache_write), sum(estimated), sum(cost_micro)
    FROM usage_lately WHERE number <= ? GROUP BY 1, 2, 3, 4
    ON CONFLICT DO UPDATE SET
        requests = requests + excluded.requests,
        refunded = refunded + excluded.refunded,
        input = input + excluded.input,
        output = output + excluded.output,
        cache_read = cache_read + excluded.cache_read,
        cache_write = cache_write + excluded.cache_write,
        estimated = estimated + excluded.estimated,
        cost_micro = cost_micro + excluded.cost_micro"""

_SUM_UPSTREAMS: Final = """INSERT INTO upstream_day
    SELECT CAST(time AS INTEGER) / 86400 * 86400, upstream, count(*),
        sum(coalesce(input, 0) + coalesce(output, 0) + coalesce(cache_read, 0)
            + coalesce(cache_write, 0)), sum(cost_micro)
    FROM usage WHERE upstream IS NOT NULL AND number > ? AND number <= ? GROUP BY 2, 1
    ON CONFLICT DO UPDATE SET
        requests = requests + excluded.requests,
        tokens = tokens + excluded.tokens,
        cost_micro = cost_micro + excluded.cost_micro"""


class Batch:
    """Entries that are written together."""

    __slots__ = ("applied", "buckets", "charges", "ended", "number", "opened")

    def __init__(self) -> None:
        self.number = 0  # given when it is written
        self.opened: list[AdmissionRow] = []
        self.ended: list[tuple[AdmissionRow, Settlement]] = []
        self.charges: list[Charge] = []
        self.buckets: list[BucketRow] = []
        self.applied: list[tuple[int, float]] = []  # adjustments, and when


def write(connection: sqlite3.Connection, entries: Batch) -> None:
    """Write all entries or, if this raises, none."""
    for row in entries.buckets:
        if row[6] > _MAX_INTEGER:
            raise OverflowError("no column could hold it")
    if not entries.ended and not entries.applied:  # one statement is a transaction by itself
        _write_batch(connection, entries)
        return
    with transaction(connection):
        if entries.opened or entries.buckets:
            _write_batch(connection, entries)
        _write_rows(connection, entries.ended)
        for charge in entries.charges:
            connection.execute(_CHARGE, astuple(charge))
        _note_applied(connection, entries)


def _note_applied(connection: sqlite3.Connection, entries: Batch) -> None:
    for adjustment, now in entries.applied:
        connection.execute("UPDATE adjustment SET applied_at = ? WHERE id = ?", (now, adjustment))


def write_row_by_row(connection: sqlite3.Connection, entries: Batch) -> None:
    """Write entries after `write` failed for one of `DATA_ERRORS`. Bounds every value; drops only
    the rows that SQLite still rejects."""
    bounded = Batch()
    bounded.number = entries.number
    bounded.opened = [AdmissionRow(*map(_bounded, astuple(row))) for row in entries.opened]
    # A moment is above `_MAX_COUNT`. The same rows are folded later.
    bounded.buckets = [tuple(_bounded(v, _MAX_INTEGER) for v in row) for row in entries.buckets]
    entries.buckets = bounded.buckets
    with transaction(connection):
        _write_batch(connection, bounded)
        for pair in entries.ended:
            _execute_or_drop(connection, _insert(1), _row(*pair))
        for charge in entries.charges:
            _execute_or_drop(connection, _CHARGE, astuple(charge))
        _note_applied(connection, entries)


def _write_batch(connection: sqlite3.Connection, entries: Batch) -> None:
    encode = msgspec.json.encode
    opened, buckets = encode(entries.opened).decode(), encode(entries.buckets).decode()
    connection.execute(_BATCH, (entries.number, opened, buckets))


def _row(admission: AdmissionRow, settlement: Settlement) -> tuple[Any, ...]:
    return astuple(admission)[:-1] + astuple(settlement)[1:]


def _write_rows(
    connection: sqlite3.Connection, ended: Sequence[tuple[AdmissionRow, Settlement]]
) -> None:
    """Insert all rows in few statements: `executemany` releases the GIL for each row."""
    for start in range(0, len(ended), _MAX_INSERT_ROWS):
        part = ended[start : start + _MAX_INSERT_ROWS]
        # Padded to a power of two, so that there are few statements to prepare.
        size = 1 << (len(part) - 1).bit_length()
        padding = (None,) * (len(_FIELDS) * (size - len(part)))
        values = chain.from_iterable(starmap(_row, part))
        connection.execute(_insert(size), [*values, *padding])


@cache
def _insert(rows: int) -> str:
    values = ", ".join([_ROW] * rows)
    return (
        f"INSERT INTO usage ({_COLUMNS}) SELECT * FROM (VALUES {values}) "  # noqa: S608
        "WHERE column1 IS NOT NULL"
    )


# Errors of an entry rather than of the database file.
DATA_ERRORS: Final = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    msgspec.MsgspecError,
    OverflowError,
    UnicodeError,
)


def _execute_or_drop(connection: sqlite3.Connection, statement: str, row: tuple[Any, ...]) -> None:
    try:
        connection.execute(statement, [_bounded(value) for value in row])
    except DATA_ERRORS as error:
        _log.error("the journal dropped an entry %r: %s", row, error)


def _bounded(value: Any, largest: int = _MAX_COUNT) -> Any:
    """The nearest value that SQLite can hold and sum up: an upstream may report anything."""
    if isinstance(value, str):  # a lone surrogate has no UTF-8
        return value.encode(errors="replace").decode()
    if isinstance(value, int):
        return max(-largest, min(value, largest))
    return value


def fold(
    connection: sqlite3.Connection, upto: int, closed: Sequence[int], buckets: Iterable[BucketRow]
) -> bool:
    """Bring the entries of batches up to number `upto` into the sums and limits that are read, and
    delete the closed batches. Runs in a transaction. Returns whether there is more to do."""
    connection.executemany(_BUCKET, buckets)
    numbers = msgspec.json.encode(closed).decode()
    connection.execute(
        "DELETE FROM batch WHERE number IN (SELECT value FROM json_each(?))", (numbers,)
    )
    connection.execute(
        "UPDATE batch SET buckets = '[]' WHERE number <= ? AND buckets <> '[]'", (upto,)
    )
    last: int
    done: int
    last, done = connection.execute(
        "SELECT (SELECT coalesce(max(number), 0) FROM usage), upto FROM summed"
    ).fetchone()
    until = min(last, done + _FOLD_ROWS)
    if until > done:
        connection.execute(_SUM, (until,))
        connection.execute(_SUM_UPSTREAMS, (done, until))
        connection.execute(answers.SUM, (done, until))
    if until != done:
        connection.execute("UPDATE summed SET upto = ?", (until,))
    return until < last


class Recovered(msgspec.Struct, frozen=True):
    """The contents of an earlier process's batches. `number` is the last batch's."""

    crashed: list[AdmissionRow]
    running: list[tuple[int, AdmissionRow]]  # with the number of its batch
    number: int


def recover(connection: sqlite3.Connection, now: float, *, alive: bool = False) -> Recovered:
    """Fold what an earlier process left behind. Its requests in flight are settled as reserved; if
    it is `alive`, they are running still. Runs in a transaction, before the journal writes
    anything."""
    opened: list[tuple[int, AdmissionRow]] = []
    buckets: dict[tuple[str, str, str, int], BucketRow] = {}
    numbers: list[int] = []
    first_after = 0
    decode = msgspec.json.decode
    for number, after, admissions, changed in connection.execute(
        "SELECT * FROM batch ORDER BY number"
    ):
        opened += [(number, row) for row in decode(admissions, type=list[AdmissionRow])]
        buckets.update((row[:4], row) for row in decode(changed, type=list[BucketRow]))
        first_after = after if not numbers else min(after, first_after)
        numbers.append(number)
    found = connection.execute("SELECT id FROM usage WHERE number > ?", (first_after,))
    ended = {id for (id,) in found} if numbers else set()
    # Of a request that was admitted twice, because its plan had changed, the last row holds.
    last_rows = {row.id: (number, row) for number, row in opened if row.id not in ended}
    running = list(last_rows.values())
    crashed = [] if alive else [row for _, row in running]
    running = running if alive else []
    _write_rows(connection, [(request, crash_settlement(request)) for request in crashed])
    for request in crashed:
        if (charge := crash_charge(request, now)) is not None:
            connection.execute(_CHARGE, astuple(charge))
    kept = {number for number, _ in running}
    closed = [number for number in numbers if number not in kept]
    last = max(numbers, default=0)
    while fold(connection, last, closed, buckets.values()):
        pass
    return Recovered(crashed, running, last)


def crash_charge(request: AdmissionRow, now: float) -> Charge | None:
    """The charge of a request that its process never settled."""
    if not request.billed_micro:
        return None
    note = "settled by rule: crashed"
    return Charge(request.user_id, now, request.billed_micro, request.id, note)


def crash_settlement(request: AdmissionRow) -> Settlement:
    """The settlement of a request that its process never settled: as reserved."""
    return Settlement(
        request.id, None, None, None, None, None, None, None, request.billed_micro, None, None,
        "failed: the relay was ended", "crashed",
    )  # fmt: skip

"""One request by its id, or by the beginning of it: its row, its admission, its charge.

`usage` has no index by id, since that would cost every request. The table is searched in steps
from its end, so that no page and no other reader waits for long. Must not know who looks.
"""

from typing import Final

import msgspec

from relay.store.database import Database
from relay.store.records import AdmissionRow
from relay.store.usage import Request

_STEP_ROWS: Final = 20_000  # about 10 ms
_MAX_FOUND: Final = 6
_ID_LENGTH: Final = 36
_AFTER_DIGITS: Final = "g"  # sorts after each hexadecimal digit
_COLUMNS: Final = ", ".join(Request.__struct_fields__)
_FIELDS: Final = ", ".join(AdmissionRow.__struct_fields__)


class Billing(msgspec.Struct, frozen=True):
    """What a request took from its account's balance, in micro-dollars."""

    charged: int
    note: str
    given_back: bool  # by `relay user refund`


async def find_requests(database: Database, prefix: str) -> list[Request]:
    """The requests whose id begins with `prefix`; a few at most. A complete id ends the search."""
    rows = await database.select("SELECT min(number) - 1, max(number) FROM usage")
    first, last = rows[0]
    found: list[Request] = []
    while last is not None and last > first and len(found) < _MAX_FOUND:
        step = await database.select(
            f"""SELECT {_COLUMNS} FROM usage WHERE number > ? AND number <= ?
                AND id >= ? AND id < ? ORDER BY number DESC LIMIT ?""",  # noqa: S608
            (last - _STEP_ROWS, last, prefix, prefix + _AFTER_DIGITS, _MAX_FOUND),
        )
        found += [Request(*row) for row in step]
        if found and len(prefix) == _ID_LENGTH:
            break
        last -= _STEP_ROWS
    return found


async def find_admitted(database: Database, prefix: str) -> list[AdmissionRow]:
    """The running requests whose id begins with `prefix`; a few at most."""
    rows = await database.select(
        f"SELECT {_FIELDS} FROM running WHERE id >= ? AND id < ? LIMIT ?",  # noqa: S608
        (prefix, prefix + _AFTER_DIGITS, _MAX_FOUND),
    )
    return [AdmissionRow(*row) for row in rows]


async def billing(database: Database, request_id: str) -> Billing | None:
    """What a request took from a balance; None: nothing."""
    rows = await database.select(
        """SELECT -amount_micro, note, EXISTS (
               SELECT 1 FROM statement WHERE reason = 'refund' AND about = ?1)
           FROM statement WHERE request_id = ?1""",
        (request_id,),
    )
    return Billing(rows[0][0], rows[0][1], bool(rows[0][2])) if rows else None

"""The use of limits from before a relay joined, brought into the windows that all nodes share.

Decides what a row of the ledger is to a window: a limit that refills smoothly is a window from now
on, and a balance is one without an end. Must not know when a node joins.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from relay.cluster.link import Connection, Link
from relay.cluster.windows import ENDLESS, owner_window_name, upstream_owner
from relay.quota.bucket import FixedWindow, convert_bucket, new_bucket
from relay.quota.state import BONUS, UPSTREAM, Row
from relay.store.database import Database
from relay.store.records import CHARGED
from relay.store.replication import use

_BRING: Final = (
    "SELECT relay.bring_use(%s, %s::bigint, %s::bigint, %s::text[], %s::bigint[], %s::bigint[],"
    " %s::bigint[], %s::bigint[], %s::bigint[], %s::int[])"
)


class WindowUse(NamedTuple):
    """The use of a window, or its bonus. `ends_in`: milliseconds; `bonus_windows`: those that will
    have the bonus, the present one left out."""

    window: str
    size: int
    per: int  # milliseconds
    used: int = 0
    ends_in: int = 0
    bonus: int = 0
    bonus_windows: int = 0


async def bring(database: Database, link: Link, node: str, addresses: Mapping[str, str]) -> None:
    """Bring all use that a database noted when it joined, in calls of some rows, each of which
    counts once. `addresses`: of upstreams, by their names.

    Raises:
        EngineAwayError: PostgreSQL is away; what it lacks stays noted.
        EngineRefusalError, SchemaError: it cannot be used.
        StoreError: SQLite failed.
    """
    while (batch := await database.run(use.next_batch)) is not None:
        brought = list(uses(batch.rows, int(time.time() * 1000), addresses))
        await link.call(partial(_bring, node=node, place=(batch.first, batch.upto), uses=brought))
        await database.write(partial(use.note_brought, upto=batch.upto))


def uses(rows: Sequence[Row], now: int, addresses: Mapping[str, str]) -> Iterator[WindowUse]:
    """The use in rows of the ledger at this moment (epoch ms); none where a window is over, or its
    upstream is not configured any more."""
    for scope, name, kind, per, refill, size, used, moment in rows:
        owner = name
        if name.startswith(UPSTREAM):
            address = addresses.get(name.removeprefix(UPSTREAM))
            if address is None:
                continue
            owner = upstream_owner(name, address)
        window = owner_window_name(scope, owner, kind.removeprefix(BONUS), per)
        if refill == CHARGED:
            yield WindowUse(window, size, ENDLESS, used, ENDLESS)
        elif kind.startswith(BONUS):
            if moment > now:
                yield WindowUse(window, 0, per * 1000, bonus=size, bonus_windows=used)
        else:
            bucket = new_bucket(refill, size, per * 1000, used, moment)
            if not isinstance(bucket, FixedWindow):
                bucket = convert_bucket(bucket, "window", size, now)
            if amount := bucket.used_units(now):
                yield WindowUse(window, size, per * 1000, amount, bucket.reset_at(now) - now)


async def _bring(
    connection: Connection, node: str, place: tuple[int, int], uses: Sequence[WindowUse]
) -> None:
    """Bring the use in the entries of the outbox from the first up to the last of `place`; nothing
    is done if PostgreSQL has them: a reply was lost."""
    columns: Sequence[Sequence[Any]] = list(zip(*uses, strict=True)) or [()] * 7
    await connection.execute(_BRING, [node, *place, *[list(one) for one in columns]])

"""What `relay doctor` finds out about the ledger that several relays share.

Decides what is a fault. Must not know how nodes share limits.
"""

import asyncio
import time
from collections.abc import Iterator

from relay import config
from relay.cli.doctor.findings import Finding, fault, passed, warning
from relay.cli.output import counted

_SLOW_SECONDS = 0.5
_MANY_CHANGES = 1_000
_WHAT = "ledger"


def examine(settings: config.Settings) -> Iterator[Finding]:
    """Reach it, and show its state."""
    if not settings.ledger.url:
        return
    yield from _waiting(settings)
    try:
        url = settings.ledger.resolved_url()
    except ValueError as error:
        yield fault(_WHAT, f"ledger.url: {error}", _remedy(settings.ledger.url, str(error)))
        return
    try:
        from relay.cluster.joining import node_name
        from relay.cluster.link import EngineAwayError, EngineRefusalError
        from relay.cluster.node import engine_figures
        from relay.cluster.nodes import blocked_acts, nodes_with_lost_leases
        from relay.cluster.probe import find_fault
        from relay.cluster.schema import NoSchemaError, SchemaError
    except ImportError as error:
        needed, _, command = config.missing_client().partition(": ")
        yield fault(_WHAT, f"ledger.url {needed} ({error})", command)
        return
    obstacle = asyncio.run(find_fault(url))
    if obstacle is not None:
        yield fault(_WHAT, obstacle.found, obstacle.remedy)
        return
    started = time.monotonic()
    try:
        found = asyncio.run(engine_figures(url))
        seconds = time.monotonic() - started
        blocked = asyncio.run(blocked_acts(url))
        losers = asyncio.run(nodes_with_lost_leases(url)) if found.lost else {}
    except (EngineAwayError, EngineRefusalError) as error:
        yield fault(_WHAT, f"it does not answer: {error}", "start PostgreSQL, or correct the URL")
        return
    except NoSchemaError as error:
        state, _, remedy = str(error).partition("; ")
        yield warning(_WHAT, state, remedy)
        return
    except SchemaError as error:
        yield fault(_WHAT, str(error), "start a relay of the newest version that shares it")
        return
    state = (
        f"this relay is {node_name(settings)}; {counted(found.nodes, 'relay')}, "
        f"{counted(found.windows, 'open window')}, {counted(found.leases, 'lease')} with "
        f"{found.unused:,} unused, {found.lost:,} reclaimed; "
        f"{seconds * 1000:.0f} ms to connect and ask"
    )
    if found.lost:
        yield warning(_WHAT, state, _lost_leases(losers))
    elif seconds > _SLOW_SECONDS:
        yield warning(_WHAT, state, "put PostgreSQL nearer to the relays")
    else:
        yield passed(_WHAT, state)
    for node, acts in blocked.items():
        yield warning(
            _WHAT,
            f"node {node} is silent, and nobody may do what it had begun: {', '.join(acts)}",
            f"start it again; if it is gone for good: relay ledger forget {node}",
        )


def _remedy(url: str, error: str) -> str:
    """What can be done about `ledger.url`, which leads to no URL."""
    kind, _, name = url.partition(":")
    if kind == "env" and error.endswith("is not set"):
        return f"set {name} for the relay, and where this runs"
    return f"correct {name}" if kind in ("env", "file") else "correct ledger.url"


def _lost_leases(losers: dict[str, bool]) -> str:
    """What can be done about them. `losers`: nodes, and whether each may come back."""
    silent = [node for node, can_return in losers.items() if can_return]
    if silent:
        return (
            f"start {', '.join(silent)}: its journal says what was used of these leases; without "
            "it they count as used until their windows end"
        )
    forgotten = ", ".join(losers)
    return f"they count as used until their windows end: {forgotten} was forgotten"


def _waiting(settings: config.Settings) -> Iterator[Finding]:
    """The changes of this relay that no other one has."""
    from relay.store.database import Database, StoreError, migrations, schema_of
    from relay.store.replication import outbox

    path = settings.database.path

    async def count() -> int:
        database = await Database.open(path)
        try:
            found = await database.select(outbox.UNSENT, latest=False)
            return int(found[0][0]) if found else 0
        finally:
            await database.close()

    try:
        if schema_of(path) != len(migrations()):  # a relay of this version has yet to start
            return
        unsent = asyncio.run(count())
    except StoreError as error:
        yield fault(_WHAT, str(error), "see `relay database status`")
        return
    if unsent > _MANY_CHANGES:
        yield warning(
            _WHAT,
            f"{unsent:,} changes wait to be shared: no other relay has them",
            "start this relay and PostgreSQL; relay_shared_rows_waiting_seconds says since when",
        )
    else:
        yield passed(_WHAT, f"{unsent:,} changes wait to be shared")

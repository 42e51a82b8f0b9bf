"""The running relay as its operator sees it: all its processes, read when somebody looks.

Decides what is read on the loop, and what is done on a thread. Must not know how figures are
counted, added up or rendered.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import partial
from operator import add
from typing import Any, Final

import msgspec

from relay import __version__
from relay.api.families import Present, families, of_files, of_journal, of_processes
from relay.api.figures import (
    Figures,
    SeriesFigures,
    UpstreamFigures,
    merged,
    read_series,
)
from relay.api.ledger_families import of_ledger, of_replication
from relay.api.live import RunningRequests, merged_failures, merged_running, read_running
from relay.api.others import OtherFigures, Others
from relay.api.reading import Parts, read_figures, read_pieces
from relay.clock import rfc3339
from relay.gateway.watch import Failure, Watch
from relay.net.descriptors import descriptor_limits
from relay.net.off_loop import off_loop
from relay.telemetry.exposition import Family, render
from relay.telemetry.processes import ProcessTable

OWNER: Final = "owner"  # the name of this process beside workers
_SHOWN_LIMITS: Final = 12
_LATENCY_FIELDS: Final = ("requests", "seconds", "streams", "first_seconds")
_PAUSE_SECONDS: Final = 0.0005  # of a thread, which leaves the loop as much time as it takes


@dataclass(frozen=True, slots=True)
class RelayFigures:
    """The figures of all processes together, `own` ones without their series, and those of
    `others`; None: there are none."""

    total: Figures
    own: Figures
    others: OtherFigures | None


class Monitor:
    """Reads a relay's parts, and asks the processes beside this one: `others`, if there are."""

    def __init__(self, parts: Parts, watch: Watch, database: str) -> None:
        """`database` is its path."""
        self._database = database
        self._parts = parts
        self._longest_lag = 0.0  # since the last scrape
        self._table = ProcessTable()
        self.watch = watch
        self.upstreams = parts.upstreams
        self.others: Others | None = None

    # --- figures ---

    def read(self) -> Figures:
        """This process's figures, all but its series."""
        return read_figures(self._parts, self.watch)

    def pieces(self) -> AsyncIterator[list[SeriesFigures]]:
        """This process's series, in pieces; other work of the loop comes between two of them."""
        return read_pieces(self._parts)

    def read_all(self) -> Figures:
        """This process's figures, in one go."""
        figures = self.read()
        figures.series = [one for piece in read_series(self._parts.requests) for one in piece]
        return figures

    async def figures(self) -> RelayFigures:
        """The figures of all processes."""
        others = None if self.others is None else await self.others.figures()
        own, pieces = self.read(), [piece async for piece in self.pieces()]
        if others is None:
            total = own
            total.series = [one for piece in pieces for one in piece]
        else:
            total = await off_loop("figures", partial(_together, own, pieces, others))
        self._longest_lag = total.longest_lag = max(self._longest_lag, total.longest_lag)
        return RelayFigures(total, own, others)

    async def rows(self, total: Figures) -> list[dict[str, Any]]:
        """The state of each upstream, as `Upstreams.view`, with the counts of all processes.

        Health, limits and cost are those that this process knows: they are of all.
        """
        owners = [(one.limits, one.ledger_name) for one in self.upstreams if one.limits is not None]
        await self._parts.ledger.refresh(owners, time.time())
        rows = self.upstreams.view()
        counted = {one.name: one for one in total.upstreams}
        found = [counted.get(str(row["name"])) or UpstreamFigures("") for row in rows]
        answered = sum(one.answered for one in found) or 1
        for row, one in zip(rows, found, strict=True):
            row.update(
                in_flight=one.in_flight,
                requests=one.requests,
                answered=one.answered,
                share=round(one.answered / answered, 4),
                other_model=one.other_model,
            )
        return rows

    async def view(self) -> list[dict[str, Any]]:
        """The state of each upstream, see `rows`."""
        return await self.rows((await self.figures()).total)

    # --- requests ---

    async def running(self) -> RunningRequests:
        """The requests of the API in flight."""
        others = () if self.others is None else await self.others.running()
        return merged_running([read_running(self.watch), *others])

    async def failures(self) -> list[Failure]:
        """The latest failures since the start, the latest last."""
        if self.others is None:
            return list(self.watch.failures)
        others = await self.others.failures()
        return merged_failures([self.watch.failures, *others])

    # --- for the operator ---

    async def status(self) -> tuple[dict[str, object], Figures]:
        """The present state, in the shape of `relay top --json` but for the upstreams, and the
        figures that it is from."""
        parts, all_of_them = self._parts, await self.figures()
        total = all_of_them.total
        requests, by_code, latencies = await off_loop("status", partial(_sums, total.series))
        status: dict[str, object] = {
            "version": __version__,
            "now": time.time(),
            "started_at": parts.started_at,
            "requests": requests,
            "by_code": by_code,
            "in_flight": total.in_flight,
            "in_flight_limit": total.in_flight_limit,
            "shed": total.shed,
            "waiting": total.waiting,
            "connections": total.connections,
            "descriptor_limits": descriptor_limits(),  # soft and hard
            "held_bytes": total.held,
            "loop_lag_seconds": total.latest_lag,
            "journal": {
                "healthy": parts.journal.healthy,
                "failure": parts.journal.failure,
                "unwritten": parts.journal.unwritten,
            },
            "latencies": latencies,
            "limits": await self._tightest(),
        }
        if all_of_them.others is not None:
            status["workers"] = _workers(all_of_them.own, all_of_them.others)
        return status, total

    async def _tightest(self) -> list[dict[str, object]]:
        """The keys that have used most of a limit."""
        parts = self._parts
        rows = parts.ledger.tightest(time.time(), _SHOWN_LIMITS)
        owners = [(state.plan, state.counters.owner) for state, _, _ in rows]
        await parts.ledger.refresh(owners, time.time())
        rows = parts.ledger.tightest(time.time(), _SHOWN_LIMITS)
        emails = parts.keys.emails({state.key for state, _, _ in rows})
        return [
            {
                "key": state.key,
                "account": emails[state.key],
                "plan": state.plan.name,
                "limit": limit.name,
                "used": round(share, 3),
                "reset": rfc3339(limit.reset),
            }
            for state, limit, share in rows
            if state.key in emails  # neither a revoked key nor an upstream's own plan
        ]

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The metrics as text, and its content type. The text is written on a thread."""
        parts, figures = self._parts, await self.figures()
        self._longest_lag = 0.0
        present = Present(
            self.upstreams.view(),
            of_journal(parts.journal),
            dict(parts.certificates()),
            parts.started_at,
            _of_shared(parts),
        )
        work = partial(_render, figures, present, self._database, self._table, accept)
        return await asyncio.get_running_loop().run_in_executor(None, work)


def _of_shared(parts: Parts) -> list[Family]:
    """The figures of the ledger and the rows that machines share."""
    found = [] if parts.node is None else of_ledger(parts.node())
    if parts.replication is not None:
        found += of_replication(parts.replication())
    return found


def _pause() -> None:
    time.sleep(_PAUSE_SECONDS)


def _together(own: Figures, pieces: list[list[SeriesFigures]], others: OtherFigures) -> Figures:
    """Those of all processes. Changes no figures but the series of `own`, which it takes."""
    mine = msgspec.structs.replace(own, series=[one for piece in pieces for one in piece])
    return merged([mine, *others.running.values(), others.ended], _pause)


def _render(
    figures: RelayFigures, present: Present, database: str, table: ProcessTable, accept: str
) -> tuple[bytes, str]:
    others = figures.others
    found = [*families(figures.total, present), *of_files(database)]
    if others is None:
        return render(found, accept)
    pids = {name: one.pid for name, one in _by_name(figures.own, others)}
    found += [*of_processes(others), *table.read(pids)]
    return render(found, accept, with_process=False)


def _by_name(own: Figures, others: OtherFigures) -> list[tuple[str, Figures]]:
    """Each process that runs, this one first; workers have the numbers that the log names."""
    return [(OWNER, own), *((str(number), one) for number, one in sorted(others.running.items()))]


def _workers(own: Figures, others: OtherFigures) -> dict[str, object]:
    """The processes in the shape of `relay top --json`."""
    silent = set(map(str, others.silent))
    return {
        "restarts": others.restarts,
        "processes": [
            {
                "process": name,
                "pid": one.pid,
                "answers": name not in silent,
                "in_flight": one.in_flight,
                "connections": one.connections,
                "loop_lag_seconds": one.latest_lag,
            }
            for name, one in _by_name(own, others)
        ],
    }


def _sums(
    series: Iterable[SeriesFigures],
) -> tuple[int, dict[str, int], dict[str, dict[str, float]]]:
    """The number of requests, the same by code, and for each upstream the number and the seconds
    of its requests and of first events."""
    codes = [0] * 10
    found: dict[str, dict[str, float]] = {}
    requests = 0
    for one in series:
        number = one.durations.number
        requests += number
        codes = list(map(add, codes, one.by_status))
        sums = found.setdefault(one.upstream, dict.fromkeys(_LATENCY_FIELDS, 0.0))
        sums["requests"] += number
        sums["seconds"] += one.durations.total / 1e6
        sums["streams"] += one.first_events.number
        sums["first_seconds"] += one.first_events.total / 1e6
    found.pop("", None)
    return requests, {f"{digit}xx": codes[digit] for digit in range(2, 6)}, found

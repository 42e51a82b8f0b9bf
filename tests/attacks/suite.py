"""Every finding of a hostile review, attacked again beside an honest caller: `make attacks`.

The attacks are tests of this repository, named in `FINDINGS`. Here they run with an honest caller
of another account at each relay that they start, and a table shows what became of that caller.
`python -m tests.attacks.suite [FINDING ...]` runs all, or those named.
"""

import asyncio
import contextlib
import ctypes
import gc
import multiprocessing
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from relay.accounts import users
from tests.attacks import honest
from tests.attacks.findings import FINDINGS, Finding
from tests.fakes import live

GAP_SECONDS = 0.05  # between two events of the honest caller's stream, for 99 of 100
GROWTH_OCTETS = 64 * 1024 * 1024  # of the process, in all
SUITE_SECONDS = 60
PROCESSES = 3
MODEL = PLAN = "honest"
EMAIL = "honest@example.com"
_LIBC = ctypes.CDLL(None)
ROOT = Path(__file__).parents[2]


class HonestBeside:
    """An honest caller beside a relay: an account, a plan, a model and an upstream of its own."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream

    def extend(self, tree: dict[str, Any]) -> None:
        """See `Beside`. The other models stay with the upstreams that the test has."""
        routes = [{"upstream": row["name"]} for row in tree["upstream"]]
        price = {"input": 3.0, "output": 15.0}
        tree["upstream"] = [*tree["upstream"], live.upstream_row(MODEL, self._upstream)]
        own = {"id": MODEL, "routes": [{"upstream": MODEL}], "price": price}
        tree["model"] = [*({"routes": routes, **model} for model in tree["model"]), own]
        tree["plan"] = [*tree["plan"], {"id": PLAN}]

    @contextlib.asynccontextmanager
    async def run(self, relay: live.Live) -> AsyncIterator[None]:
        """See `Beside`."""
        await users.create(
            relay.app.database, relay.settings, EMAIL, plan=PLAN, is_admin=False, now=time.time()
        )
        caller = honest.HonestCaller(relay.port, await relay.new_key(EMAIL), MODEL)
        caller.start()
        try:
            yield
            await asyncio.to_thread(caller.ask)
        finally:
            await asyncio.to_thread(caller.stop)


class Row:
    """What became of one finding."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        self.passed = self.failed = 0
        self.gaps: list[float] = []
        self.statuses: list[int] = []
        self.grown = 0
        self.seconds = 0.0

    @property
    def holds(self) -> bool:
        """Whether it is mended, and the honest caller was not harmed."""
        served = all(status == 200 for status in self.statuses)
        return bool(self.passed) and not self.failed and served and self.gap <= GAP_SECONDS

    @property
    def gap(self) -> float:
        """The 99th percentile of the gaps of the honest caller's stream, in seconds."""
        return honest.percentile(self.gaps, 0.99)

    def line(self) -> str:
        """The row of the table."""
        served = sum(status == 200 for status in self.statuses)
        gap = f"{self.gap * 1000:6.1f} ms" if self.gaps else "        –"
        answered = f"{served} of {len(self.statuses)}" if self.statuses else "–"
        verdict = "ok" if self.holds else "FAILED"
        return (
            f"{self.finding.name:4} {self.finding.attack:58.58} {self.finding.before:38} "
            f"{self.passed:3} {self.failed:3} "
            f"{gap} {answered:>9} {self.grown / 2**20:+6.1f} {self.seconds:5.1f} {verdict}"
        )


class Suite:
    """A plug-in of pytest: chooses the tests, and draws the table."""

    def __init__(self, findings: list[Finding]) -> None:
        self.rows = {finding.name: Row(finding) for finding in findings}
        self._found: dict[str, Row] = {}  # by the node id of a test
        self._before = 0

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        """Keep the attacks, in the order of the findings."""
        chosen = []
        for row in self.rows.values():
            for item in items:
                if row.finding.has(item.nodeid):
                    self._found[item.nodeid] = row
                    chosen.append(item)
        items[:] = chosen

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test's result and what its honest callers have seen."""
        row = self._found[report.nodeid]
        row.seconds += report.duration
        if report.failed:
            row.failed += 1
        elif report.when == "call":
            row.passed += 1
        if report.when == "teardown":
            for caller in honest.callers:
                row.gaps += caller.gaps
                row.statuses += caller.statuses
            honest.callers.clear()
            gc.collect()
            _LIBC.malloc_trim(0)  # what is freed is not held, even if the allocator keeps it
            octets = psutil.Process().memory_info().rss
            self._before = self._before or octets  # after the first, which has imported all
            row.grown = octets - self._before


def show(rows: list[Row], grown: int, seconds: float) -> bool:
    """Draw the table; whether everything holds. `grown`: octets, of all processes."""
    print("attacks, with an honest caller beside")
    columns = f"{'ok':>3} {'not':>3} {'p99 gap':>9} {'answered':>9}    MiB     s"
    print(f"{'':4} {'attack':58} {'before':38} {columns}")
    for row in rows:
        print(row.line())
    print(f"{seconds:.0f} s of {SUITE_SECONDS}; memory at most +{grown / 2**20:.1f} MiB of 64")
    return all(row.holds for row in rows) and grown <= GROWTH_OCTETS


def attack(names: list[str]) -> tuple[int, list[Row]]:
    """Run the attacks of these findings in this process: pytest's exit status, and the rows."""
    suite = Suite([one for one in FINDINGS if one.name in names])
    files = sorted({str(ROOT / path) for row in suite.rows.values() for path in row.finding.files})
    with honest.distant_upstream() as url:
        live.beside.append(HonestBeside(url))
        options = ["-p", "no:xdist", "-p", "no:cacheprovider", "-m", "not long"]
        status = pytest.main([*options, *files], plugins=[suite])
    return int(status), list(suite.rows.values())


def main(names: list[str]) -> int:
    """Run the attacks of these findings, or of all, in `PROCESSES` processes; the exit status.

    Most attacks wait, so several processes share the machine well; each has relays of its own.
    """
    started = time.monotonic()
    chosen = [one.name for one in FINDINGS if not names or one.name in names]
    if not chosen:
        known = ", ".join(one.name for one in FINDINGS)
        print(f"No finding has this name. There are {known}.", file=sys.stderr)
        return 2
    shares = [share for start in range(PROCESSES) if (share := chosen[start::PROCESSES])]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(shares), mp_context=context) as pool:
        results = list(pool.map(attack, shares))
    rows = sorted(
        (row for _, part in results for row in part), key=lambda r: chosen.index(r.finding.name)
    )
    grown = sum(max(row.grown for row in part) for _, part in results)
    holds = show(rows, grown, time.monotonic() - started)
    return max(status for status, _ in results) or int(not holds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The scoreboard that the suite prints: promises about hostile and heavy traffic, and their goals.

A row names the beginnings of the node ids of its tests. A test adds a measured figure with
`record_property("figure", "…")`. `make test` runs pytest twice; the second run adds to the first
one's rows, which pytest's cache keeps.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest

RecordProperty = Callable[[str, object], None]  # pytest's fixture record_property

_CACHE_KEY: Final = "relay/scoreboard-1"
_FIGURE: Final = "figure"
_KEPT_SECONDS: Final = 1800  # then it was another `make test`
_MAX_FIGURES: Final = 2
_MIN_ROWS: Final = 5  # a run of a few files has no scoreboard


@dataclass(frozen=True)
class Row:
    """A promise and the tests that hold the relay to it."""

    name: str
    promise: str
    goal: str
    tests: tuple[str, ...]


_WIRE: Final = "tests/wire/test_"
_H2: Final = "tests/wire/h2/test_"
_FLOODS: Final = "tests/wire/h2/test_floods.py::test_"
_ATTACKS: Final = "tests/attacks/test_"
_BESIDE: Final = f"{_ATTACKS}http2_floods.py::test_an_honest_caller_is_served_beside_a_flood"
_DEADLINES: Final = "tests/net/test_deadlines.py::test_"
_PROCESS: Final = "tests/durability/test_process.py::test_"

ROWS: Final = (
    Row(
        "S1", "ambiguous HTTP/1.1 is refused", "100 %, connection closed",
        (f"{_WIRE}h1_corpora.py::test_a_bad_request_is_refused_alike_in_every_feeding",),
    ),
    Row(
        "S2", "mutated framing hides no request", "0 or 1 upstream for each",
        (f"{_WIRE}smuggling.py::", f"{_ATTACKS}smuggling.py::test_no_mutation"),
    ),
    Row(
        "S3", "every feeding has the same verdict", "identical in all",
        (f"{_WIRE}h1_corpora.py::test_a_good_request", f"{_ATTACKS}smuggling.py::test_the_verdict"),
    ),
    Row(
        "S4", "hostile answers are the upstream's failure", "502 class, never reused",
        (f"{_WIRE}h1_corpora.py::test_a_hostile_response", "tests/net/upstream/test_body.py::"),
    ),
    Row(
        "S5", "any octets are read or refused", "head limit + 64 KiB held",
        (f"{_WIRE}h1_splits.py::", f"{_WIRE}chunked.py::test_any_octets"),
    ),
    Row(
        "S6", "scanner, reader and h11 agree on chunks", "0 disagreements",
        (f"{_WIRE}chunked.py::test_scanner_reader_and_h11",),
    ),
    Row(
        "S7", "only allowed fields pass, both ways", "equal to the list",
        (
            "tests/gateway/test_headers.py::test_the_upstream_gets_only",
            "tests/gateway/test_headers.py::test_the_caller_receives_only",
            f"{_ATTACKS}smuggling.py::test_an_upstream_cannot_inject",
            f"{_ATTACKS}smuggling.py::test_a_target_cannot_inject",
        ),
    ),
    Row("S8", "heads have limits", "at limit - 1, limit, limit + 1", (f"{_WIRE}h1_limits.py::",)),
    Row(
        "H2", "the rules of h2spec", "147 of 147",
        (f"{_H2}frame_rules.py::", f"{_H2}definition_rules.py::", f"{_H2}generic_rules.py::"),
    ),
    Row(
        "H3", "rapid reset (CVE-2023-44487)", "closed by 200, p99 <= 50 ms",
        (f"{_FLOODS}rapid_reset", f"{_BESIDE}[rapid reset"),
    ),
    Row(
        "H4", "made you reset (CVE-2025-8671)", "<= 100 handlers, resets",
        (
            f"{_FLOODS}provoked_resets",
            f"{_ATTACKS}http2_floods.py::test_no_more_handlers_live_than_the_limit_of_streams",
        ),
    ),
    Row(
        "H5", "CONTINUATION flood", "<= 8 frames, closed in 10 s",
        (f"{_FLOODS}a_head_in_many_pieces", f"{_BESIDE}[CONTINUATION", f"{_BESIDE}[empty CONT"),
    ),
    Row(
        "H6", "HPACK bomb", "<= 1 MiB, 1,000 in 1 s",
        (f"{_FLOODS}a_bomb", f"{_FLOODS}a_thousand_bombs", f"{_BESIDE}[HPACK"),
    ),
    Row(
        "H7", "floods of control frames", "closed within 2,000 frames",
        (f"{_FLOODS}a_flood_is_closed", f"{_FLOODS}answers_to_a_flood", _BESIDE),
    ),
    Row(
        "H8", "glitches end a connection in two steps", "a clean client scores 0",
        (f"{_FLOODS}a_flood_has_its_warning", f"{_FLOODS}a_clean_client"),
    ),
    Row(
        "H9", "a stalled stream delays no sibling", "<= 10 ms, 64 KiB a stream",
        ("tests/net/test_http2_flow.py::",),
    ),
    Row(
        "H10", "odd HTTP/2 never becomes HTTP/1.1", "0 reach an upstream",
        (f"{_ATTACKS}http2_smuggling.py::",),
    ),
    Row(
        "L1", "slow heads are closed", "at 10 s, others served",
        (f"{_DEADLINES}a_dripping_head", f"{_ATTACKS}slow_callers.py::test_slow_heads"),
    ),
    Row(
        "L2", "slow bodies are closed", "16 KiB each, <= 20 s",
        (f"{_DEADLINES}a_body_must_arrive", f"{_ATTACKS}slow_callers.py::test_slow_bodies"),
    ),
    Row(
        "L3", "slow readers hold little", "<= 256 KiB each",
        (
            f"{_ATTACKS}unread_streams.py::", f"{_PROCESS}a_slow_reader",
            "tests/net/test_slow_readers.py::",
        ),
    ),
    Row(
        "L4", "idle connections are small", "6 KiB, 24 KiB over HTTP/2",
        ("tests/net/test_http2_memory.py::", f"{_ATTACKS}slow_callers.py::test_idle_callers"),
    ),
    Row(
        "L5", "without descriptors the relay serves on", "<= 20 % CPU, back in 1 s",
        (f"{_ATTACKS}descriptors.py::",),
    ),
    Row(
        "L6", "no request stops the loop", "<= 50 ms",
        (
            f"{_ATTACKS}reading.py::", f"{_ATTACKS}single_calls.py::",
            f"{_ATTACKS}octet_readers.py::",
        ),
    ),
    Row(
        "O1", "three times the load costs no goodput", ">= 90 %, shed in 50 ms",
        (f"{_ATTACKS}overload.py::",),
    ),
    Row(
        "O2", "SIGTERM lets streams finish", "all, byte for byte",
        (
            f"{_PROCESS}streams_in_flight_finish", f"{_PROCESS}a_draining_server",
            f"{_PROCESS}a_second_signal", "tests/durability/test_drain.py::",
            "tests/net/test_http2_ends.py::test_a_drain_announces",
        ),
    ),
    Row("O3", "a hand-over costs nothing", "0 refused, reset or cut", ("tests/handover/",)),
    Row("O4", "a soak leaves nothing behind", "<= 1 MiB, all as before", (f"{_ATTACKS}soak.py::",)),
    Row(
        "O5", "a crash is one request's 500", "the process lives",
        ("tests/gateway/test_crashes.py::", "tests/durability/test_log_disk.py::"),
    ),
    Row(
        "C1", "three nodes share a limit exactly", "40 of 3,000",
        ("tests/cluster/test_exact.py::", "tests/cluster/test_sql_locks.py::"),
    ),
    Row(
        "C2", "no failure lets a limit be exceeded", "0 over with \"refuse\"",
        ("tests/cluster/test_failures.py::",),
    ),
    Row(
        "C3", "a recall brings unused quota back", "<= 250 ms",
        ("tests/cluster/test_limits.py::test_a_recall",),
    ),
    Row(
        "C4", "leases spare round trips", "< 0.05 a request",
        ("tests/cluster/test_steady.py::",),
    ),
)  # fmt: skip


class Scoreboard:
    """A plug-in of pytest: gathers results by row, and prints them at the end."""

    def __init__(self) -> None:
        self._results: dict[str, tuple[bool, list[str]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a test's result and figures."""
        if (report.when == "call" and not report.skipped) or report.failed:
            figures = [str(value) for name, value in report.user_properties if name == _FIGURE]
            passed, _ = self._results.get(report.nodeid, (True, []))
            self._results[report.nodeid] = (passed and not report.failed, figures)

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        """Print the rows, if this run had enough of them."""
        here = [row for row in ROWS if any(one.startswith(row.tests) for one in self._results)]
        if len(here) < _MIN_ROWS or config.cache is None:
            return
        when, earlier = config.cache.get(_CACHE_KEY, (0.0, {}))
        if time.time() - when > _KEPT_SECONDS:
            earlier = {}
        results = {**earlier, **self._results}
        wanted = tuple(test for row in ROWS for test in row.tests)
        results = {name: found for name, found in results.items() if name.startswith(wanted)}
        config.cache.set(_CACHE_KEY, (time.time(), results))
        terminalreporter.section("scoreboard")
        for row in ROWS:
            terminalreporter.write_line(line_of(row, results))


def line_of(row: Row, results: dict[str, tuple[bool, list[str]]]) -> str:
    """A row as a line: its name, promise, goal, tests passed of those that ran, and figures."""
    found = {name: result for name, result in results.items() if name.startswith(row.tests)}
    passed = sum(ok for ok, _ in found.values())
    verdict = "no test ran" if not found else "ok" if passed == len(found) else "FAILED"
    figures = [figure for _, of_test in found.values() for figure in of_test]
    if len(figures) > _MAX_FIGURES:
        figures = sorted(figures, key=_first_number, reverse=True)[:_MAX_FIGURES]
        figures.append("…")
    return (
        f"{row.name:4}{row.promise:44.44} {row.goal:30.30} {passed:4} of {len(found):<4} "
        f"{verdict:12}{'; '.join(figures)}"
    ).rstrip()


def _first_number(figure: str) -> float:
    """The number by which the worst of many figures is found."""
    match = re.search(r"\d+(?:\.\d+)?", figure)
    return float(match[0]) if match is not None else 0.0

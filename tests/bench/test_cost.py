"""The gate on the cost of a request: a slower path fails, and another build is not judged by it."""

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench.cost import baseline
from bench.cost.baseline import Record
from bench.cost.callgrind import valgrind
from bench.cost.count import Cost
from bench.cost.lockstep import KINDS, Lockstep
from bench.rivals.relay import THIS, TREE, Relay

_COST = Cost(28_000_000, {"messages-json": 570_000, "messages-sse": 1_430_000})
_RECORD = Record("3.11.7", "x86_64 glibc 2.36", False, _COST)


def _times(factor: float, kind: str = "messages-json") -> Cost:
    requests = {**_COST.requests, kind: round(_COST.requests[kind] * factor)}
    return Cost(_COST.reference, requests)


@pytest.mark.parametrize("kind", list(_COST.requests))
def test_a_path_that_costs_five_per_cent_more_fails(kind: str) -> None:
    failed = [one.kind for one in baseline.compare(_COST, _times(1.05, kind)) if one.too_much]
    assert failed == [kind]


@pytest.mark.parametrize("factor", [0.5, 0.96, 1.0, 1.01, 1.029])
def test_a_cost_within_the_margin_or_lower_passes(factor: float) -> None:
    assert not any(one.too_much for one in baseline.compare(_COST, _times(factor)))


def test_a_much_cheaper_path_asks_for_a_new_record() -> None:
    (cheaper, same) = baseline.compare(_COST, _times(0.9))
    assert (cheaper.outdated, same.outdated) == (True, False)
    assert str(cheaper).endswith("-10.0%  record it")


def test_a_kind_without_a_record_is_not_compared() -> None:
    more = Cost(_COST.reference, {**_COST.requests, "chat-json": 1})
    assert [one.kind for one in baseline.compare(_COST, more)] == list(_COST.requests)


@pytest.mark.parametrize(
    "other",
    [
        msgspec.structs.replace(_RECORD, python="3.11.8"),
        msgspec.structs.replace(_RECORD, machine="aarch64 glibc 2.36"),
        msgspec.structs.replace(_RECORD, compiled=True),
        msgspec.structs.replace(_RECORD, cost=Cost(25_700_000, _COST.requests)),
    ],
    ids=["version", "machine", "compiled", "options of the build"],
)
def test_another_build_has_a_record_of_its_own(other: Record) -> None:
    assert baseline.find([_RECORD], other) is None
    both = baseline.renewed([_RECORD], other)
    assert baseline.find(both, other) == other
    assert baseline.find(both, _RECORD) == _RECORD


def test_a_new_record_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    assert baseline.read(path) == []
    baseline.write([_RECORD], path)
    slower = msgspec.structs.replace(_RECORD, cost=_times(1.05))
    baseline.write(baseline.renewed(baseline.read(path), slower), path)
    assert baseline.read(path) == [slower]


def test_the_recorded_kinds_are_those_that_are_counted() -> None:
    kinds = [kind.name for kind in KINDS]
    assert baseline.read()
    assert all(list(record.cost.requests) == kinds for record in baseline.read())


def test_every_kind_of_request_is_answered(tmp_path: Path) -> None:
    lockstep = Lockstep()
    try:
        relay = Relay(tmp_path, lockstep.port, build=THIS)
        process, _ = relay.start(core=0)
        with process:
            lockstep.connect(relay.json_port, bool)
            for kind in KINDS:
                answer = lockstep.exchange(kind, kind.request(relay.json_port, relay.key))
                assert b"Merge" in answer
    finally:
        lockstep.close()


def _heed_interrupts() -> None:
    """In the child: a shell lets its background jobs ignore Ctrl-C, and they inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_interrupted_count_says_so() -> None:
    if valgrind() is None:
        pytest.skip("valgrind is not installed")
    command = [sys.executable, "-m", "bench.cost"]
    with subprocess.Popen(
        command, cwd=TREE, stdout=subprocess.PIPE, text=True, preexec_fn=_heed_interrupts
    ) as count:
        assert count.stdout is not None
        count.stdout.readline()  # the build that is counted now
        count.send_signal(signal.SIGINT)
        assert "all processes have ended" in count.stdout.read()
    assert count.returncode == 130


@pytest.mark.thorough
def test_a_count_is_made_under_valgrind() -> None:
    if valgrind() is None:
        pytest.skip("valgrind is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "bench.cost", "--before", str(TREE)],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("→") == len(KINDS)

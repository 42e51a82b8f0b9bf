"""Standard error: lines keep their order, and a reader that stalls costs lines and nothing else."""

import fcntl
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.telemetry.error_log import ErrorLog, queued_stderr


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_lines_are_written_in_order(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as file:
        log = ErrorLog(file.fileno())
        for number in range(1000):
            log.line(str(number))
        log.close()
    assert (tmp_path / "log").read_text().split() == [str(number) for number in range(1000)]
    assert log.dropped == 0


def test_everything_that_prints_to_stderr_is_queued(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file, queued_stderr(file.fileno()):
        print("listens \ud800", file=sys.stderr, flush=True)
        logging.getLogger("relay.x").error("failed: %s", "ü")
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            traceback.print_exc()
    text = (tmp_path / "log").read_text()
    first, second, *_ = text.splitlines()
    assert first == "listens \\ud800"
    assert second.endswith("ERROR relay.x: failed: ü")
    assert "ZeroDivisionError" in text


def test_a_stalled_reader_costs_lines_and_no_time(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    log = ErrorLog(writing)
    since = time.thread_time()
    for number in range(5000):
        log.line(f"line {number} {'x' * 100}")
    assert time.thread_time() - since < 0.5
    assert log.dropped > 3000
    closing = time.monotonic()
    log.close()
    assert time.monotonic() - closing < 1.5
    received = b""
    while received.count(b"\n") < 5000 - log.dropped + 1:
        received += os.read(reading, 1 << 16)
    log.close()
    assert b"%d lines of this log are lost" % log.dropped in received


def test_a_line_has_a_bound(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    log = ErrorLog(writing)
    log.line("a" * 1_000_000 + "the error")
    received = b""
    while not received.endswith(b"\n") or b"error" not in received:
        received += os.read(reading, 1 << 16)
    log.close()
    assert len(received) < 10_000
    assert received.endswith(b"the error\n")


@pytest.mark.parametrize("how", ["full disk", "closed pipe", "no descriptor"])
def test_what_cannot_be_written_is_counted(how: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    reading, writing = os.pipe()
    os.close(reading)
    log = ErrorLog({"full disk": full, "closed pipe": writing, "no descriptor": 987_654}[how])
    for number in range(7):
        log.line(str(number))
    log.close()
    os.close(full)
    os.close(writing)
    assert log.dropped == 7


def test_a_non_blocking_descriptor_is_waited_for(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.set_blocking(writing, False)
    log = ErrorLog(writing)
    for number in range(500):
        log.line(f"line {number} {'x' * 50}")
    received = b""
    while b"line 499" not in received:
        received += os.read(reading, 1 << 16)
    log.close()
    assert received.count(b"\n") == 500
    assert log.dropped == 0

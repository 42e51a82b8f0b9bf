"""The access log: every line is written once, in order, or counted as dropped."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from relay.telemetry.access_log import AccessLog


class Line(msgspec.Struct):
    number: int


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_drained_lines_are_in_the_file_in_order(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as file:
        log = AccessLog(file.fileno())
        for number in range(1_000):
            log.line(Line(number))
            if number % 50 == 0:
                log.flush()
        assert log.drain(5)
        lines = (tmp_path / "log").read_text().splitlines()
        log.close()
    assert [json.loads(line)["number"] for line in lines] == [*range(1_000)]
    assert log.dropped == 0


def test_closing_writes_what_was_not_flushed(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as file:
        log = AccessLog(file.fileno())
        log.line(Line(1))
        log.close()
        assert log.drain(0)  # closed: nothing to wait for
    assert (tmp_path / "log").read_text() == '{"number":1}\n'


def test_a_stalled_reader_costs_lines_but_never_waits(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    reading, writing = pipe
    log = AccessLog(writing)
    size = 2**20 // len('{"number":1}\n') + 1  # more than a pipe holds
    for batch in range(100):
        for _ in range(size if batch == 0 else 1):
            log.line(Line(1))
        log.flush()
    assert not log.drain(0.01)
    log.line(Line(2))
    log.close()  # gives up after a second
    assert [record.getMessage() for record in caplog.records] == [
        "lines of the access log are lost: its reader stalls"
    ]
    written = b""
    while written.count(b"\n") < size + 100 - log.dropped:
        written += os.read(reading, 2**16)
    assert 30 < log.dropped < 40  # the queue has room for 64 batches
    assert log.drain(5)


def test_lines_of_several_logs_in_one_pipe_stay_whole(pipe: tuple[int, int]) -> None:
    """As of several processes that share standard output."""
    reading, writing = pipe
    logs = [AccessLog(writing) for _ in range(3)]
    read = bytearray()
    lines = 3 * 4_000
    for log in logs:
        for number in range(lines // 3):
            log.line(Line(10**15 + number))
        log.flush()
    while read.count(b"\n") < lines:
        read += os.read(reading, 1_000)
    for log in logs:
        log.close()
    numbers = sorted(json.loads(line)["number"] - 10**15 for line in read.splitlines())
    assert numbers == sorted([*range(lines // 3)] * 3)


def test_a_broken_output_is_counted_and_reported_once(
    pipe: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    read_only = pipe[0]
    log = AccessLog(read_only)
    for number in range(3):
        log.line(Line(number))
        log.flush()
    assert log.drain(5)
    assert log.dropped == 3
    assert [record.getMessage() for record in caplog.records] == [
        "lines of the access log are lost: Bad file descriptor"
    ]
    log.close()


# A limit of the file's size ends a write within a line, as a full disk does. Lines have 13 octets.
SMALL_FILE = """
import os, resource, signal, sys, msgspec
from relay.telemetry.access_log import AccessLog, open_log
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
line = msgspec.defstruct('Line', [('number', int)])
log = AccessLog(open_log(sys.argv[1]), sys.argv[1])
def write(size, *numbers):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    [log.line(line(number)) for number in numbers]
    assert log.drain(5)
%s
log.close()
print(log.dropped)
"""


def written_to_a_small_file(path: Path, steps: str) -> tuple[list[str], str]:
    """The lines of the log after these steps, and the number of those that were dropped."""
    done = subprocess.run(
        [sys.executable, "-c", SMALL_FILE % steps, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return path.read_text().split("\n"), done.stdout.strip()


def test_a_line_after_a_torn_one_begins_anew(tmp_path: Path) -> None:
    steps = "write(30, 1, 2, 3); write(30, 4); write(99, 5); write(57, 6, 7); write(99, 8)"
    lines, dropped = written_to_a_small_file(tmp_path / "log", steps)
    assert lines == [
        '{"number":1}', '{"number":2}', '{"nu', '{"number":5}', '{"number":6}', '{"number":8}', "",
    ]  # fmt: skip
    assert dropped == "3"


def test_a_line_after_a_torn_one_survives_a_reopening(tmp_path: Path) -> None:
    """Of the same file; a new file begins with a line, not with the end of one."""
    path = tmp_path / "log"
    lines, _ = written_to_a_small_file(path, "write(30, 1, 2, 3); log.reopen(); write(99, 4)")
    assert lines == ['{"number":1}', '{"number":2}', '{"nu', '{"number":4}', ""]
    path.unlink()
    steps = "write(30, 1, 2, 3); os.rename(sys.argv[1], sys.argv[1] + '.1'); log.reopen()"
    lines, _ = written_to_a_small_file(path, f"{steps}; write(99, 4)")
    assert lines == ['{"number":4}', ""]

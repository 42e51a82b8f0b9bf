"""Result files: everything that a run measured, as JSON on disk.

Decides the form of a file and what of it a reader needs. A file without `format` is of the first
form, which had no command. Must not know how figures are judged or shown.
"""

import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson

from bench.process import BenchError, machine
from bench.rivals.rival import Rival
from bench.stage import Results, Settings, Stage

RESULTS = Path(__file__).parent / "results"
FORMAT = 2
# Rivals that others are compared with.
REFERENCES = ("direct", "nginx")


class Run(msgspec.Struct, kw_only=True):
    """One run as it is stored; its summary and notes are made from the rounds again."""

    format: int = 1
    at: str
    command: str = ""
    machine: Mapping[str, str | int]
    versions: Mapping[str, str]
    settings: Settings
    rivals: Mapping[str, Mapping[str, Any]] = {}
    foreign: Sequence[str] = ()  # rivals of other projects
    # Why a rival has no figures, by scenario and rival: it failed, or lacks what that needs.
    refused: Mapping[str, Mapping[str, str]] = {}
    left_out: Mapping[str, Mapping[str, str]] = {}
    remarks: Sequence[str] = []  # on the load, while the run went on
    rounds: Results

    @classmethod
    def of(cls, stage: Stage, rivals: Sequence[Rival]) -> "Run":
        """The run that has just ended."""
        return cls(
            format=FORMAT,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            command=shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
            machine=machine(),
            versions={rival.name: rival.version for rival in rivals},
            settings=stage.settings,
            rivals={
                rival.name: {
                    "dialects": sorted(rival.dialects),
                    "streams": sorted(rival.streams),
                    "command": list(rival.argv()),
                    "settings": rival.settings,
                }
                for rival in rivals
            },
            foreign=[rival.name for rival in rivals if rival.may_fail],
            refused=stage.refused,
            left_out=stage.left_out,
            remarks=stage.notes,
            rounds=stage.results,
        )

    @property
    def names(self) -> list[str]:
        """The rivals that were measured: references, other projects, builds of relay."""
        found = dict.fromkeys(name for rivals in self.rounds.values() for name in rivals)
        return sorted(found, key=self._place)

    @property
    def builds(self) -> list[str]:
        """The builds of relay; this tree's comes last."""
        return [name for name in self.names if self._place(name) >= len(REFERENCES) + 1]

    def _place(self, name: str) -> int:
        if name in REFERENCES:
            return REFERENCES.index(name)
        if name in self.foreign:
            return len(REFERENCES)
        return len(REFERENCES) + 1 + (name == "relay")


def read(path: Path) -> Run:
    """A run from its file.

    Raises:
        BenchError: the file cannot be read, or holds no run that this bench knows.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror}") from None
    try:
        form = msgspec.json.decode(content, type=dict[str, Any]).get("format", 1)
        if isinstance(form, int) and form > FORMAT:
            raise BenchError(
                f"{path} has format {form}, and this bench knows {FORMAT} at most: read it with "
                "the version that wrote it"
            )
        return msgspec.json.decode(content, type=Run)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} is no result of the bench: {error}") from None


def new_path(path: Path | None) -> Path:
    """Where the figures will go: `path`, or else a new file in bench/results/.

    Raises:
        BenchError: nothing can be written there, which is better known before the run.
    """
    if path is None:
        path = RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
    except OSError as error:
        raise BenchError(f"figures cannot be written to {path}: {error.strerror}") from None
    return path


def write(path: Path, run: Run, more: Mapping[str, Any]) -> None:
    """Write a run, with what was made from its rounds: summary, curves, notes."""
    document = {**msgspec.to_builtins(run), **more}
    document["rounds"] = document.pop("rounds")  # the longest part comes last
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")

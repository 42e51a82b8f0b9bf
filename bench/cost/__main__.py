"""`python -m bench.cost`: count, compare, and exit with the verdict.

Decides nothing but the order. Exit status 0: no kind of request costs more than the margin allows;
1: one does, or the count failed; 2: valgrind is missing, or the build has no record.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from bench.cost import baseline
from bench.cost.baseline import MARGIN, Comparison, Record
from bench.cost.callgrind import valgrind
from bench.cost.count import count
from bench.process import BenchError
from bench.rivals.relay import THIS, Build, build_option, checkout, machine_name


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@build_option
@click.option(
    "--before",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Compare with the checkout there, counted in the same way, instead of the records.",
)
@click.option("--record", is_flag=True, help="Record the costs for later comparisons.")
def main(builds: Sequence[Build], before: Path | None, record: bool) -> None:
    """Instructions per request of this relay, or of the builds given, against the record."""
    if valgrind() is None:
        print("not compared: valgrind is not installed (Debian: apt-get install valgrind)")
        sys.exit(2)
    try:
        verdicts = [_judge(build, before, record) for build in builds or (THIS,)]
    except KeyboardInterrupt:
        print("interrupted; all processes have ended")
        sys.exit(130)
    except (BenchError, OSError) as error:
        print(f"the count failed: {error}")
        sys.exit(1)
    sys.exit(max(verdicts, key=lambda status: (status == 1, status)))


def _judge(build: Build, before: Path | None, record: bool) -> int:
    """Count one build and print the comparison; the exit status."""
    now = _count(build)
    if before is not None:
        return _show(baseline.compare(_count(checkout(before)).cost, now.cost))
    records = baseline.read()
    if record:
        baseline.write(baseline.renewed(records, now))
    known = baseline.find(records, now)
    if known is not None:
        status = _show(baseline.compare(known.cost, now.cost))
        return 0 if record else status
    for kind, instructions in now.cost.requests.items():
        print(f"{kind:<14} {instructions:>10,}")
    if record:
        return 0
    print(
        f"not compared: there is no record for this build of Python {now.python}. Compare with an "
        "older checkout (--before), or record it (--record)."
    )
    return 2


def _count(build: Build) -> Record:
    found = build.found()
    form = "compiled" if found.compiled else "not compiled"
    print(f"{build.name}: Python {found.python}, {form}, {found.package}", flush=True)
    with tempfile.TemporaryDirectory(prefix="relay-cost-") as folder:
        return Record(found.python, machine_name(), found.compiled, count(build, Path(folder)))


def _show(comparisons: Sequence[Comparison]) -> int:
    for comparison in comparisons:
        print(comparison)
    if any(comparison.too_much for comparison in comparisons):
        print(f"a request costs over {MARGIN:.0%} more: find out why, or record it (--record)")
        return 1
    return 0


if __name__ == "__main__":
    main(prog_name="python -m bench.cost")

"""`relay doctor`: runs every examination and prints what it found.

Decides the exit status: 1 with a fault, else 0. relay.toml itself must be valid; `relay check`
shows it.
"""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain

import click

from relay import config
from relay.cli.doctor import front, ledger, machine, upstreams
from relay.cli.doctor.findings import Finding
from relay.cli.output import counted, print_json
from relay.cli.program import config_option, config_path, json_option, load_settings

_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "fault": ("FAULT", "red")}


@click.command()
@config_option
@json_option
@click.option(
    "--offline", is_flag=True, help="Ask neither upstreams, the public address nor the ledger."
)
def doctor(as_json: bool, offline: bool) -> int:
    """Find out what keeps the relay from working, and what to do.

    Sends each upstream one request and one stream of one token.
    """
    settings = load_settings()
    found = _findings(settings, offline)
    shown: list[Finding] = []
    for finding in found:
        shown.append(finding)
        if not as_json:
            _print(finding)
    counts = {level: sum(one.level == level for one in shown) for level in _MARKS}
    if as_json:
        print_json({**counts, "findings": [asdict(one) for one in shown]})
    else:
        faults, warnings = counted(counts["fault"], "fault"), counted(counts["warning"], "warning")
        click.echo(f"{faults}, {warnings}, {counts['ok']} ok")
    return 1 if counts["fault"] else 0


def _findings(settings: config.Settings, offline: bool) -> Iterator[Finding]:
    return chain(
        machine.examine(settings, config_path()),
        front.examine(settings, offline=offline),
        iter(() if offline else ledger.examine(settings)),
        iter(() if offline else upstreams.examine(settings)),
    )


def _print(finding: Finding) -> None:
    mark, color = _MARKS[finding.level]
    text = finding.found.translate(dict.fromkeys(range(32), " "))
    click.echo(f"{click.style(f'{mark:<8}', fg=color)} {finding.what}: {text}")
    if finding.remedy:
        click.echo(f"{'':8} -> {finding.remedy}")

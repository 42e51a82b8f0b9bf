"""`relay import relay`: the database of another relay, into the ledger that relays share.

Decides the table that is shown, the advice for rows that contradict each other, and that accounts
come only with plans of relay.toml, unless the operator says otherwise. The import itself is in
`relay.cluster.importing`.
"""

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from relay import config
from relay.cli.database import locked
from relay.cli.ledger import shared_url
from relay.cli.output import counted, print_json, print_records, print_stderr, timestamp
from relay.cli.program import Failure, Misuse

if TYPE_CHECKING:
    from relay.cluster.importing import Import

_NAMES: Final = {  # tables as people know them
    "users": "accounts",
    "keys": "keys",
    "statement": "credits and charges",
    "period": "periods of plans",
    "code": "codes",
    "payment": "payments",
    "response": "stored responses",
    "audit": "entries of the audit log",
    "usage": "requests",
}
_ADVICE: Final = {
    "users": "both have this address: delete one account: on that side, `relay user link` makes a "
    "link to log in as it; then its page /account deletes it",
    "keys": "one key on both sides: revoke and delete it on one (relay key revoke, key delete)",
    "payment": "one payment, or one number of an invoice, on both sides: they cannot be merged",
    "pause": "paused on both sides: resume it on one (relay upstreams resume)",
    "value": "let their owners turn the apps off, and on again after the import",
    "spend_limit": "delete it on one side",
    "announcement": "delete it on one side (relay announce)",
}
_OTHER_ADVICE: Final = "delete or rename it on one side"


class ImportOptions(NamedTuple):
    """The options of an import. `any_plan`: accounts may have plans that relay.toml lacks."""

    dry_run: bool
    any_plan: bool
    as_json: bool


def import_relay(settings: config.Settings, file: str, options: ImportOptions) -> None:
    """Bring all rows of a relay's database into PostgreSQL, or none. The file stays as it is.

    Raises:
        Misuse: relay.toml shares no ledger.
        Failure: the database cannot be used, contradicts the others, or has accounts with plans
            that relay.toml lacks, or PostgreSQL is away.
    """
    url = shared_url(settings)
    if os.path.realpath(file) == os.path.realpath(settings.database.path):
        raise Misuse(
            f"relay: {file} is the database of this relay.toml: it brings its rows by itself when "
            "that relay starts"
        )
    from relay.store.replication.joining import JoinError

    try:
        with locked(file):
            plans = None if options.any_plan else [plan.id for plan in settings.plan]
            found = _imported(url, Path(os.path.realpath(file)), plans, dry_run=options.dry_run)
    except JoinError as error:
        raise Failure(f"relay: {error}") from None
    missing, of_codes = _missing(settings, found.plans), _missing(settings, found.code_plans)
    is_refused = bool(found.conflicts) or (bool(missing) and not options.any_plan)
    is_done = not (is_refused or options.dry_run)
    outcome = "done" if is_done else "refused" if is_refused else "possible"
    _show(file, found, missing, of_codes, outcome, as_json=options.as_json)
    if of_codes:
        print_stderr(
            "relay: warning: codes bring plans that relay.toml lacks: add these to each relay.toml "
            f"before people redeem the codes: {_counted(of_codes, 'code')}"
        )
    if missing and not options.any_plan:
        refusal = (
            f"relay: accounts have plans that relay.toml lacks: {_counted(missing, 'account')}. "
            "Their requests would be refused: add the plans to each relay.toml, or repeat this "
            "with --any-plan; nothing was changed"
        )
        if not found.conflicts:
            raise Failure(refusal)
        print_stderr(refusal)
    elif missing:
        print_stderr(
            f"relay: warning: requests of accounts with these plans are refused until each "
            f"relay.toml has them: {_counted(missing, 'account')}"
        )
    if found.conflicts:
        raise Failure(
            f"relay: {counted(len(found.conflicts), 'row')} of {file} "
            f"{'contradicts' if len(found.conflicts) == 1 else 'contradict'} those of the relays "
            "that share the ledger; nothing was changed"
        )


def _missing(settings: config.Settings, plans: Mapping[str, int]) -> dict[str, int]:
    """Those of `plans` that relay.toml lacks."""
    known = {one.id for one in settings.plan}
    return {plan: number for plan, number in plans.items() if plan not in known}


def _counted(plans: dict[str, int], noun: str) -> str:
    """Plans with the numbers of their accounts or codes."""
    return ", ".join(f"{plan} ({counted(number, noun)})" for plan, number in plans.items())


def _imported(url: str, file: Path, plans: Sequence[str] | None, *, dry_run: bool) -> "Import":
    """Import a copy of a database, which becomes a node's for as long as it takes. `plans`: see
    `import_database`."""
    from relay.cluster.importing import import_database
    from relay.cluster.link import EngineAwayError, EngineRefusalError
    from relay.cluster.schema import SchemaError
    from relay.store.backup import backup
    from relay.store.database import Database, StoreError, migrations, schema_of
    from relay.store.replication.joining import JoinError

    async def bring(copy: Path) -> "Import":
        database = await Database.open(copy)
        try:
            return await import_database(url, database, dry_run=dry_run, plans=plans)
        finally:
            await database.close()

    try:
        if not file.is_file():
            reason = "is no database file" if file.exists() else "there is no such file"
            raise StoreError(f"database {file}: {reason}")
        with tempfile.TemporaryDirectory(prefix=".relay-import-", dir=file.parent) as folder:
            copy = Path(folder) / file.name
            backup(file, copy)
            if (schema := schema_of(copy)) > (newest := len(migrations())):
                raise StoreError(
                    f"database {file}: written by a newer relay (schema {schema}, this one knows "
                    f"up to {newest}); import it with that version"
                )
            return asyncio.run(bring(copy))
    except JoinError:
        raise
    except EngineAwayError as error:
        raise Failure(
            f"relay: PostgreSQL is away: {error}; run the command again: no row comes twice"
        ) from None
    except (EngineRefusalError, SchemaError, StoreError, OSError) as error:
        raise Failure(f"relay: {error}") from None


def _show(
    file: str, found: "Import", missing: dict[str, int], of_codes: dict[str, int], outcome: str, *,
    as_json: bool,
) -> None:  # fmt: skip
    """`missing`: plans that relay.toml lacks, with the numbers of their accounts; `of_codes`: with
    those of their codes; `outcome`: "done", "possible" or "refused"."""
    counts = {_NAMES.get(table, table.replace("_", " ")): n for table, n in found.rows.items()}
    if found.windows:
        counts["limits in use"] = found.windows
    conflicts = [
        {
            "what": _NAMES.get(one.table, one.table.replace("_", " ")),
            "name": one.name,
            "advice": _ADVICE.get(one.table, _OTHER_ADVICE),
        }
        for one in found.conflicts
    ]
    if as_json:
        print_json(
            {
                "imported": outcome == "done" and found.earlier is None,
                "imported_before": timestamp(found.earlier),
                "rows": found.rows,
                "windows": found.windows,
                "conflicts": conflicts,
                "missing_plans": missing,
                "missing_code_plans": of_codes,
            }
        )
    elif found.earlier is not None:
        click.echo(f"{file} was imported on {timestamp(found.earlier)}; nothing was changed.")
    elif not counts and not conflicts:
        click.echo(f"{file} has no account: there is nothing to import.")
    else:
        rows = [{"what": it, "number": n} for it, n in counts.items()]
        lacking = [
            {"what": f"{what} with the plan {plan}, which relay.toml lacks", "number": n}
            for what, plans in (("accounts", missing), ("codes", of_codes))
            for plan, n in plans.items()
        ]
        if conflicts:
            print_records(conflicts, False, "")
        if rows or lacking:
            print_records([*rows, *lacking], False, "")
        if outcome == "done":
            click.echo(f"{file} is imported. Let no relay serve from it any more.")
        elif outcome == "possible":
            click.echo(f"{file} can be imported; nothing was changed.")

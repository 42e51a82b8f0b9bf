"""`relay explain`: why one request went where it went, what upstreams said, how it was settled.

Decides where it looks: the running relay, else the database itself; then the access log, for what
these do not have. Must not know how facts are worded.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import click

from relay import config
from relay.cli.admin_client import Refusal, call
from relay.cli.database import run_on_database
from relay.cli.output import print_json
from relay.cli.program import Failure, Misuse, config_option, json_option, load_settings

if TYPE_CHECKING:
    from relay.api.request_facts import Facts

_TIMEOUT_SECONDS: Final = 60.0  # millions of rows are searched
_STDIN: Final = "-"


@click.command()
@click.argument("request_id", metavar="ID")
@click.option(
    "--log",
    "logs",
    metavar="FILE",
    multiple=True,
    help="An access log to search, in place of log.file; - is standard input.",
)
@config_option
@json_option
def explain(request_id: str, logs: tuple[str, ...], as_json: bool) -> None:
    """Why a request went where it went, what upstreams said, and how it was settled.

    ID is the answer's request-id, or 8 characters of its beginning, or the header line.
    """
    from relay.api.explanation import explanation, not_kept
    from relay.api.request_ids import parse_request_id

    try:
        prefix = parse_request_id(request_id)
    except ValueError as error:
        raise Misuse(f"relay: {error}") from None
    settings = load_settings()
    missed: list[str] = []
    facts = _from_relay(settings, prefix, missed)
    if facts is None or not facts.recorded:
        facts = _from_logs(settings, prefix, logs, facts, missed)
    if facts is None:
        raise _unknown_error(settings, prefix, missed)
    facts.not_searched = missed
    if as_json:
        import msgspec

        print_json({**msgspec.to_builtins(facts), "not_kept": not_kept(facts)})
    else:
        click.echo(explanation(facts))


def _from_relay(settings: config.Settings, prefix: str, missed: list[str]) -> "Facts | None":
    """What the running relay knows of a request; without one, what its database has.

    Raises:
        Failure: several requests have ids that begin like this, or the database cannot be used.
    """
    import msgspec

    from relay.api.request_facts import Facts

    try:
        answer = call(settings, path=f"/explain/{quote(prefix)}", timeout=_TIMEOUT_SECONDS)
        return msgspec.convert(answer["request"], Facts)
    except Refusal as refusal:
        if refusal.status == 409:
            raise
        if refusal.status == 404 and prefix in refusal.message:
            return None
        missed.append(_not_asked(refusal))
    except Failure as failure:
        missed.append(_not_asked(failure))
    return _from_database(settings, prefix)


def _not_asked(failure: Failure) -> str:
    reason = failure.message.removeprefix("relay: ")
    return f"requests in flight, the latest failures, and limits as they are now: {reason}"


def _from_database(settings: config.Settings, prefix: str) -> "Facts | None":
    from relay.api.explain import AmbiguousIdError, from_database

    try:
        return run_on_database(settings, lambda database: from_database(database, prefix))
    except AmbiguousIdError as error:
        raise Failure(f"relay: {error}") from None


def _from_logs(
    settings: config.Settings,
    prefix: str,
    logs: tuple[str, ...],
    facts: "Facts | None",
    missed: list[str],
) -> "Facts | None":
    """Add a request's line of the access log, if there is one, to what is known of it.

    Raises:
        Failure: several requests have ids that begin like this.
    """
    from relay.api.explain import AmbiguousIdError
    from relay.api.request_facts import LOG, Facts, add_record
    from relay.api.request_ids import is_complete

    found: dict[str, tuple[dict[str, Any], str]] = {}
    unread: list[str] = []
    for file in _files(settings, logs, missed):
        for line in _lines(file, facts.id if facts else prefix, unread):
            found.setdefault(line["id"], (line, file))
        if found and (facts is not None or is_complete(prefix)):
            break
    if len(found) > 1:
        raise Failure(f"relay: {AmbiguousIdError(prefix, found)}")
    if not found:
        missed += unread
    for request_id, (line, file) in found.items():
        facts = facts or Facts(request_id, "ended")
        names = [upstream.name for upstream in settings.upstream]
        where = LOG if file == _STDIN else f"{LOG} {file}"
        add_record(facts, line, where, names)
    return facts


def _lines(file: str, prefix: str, unread: list[str]) -> list[dict[str, Any]]:
    from relay.telemetry.log_search import UnreadableLogError, search, search_stream

    if file == _STDIN:
        return list(search_stream(sys.stdin.buffer, prefix))
    try:
        return list(search(Path(file), prefix))
    except UnreadableLogError as error:
        unread.append(str(error))
        return []


def _files(settings: config.Settings, logs: tuple[str, ...], missed: list[str]) -> list[str]:
    """The access logs to search; `missed` gets the reason if there are none."""
    from relay.telemetry.log_search import log_files

    log = settings.log
    if logs:
        return list(logs)
    if not log.access:
        missed.append("the access log: log.access is off")
    elif log.format == "text":
        missed.append('the access log: log.format is "text", which has only a part of the fields')
    elif not log.file:
        missed.append(
            "the access log: it goes to standard output; where the service manager keeps that, "
            "pass it in: journalctl -u relay -o cat | relay explain ID --log -"
        )
    else:
        return [str(file) for file in log_files(Path(log.file))]
    return []


def _unknown_error(settings: config.Settings, prefix: str, missed: list[str]) -> Failure:
    days = settings.database.retention_days
    rest = f" Not searched: {'; '.join(missed)}." if missed else ""
    return Failure(
        f"relay: no request has the id {prefix}, as far as is recorded; single requests are kept "
        f"for {days:g} days, and one that was refused before it was admitted is in the access "
        f"log alone. Check the id and --config.{rest}"
    )

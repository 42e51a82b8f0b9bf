"""The command line: what can be typed, what is printed, and how an error is told.

Every error is one line on standard error: status 2 when the command or relay.toml is
wrong, 1 for the rest. Whatever only some commands need (SQLite, rich, the server) is
imported inside them, so that `serve` is ready soon.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.exceptions import NoArgsIsHelpError

from relay import clock, config

if TYPE_CHECKING:
    from relay.store.database import Database
    from relay.store.queries import Key, User

T = TypeVar("T")
_DEFAULT_CONFIG = "relay.toml"


class _Failure(click.ClickException):
    """An error that is told in its own words."""


class _Misuse(_Failure):
    """The command or relay.toml is at fault."""

    exit_code = 2


def _open_standard_streams() -> None:
    """A service may be started without them; the loop would take their numbers for sockets."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


class _Program(click.Group):
    """The whole command: tells every error in one line, and never shows a traceback."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        _open_standard_streams()
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a terminal that lacks … still gets the rest
                stream.reconfigure(errors="replace")
        extra["standalone_mode"] = False
        try:
            status = super().main(args, *rest, **extra)
        except NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "relay"
            _tell(f"relay: {error.format_message()} See `{command} --help`.")
            sys.exit(2)
        except click.ClickException as error:
            _tell(error.format_message())
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(130)
        except Exception as error:  # what nobody thought of is told too
            _tell(f"relay: internal error: {type(error).__name__}: {error} ({_origin(error)})")
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)


def _tell(message: str) -> None:
    click.echo(" ".join(message.split()), err=True)


def _origin(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "nowhere"
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def _remember_config(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(dict)["config"] = value  # the innermost comes last, and wins


_config = click.option(
    "--config",
    metavar="PATH",
    expose_value=False,
    callback=_remember_config,
    help=f"The settings file.  [default: ./{_DEFAULT_CONFIG}]",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _config_path() -> str:
    return str(click.get_current_context().ensure_object(dict).get("config", _DEFAULT_CONFIG))


def _settings() -> config.Settings:
    path = _config_path()
    try:
        return config.load(path)
    except config.ConfigError as error:
        if error.path:
            raise _Misuse(f"{path}: {error}") from None
        hint = "" if Path(path).exists() else "; --config PATH names another file"
        raise _Misuse(f"relay: {error.reason}{hint}") from None


@click.group(cls=_Program, name="relay", context_settings={"help_option_names": ["-h", "--help"]})
@_config
@click.version_option(package_name="relay", prog_name="relay")
def main() -> None:
    """Relay: one endpoint in front of many large-language-model upstreams."""


@main.command()
@_config
def serve() -> int:
    """Serve with the settings in relay.toml until SIGTERM."""
    settings = _settings()
    _check_references(settings)
    from relay import app

    return _until_stopped(lambda: app.serve(settings))


@main.command()
@_config
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the relay.")
def demo(port: int | None) -> int:
    """Try it: a simulated upstream, the relay, and one key."""
    settings = _settings()
    from relay import app

    return _until_stopped(lambda: app.demo(settings, port))


@main.command()
@_config
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), required=True, help="Port to listen on.")
def simulate(host: str, port: int) -> int:
    """Run the simulated upstream alone."""
    from relay import app

    return _until_stopped(lambda: app.simulate(host, port))


def _until_stopped(run: Callable[[], int]) -> int:
    """Run a server; a database or an address that it cannot have becomes an error."""
    from relay.store.database import StoreError

    try:
        return run()
    except config.ConfigError as error:
        raise _Misuse(f"{_config_path()}: {error}") from None
    except (StoreError, OSError) as error:
        raise _Failure(f"relay: {error}") from None


@main.command()
@_config
@_json
def check(as_json: bool) -> None:
    """Check relay.toml and show every setting that is in force."""
    settings = _settings()
    _check_references(settings)
    from relay import certificates

    try:
        certificates.check(settings)
    except config.ConfigError as error:
        raise _Misuse(f"{_config_path()}: {error}") from None
    for what in ("upstream", "model"):
        if not getattr(settings, what):
            _tell(f"{_config_path()}: there is no [[{what}]], so no request can be served")
    tree = config.effective(settings)
    if as_json:
        _print_json({"ok": True, "settings": tree})
        return
    counts = ", ".join(
        f"{len(tree[name])} {name}{'' if len(tree[name]) == 1 else 's'}"
        for name in ("upstream", "model", "plan")
    )
    click.echo(f"ok: {_config_path()} ({counts})")
    click.echo("Read and checked, but not in force in this version: " + ", ".join(config.LATER))
    for path, value in _dotted(tree):
        click.echo(f"{path} = {json.dumps(value, ensure_ascii=False)}")


def _check_references(settings: config.Settings) -> None:
    wrong = [f"{_config_path()}: {path}: {reason}" for path, reason in _unreadable(settings)]
    for line in wrong[:-1]:
        _tell(line)
    if wrong:
        raise _Misuse(wrong[-1])


def _unreadable(settings: config.Settings) -> Iterator[tuple[str, str]]:
    """What relay.toml names outside itself and cannot be had."""
    for number, upstream in enumerate(settings.upstream):
        try:
            upstream.credential()
        except ValueError as error:
            yield f"upstream[{number}].api_key", str(error)
    files = [(f"upstream[{number}].ca", one.ca) for number, one in enumerate(settings.upstream)]
    if settings.server.tls is not None:
        files += [
            ("server.tls.cert", settings.server.tls.cert),
            ("server.tls.key", settings.server.tls.key),
        ]
    for path, file in files:
        try:
            if file is not None:
                Path(file).open("rb").close()
        except OSError as error:
            yield path, f"cannot read {file}: {error.strerror}"


def _dotted(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _dotted(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value):
            yield from _dotted(inner, f"{path}[{number}]")
    else:
        yield path, value


@main.group()
@_config
def user() -> None:
    """People: who has an account, and on which plan."""


@user.command("create")
@click.argument("email")
@click.option("--plan", help="Id of a plan.  [default: the first one of relay.toml]")
@click.option("--admin", is_flag=True, help="May administer the relay.")
@click.option("--password-stdin", is_flag=True, hidden=True)
@_config
@_json
def user_create(
    email: str, plan: str | None, admin: bool, password_stdin: bool, as_json: bool
) -> None:
    """Open an account for EMAIL."""
    if password_stdin:
        raise _Misuse(
            "relay: --password-stdin: passwords are for the dashboard, which is not part of this "
            "version; leave the option out"
        )
    settings = _settings()
    from relay.accounts import people

    made = _with_database(
        settings,
        lambda database: people.create(
            database, settings, email, plan=plan, is_admin=admin, now=time.time()
        ),
    )
    if as_json:
        _print_json(_user_view(made))
    else:
        click.echo(f"{made.email} has an account on plan {made.plan} ({made.id}).")
        click.echo(f"Make a key with: relay key create --user {made.email}")


@user.command("list")
@_config
@_json
def user_list(as_json: bool) -> None:
    """Show every account."""
    settings = _settings()
    from relay.store import queries

    users = _with_database(settings, queries.list_users)
    _print_records([_user_view(one) for one in users], as_json, "Nobody has an account yet.")


@user.command("set-plan")
@click.argument("email")
@click.argument("plan")
@_config
@_json
def user_set_plan(email: str, plan: str, as_json: bool) -> None:
    """Move EMAIL to PLAN."""
    settings = _settings()
    from relay.accounts import people

    moved = _with_database(
        settings, lambda database: people.set_plan(database, settings, email, plan)
    )
    _print_user(moved, as_json, f"is on plan {moved.plan} now.")


@user.command("suspend")
@click.argument("email")
@_config
@_json
def user_suspend(email: str, as_json: bool) -> None:
    """Refuse every key of EMAIL until resumed."""
    settings = _settings()
    from relay.accounts import people

    closed = _with_database(settings, lambda database: people.suspend(database, email, time.time()))
    _print_user(closed, as_json, "is suspended; every key of theirs is refused.")


@user.command("resume")
@click.argument("email")
@_config
@_json
def user_resume(email: str, as_json: bool) -> None:
    """Let the keys of EMAIL work again."""
    settings = _settings()
    from relay.accounts import people

    opened = _with_database(settings, lambda database: people.resume(database, email))
    _print_user(opened, as_json, "is active; their keys work.")


@main.group()
@_config
def key() -> None:
    """Keys that callers authenticate with."""


@key.command("create")
@click.option("--user", "email", metavar="EMAIL", required=True, help="Whose key it is.")
@click.option("--name", default="", help="What to know it by.")
@click.option("--expires", metavar="DURATION", help="How long it works, such as 30d.")
@_config
@_json
def key_create(email: str, name: str, expires: str | None, as_json: bool) -> None:
    """Make a key. It is shown now and never again."""
    settings = _settings()
    from relay.accounts import keys

    issued = _with_database(
        settings,
        lambda database: keys.create(
            database, settings, email, name=name, expires=expires, now=time.time()
        ),
    )
    record, revealed = issued.record, issued.key.reveal()
    if issued.user.suspended_at is not None:
        _tell(f"{email} is suspended: the key works after `relay user resume {email}`")
    if as_json:
        _print_json(
            {
                "id": record.id,
                "key": revealed,
                "user": record.email,
                "name": record.name,
                "hint": record.hint,
                "created_at": _moment(record.created_at),
                "expires_at": _moment(record.expires_at),
            }
        )
        return
    click.echo(revealed)
    click.echo(f"\nThis is {record.id}; the key is not shown again. To use it:\n")
    click.echo(f"  export ANTHROPIC_BASE_URL={settings.server.public_url}")
    click.echo(f"  export ANTHROPIC_AUTH_TOKEN={revealed}")


@key.command("list")
@click.option("--user", "email", metavar="EMAIL", help="Only the keys of this account.")
@_config
@_json
def key_list(email: str | None, as_json: bool) -> None:
    """Show keys, by their hints."""
    settings = _settings()
    from relay.accounts import people
    from relay.store import queries

    async def read(database: "Database") -> "list[Key]":
        if email is not None:
            await people.find(database, email)  # tells an unknown address from one without keys
        return await queries.list_keys(database, email)

    now = time.time()
    found = _with_database(settings, read)
    _print_records([_key_view(one, now) for one in found], as_json, "There are no keys yet.")


@key.command("revoke")
@click.argument("key_id")
@_config
@_json
def key_revoke(key_id: str, as_json: bool) -> None:
    """Withdraw a key for good. The beginning of its id is enough."""
    settings = _settings()
    from relay.accounts import keys

    now = time.time()
    gone = _with_database(settings, lambda database: keys.revoke(database, key_id, now))
    if as_json:
        _print_json(_key_view(gone, now))
    else:
        click.echo(f"{gone.id} ({gone.hint}) of {gone.email} is revoked.")


def _with_database(settings: config.Settings, ask: "Callable[[Database], Awaitable[T]]") -> T:
    """Open the database, ask, and close it; what the operator must know becomes an error."""
    from relay.accounts import AccountError, InvalidError
    from relay.store.database import Database, StoreError

    async def session() -> T:
        database = await Database.open(settings.database.path)
        try:
            return await ask(database)
        finally:
            await database.close()

    try:
        return asyncio.run(session())
    except (AccountError, StoreError) as error:
        failure = _Misuse if isinstance(error, InvalidError) else _Failure
        raise failure(f"relay: {error}") from None


def _user_view(one: "User") -> dict[str, Any]:
    return {
        "id": one.id,
        "email": one.email,
        "plan": one.plan,
        "admin": one.is_admin,
        "created_at": _moment(one.created_at),
        "suspended_at": _moment(one.suspended_at),
    }


def _key_view(one: "Key", now: float) -> dict[str, Any]:
    return {
        "id": one.id,
        "user": one.email,
        "name": one.name,
        "hint": one.hint,
        "state": one.state(now),
        "created_at": _moment(one.created_at),
        "expires_at": _moment(one.expires_at),
        "revoked_at": _moment(one.revoked_at),
    }


def _moment(value: float | None) -> str | None:
    return None if value is None else clock.rfc3339(value)


def _print_user(one: "User", as_json: bool, what: str) -> None:
    if as_json:
        _print_json(_user_view(one))
    else:
        click.echo(f"{one.email} {what}")


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _print_records(records: list[dict[str, Any]], as_json: bool, none: str) -> None:
    if as_json:
        _print_json(records)
        return
    if not records:
        click.echo(none)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in records[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for record in records:
        table.add_row(*(_cell(value) for value in record.values()))
    # A pipe has no width: every row stays on its line there.
    width = None if sys.stdout.isatty() else 1000
    Console(width=width, markup=False, highlight=False, emoji=False).print(table)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else str(value)

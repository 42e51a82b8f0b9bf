"""Commands on what the database holds: accounts, keys, usage, money, and its backup.

Decides how each is asked for and shown: moments in UTC, dollars in words and whole
micro-dollars in JSON. The rules are those of `relay.accounts`, the answers those of
`relay.store`. Importing this adds the commands to the command line.
"""

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import click

from relay import clock, config
from relay.cli.program import (
    Failure,
    Misuse,
    load_settings,
    main,
    print_json,
    tell,
    with_config,
    with_json,
)

if TYPE_CHECKING:
    from relay.store.balance import Entry
    from relay.store.database import Database
    from relay.store.keys import Key
    from relay.store.usage import Sums
    from relay.store.users import User

T = TypeVar("T")
_NOTE_LENGTH: Final = 200
_AMOUNT: Final = re.compile(r"([+-]?)([0-9]{1,12})(?:\.([0-9]{1,6}))?")


@main.group()
@with_config
def user() -> None:
    """People: who has an account, and on which plan."""


@user.command("create")
@click.argument("email")
@click.option("--plan", help="Id of a plan.  [default: the first one of relay.toml]")
@click.option("--admin", is_flag=True, help="May administer the relay.")
@click.option("--password-stdin", is_flag=True, hidden=True)
@with_config
@with_json
def user_create(
    email: str, plan: str | None, admin: bool, password_stdin: bool, as_json: bool
) -> None:
    """Open an account for EMAIL."""
    if password_stdin:
        raise Misuse(
            "relay: --password-stdin: passwords are for the dashboard, which is not part of this "
            "version; leave the option out"
        )
    settings = load_settings()
    from relay.accounts import users

    made = _with_database(
        settings,
        lambda database: users.create(
            database, settings, email, plan=plan, is_admin=admin, now=time.time()
        ),
    )
    if as_json:
        print_json(_user_view(made))
    else:
        click.echo(f"{made.email} has an account on plan {made.plan} ({made.id}).")
        click.echo(f"Make a key with: relay key create --user {made.email}")


@user.command("list")
@with_config
@with_json
def user_list(as_json: bool) -> None:
    """Show every account."""
    settings = load_settings()
    from relay.store.users import list_users

    listed = _with_database(settings, list_users)
    print_records([_user_view(one) for one in listed], as_json, "Nobody has an account yet.")


@user.command("set-plan")
@click.argument("email")
@click.argument("plan")
@with_config
@with_json
def user_set_plan(email: str, plan: str, as_json: bool) -> None:
    """Move EMAIL to PLAN."""
    settings = load_settings()
    from relay.accounts import users

    moved = _with_database(
        settings, lambda database: users.set_plan(database, settings, email, plan)
    )
    _print_user(moved, as_json, f"is on plan {moved.plan} now.")


@user.command("suspend")
@click.argument("email")
@with_config
@with_json
def user_suspend(email: str, as_json: bool) -> None:
    """Refuse every key of EMAIL until resumed."""
    settings = load_settings()
    from relay.accounts import users

    closed = _with_database(settings, lambda database: users.suspend(database, email, time.time()))
    _print_user(closed, as_json, "is suspended; every key of theirs is refused.")


@user.command("resume")
@click.argument("email")
@with_config
@with_json
def user_resume(email: str, as_json: bool) -> None:
    """Let the keys of EMAIL work again."""
    settings = load_settings()
    from relay.accounts import users

    opened = _with_database(settings, lambda database: users.resume(database, email))
    _print_user(opened, as_json, "is active; their keys work.")


# An amount may begin with a minus, which click would take for an option otherwise.
@user.command("credit", context_settings={"ignore_unknown_options": True})
@click.argument("email")
@click.argument("amount")
@click.option("--note", default="", help="What the statement says about it.")
@with_config
@with_json
def user_credit(email: str, amount: str, note: str, as_json: bool) -> None:
    """Add AMOUNT dollars to the balance of EMAIL.

    An AMOUNT less than zero takes back what was credited by mistake.
    """
    if len(note) > _NOTE_LENGTH or not note.isprintable():
        raise Misuse(f"relay: a note has up to {_NOTE_LENGTH} printable characters")
    micro = _micro_dollars(amount)
    settings = load_settings()
    from relay.accounts import InvalidError, users
    from relay.store import balance

    async def give(database: "Database") -> "tuple[User, Entry]":
        owner = await users.find(database, email)
        try:
            return owner, await balance.credit(database, owner.id, micro, note, time.time())
        except ValueError as error:
            raise InvalidError(str(error)) from None

    owner, entry = _with_database(settings, give)
    if any(plan.id == owner.plan and plan.billing != "per-token" for plan in settings.plan):
        tell(f"{owner.email} is on plan {owner.plan}, which charges nothing to the balance")
    if as_json:
        print_json({"user": owner.email, **_entry_view(entry)})
        return
    left = f"the balance is {_dollars(entry.balance_after)}."
    if micro > 0:
        click.echo(f"{owner.email} is credited {_dollars(micro)}; {left}")
    else:
        click.echo(f"{_dollars(-micro)} is taken back from {owner.email}; {left}")


def _micro_dollars(amount: str) -> int:
    match = _AMOUNT.fullmatch(amount)
    if match is None:
        raise Misuse(
            f"relay: {amount!r} is no amount; write US dollars, with up to six decimals and "
            "nothing else: 25, 12.50, -4"
        )
    sign, whole, decimals = match.groups()
    micro = int(whole) * 10**6 + int((decimals or "").ljust(6, "0"))
    return -micro if sign == "-" else micro


@user.command("statement")
@click.argument("email")
@click.option(
    "--last",
    type=click.IntRange(1, 10**9),
    default=100,
    show_default=True,
    help="So many entries, the latest.",
)
@with_config
@with_json
def user_statement(email: str, last: int, as_json: bool) -> None:
    """Show what EMAIL was credited and charged, oldest first."""
    settings = load_settings()
    from relay.accounts import users
    from relay.store import balance

    async def read(database: "Database") -> "tuple[User, list[Entry]]":
        owner = await users.find(database, email)
        return owner, await balance.statement(database, owner.id, limit=last + 1)

    owner, found = _with_database(settings, read)
    left = found[0].balance_after if found else 0
    entries = [_entry_view(one) for one in reversed(found[:last])]
    if as_json:
        print_json(
            {
                "user": owner.email,
                "balance_micro": left,
                "entries": entries,
                "older": len(found) > last,
            }
        )
        return
    if len(found) > last:
        click.echo(f"There are older entries; --last shows more than {last}.")
    print_records(entries, as_json, f"{owner.email} was neither credited nor charged anything.")
    click.echo(f"The balance is {_dollars(left)}.")


@main.group()
@with_config
def key() -> None:
    """Keys that callers authenticate with."""


@key.command("create")
@click.option("--user", "email", metavar="EMAIL", required=True, help="Whose key it is.")
@click.option("--name", default="", help="What to know it by.")
@click.option("--expires", metavar="DURATION", help="How long it works, such as 30d.")
@click.option(
    "--no-cache-breakpoints",
    "unmarked",
    is_flag=True,
    help="Leave requests without marks for the prompt cache where their caller sets none.",
)
@with_config
@with_json
def key_create(email: str, name: str, expires: str | None, unmarked: bool, as_json: bool) -> None:
    """Make a key. It is shown now and never again."""
    settings = load_settings()
    from relay.accounts import keys

    issued = _with_database(
        settings,
        lambda database: keys.create(
            database,
            settings,
            email,
            keys.KeyOptions(name, expires, cache_breakpoints=not unmarked),
            now=time.time(),
        ),
    )
    record, revealed = issued.record, issued.key.reveal()
    if issued.user.suspended_at is not None:
        tell(f"{email} is suspended: the key works after `relay user resume {email}`")
    if as_json:
        print_json(
            {
                "id": record.id,
                "key": revealed,
                "user": record.email,
                "name": record.name,
                "hint": record.hint,
                "created_at": _moment(record.created_at),
                "expires_at": _moment(record.expires_at),
                "cache_breakpoints": record.cache_breakpoints,
            }
        )
        return
    click.echo(revealed)
    click.echo(f"\nThis is {record.id}; the key is not shown again. To use it:\n")
    click.echo(f"  export ANTHROPIC_BASE_URL={settings.server.public_url}")
    click.echo(f"  export ANTHROPIC_AUTH_TOKEN={revealed}")


@key.command("list")
@click.option("--user", "email", metavar="EMAIL", help="Only the keys of this account.")
@with_config
@with_json
def key_list(email: str | None, as_json: bool) -> None:
    """Show keys, by their hints."""
    settings = load_settings()
    from relay.accounts import users
    from relay.store import keys

    async def read(database: "Database") -> "list[Key]":
        if email is not None:
            await users.find(database, email)  # tells an unknown address from one without keys
        return await keys.list_keys(database, email)

    now = time.time()
    found = _with_database(settings, read)
    rows = [_key_view(one, now) for one in found]
    if not as_json and all(row["cache_breakpoints"] for row in rows):
        for row in rows:  # what is so of every key is no news
            del row["cache_breakpoints"]
    print_records(rows, as_json, "There are no keys yet.")


@key.command("revoke")
@click.argument("key_id")
@with_config
@with_json
def key_revoke(key_id: str, as_json: bool) -> None:
    """Withdraw a key for good. The beginning of its id is enough."""
    settings = load_settings()
    from relay.accounts import keys

    now = time.time()
    gone = _with_database(settings, lambda database: keys.revoke(database, key_id, now))
    if as_json:
        print_json(_key_view(gone, now))
    else:
        click.echo(f"{gone.id} ({gone.hint}) of {gone.email} is revoked.")


@main.command()
@click.option(
    "--by",
    type=click.Choice(["user", "key", "model", "day"]),
    default="user",
    show_default=True,
    help="What to sum up under; days are UTC.",
)
@click.option("--since", metavar="DURATION", default="7d", show_default=True, help="How far back.")
@click.option("--user", "email", metavar="EMAIL", help="Only what this account used.")
@with_config
@with_json
def usage(
    by: Literal["user", "key", "model", "day"], since: str, email: str | None, as_json: bool
) -> None:
    """Show what was used, and what it cost.

    Counts the requests that are settled, from the whole hour on in which DURATION began.
    "estimated" are the tokens of those that ended without an upstream's figures.
    """
    try:
        began = max(0, int(time.time()) - clock.seconds(since)) // 3600 * 3600
    except ValueError as error:
        raise Misuse(f"relay: --since: {error}") from None
    settings = load_settings()
    from relay.accounts import users
    from relay.store import keys
    from relay.store import usage as used

    async def read(database: "Database") -> "tuple[list[Sums], dict[str, str]]":
        owner = None if email is None else await users.find(database, email)
        which = used.Filter(since=began, user_id=None if owner is None else owner.id)
        listed = await keys.list_keys(database, email) if by == "key" else []
        return await used.sums(database, by, which), {key.id: key.email for key in listed}

    found, owners = _with_database(settings, read)
    rows = [_sums_view(by, one, owners) for one in found]
    total = {name: sum(getattr(one, name) for one in found) for name in _counts(used.Sums)}
    start = clock.rfc3339(began)
    if as_json:
        print_json({"since": start, "by": by, "usage": rows, "total": total})
        return
    if not rows:
        click.echo(f"Nothing was used since {start}.")
        return
    headings = [name for name in rows[0] if name not in total]
    last = {**dict.fromkeys(headings), headings[0]: "total", **total}
    click.echo(f"Since {start}:")
    print_records([*rows, last], as_json, "")


def _counts(sums: "type[Sums]") -> tuple[str, ...]:
    return sums.__struct_fields__[2:]


def _sums_view(by: str, one: "Sums", owners: dict[str, str]) -> dict[str, Any]:
    heading: dict[str, Any] = {by: one.id}
    if by == "user":
        heading = {"user": one.name, "id": one.id}
    elif by == "key":
        known = one.id in owners
        heading |= {"name": one.name if known else "", "user": owners.get(one.id)}
    return heading | {name: getattr(one, name) for name in _counts(type(one))}


@main.command()
@click.argument("path")
@with_config
@with_json
def backup(path: str, as_json: bool) -> None:
    """Copy the database to PATH, while it is in use or not. Overwrites nothing."""
    settings = load_settings()
    from relay.store.backup import backup as copy
    from relay.store.database import StoreError

    try:
        size = copy(settings.database.path, path)
    except StoreError as error:
        raise Failure(f"relay: {error}") from None
    if as_json:
        print_json({"path": path, "bytes": size})
    else:
        click.echo(f"{settings.database.path} is saved whole in {path} ({size:,} bytes).")


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
        failure = Misuse if isinstance(error, InvalidError) else Failure
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
        "cache_breakpoints": one.cache_breakpoints,
    }


def _entry_view(one: "Entry") -> dict[str, Any]:
    return {
        "time": _moment(one.time),
        "kind": one.kind,
        "amount_micro": one.amount_micro,
        "balance_micro": one.balance_after,
        "request": one.request_id,
        "note": one.note,
    }


def _moment(value: float | None) -> str | None:
    return None if value is None else clock.rfc3339(value)


def _dollars(micro: int) -> str:
    """Exact, with as many decimals as that takes, and two at least."""
    whole, rest = divmod(abs(micro), 10**6)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro < 0 else ''}${whole:,}.{decimals}"


def _print_user(one: "User", as_json: bool, what: str) -> None:
    if as_json:
        print_json(_user_view(one))
    else:
        click.echo(f"{one.email} {what}")


def print_records(records: list[dict[str, Any]], as_json: bool, none: str) -> None:
    """Print rows that have the same names: a table with these as its headings, or JSON. `none`
    is said where there are no rows."""
    if as_json:
        print_json(records)
        return
    if not records:
        click.echo(none)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, value in records[0].items():
        number = isinstance(value, int) and not isinstance(value, bool)
        table.add_column(
            name.removesuffix("_micro").replace("_", " "),
            overflow="fold",
            justify="right" if number else "left",
        )
    for record in records:
        table.add_row(*(_cell(name, value) for name, value in record.items()))
    # A pipe has no width: every row stays on its line there.
    width = None if sys.stdout.isatty() else 1000
    Console(width=width, markup=False, highlight=False, emoji=False).print(table)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_micro"):
        return _dollars(value)
    return "-" if value in (None, "") else str(value)

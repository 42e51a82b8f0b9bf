"""`relay key`: keys, what is set for them, and their rotation.

Decides the arguments and what is printed. The rules are in `relay.accounts`, the data in
`relay.store`.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from relay.cli.database import run_on_database
from relay.cli.output import print_json, print_records, print_stderr, timestamp
from relay.cli.program import Misuse, config_option, json_option, load_settings

if TYPE_CHECKING:
    from relay.accounts.keys import Issued
    from relay.store.database import Database
    from relay.store.keys import Key, KeyRules

_Command = TypeVar("_Command", bound=Callable[..., Any])
# Columns that are left out where every row has the default.
_DEFAULTS: Final[dict[str, Any]] = {
    "cache_breakpoints": True,
    "models": [],
    "addresses": [],
    "limits": [],
    "max_concurrency": 0,
    "old_key_until": None,
}


def _rule_options(command: _Command) -> _Command:
    """The options for what a key may do."""
    for option in (
        click.option(
            "--max-concurrency",
            type=click.IntRange(0),
            default=0,
            help="Requests at once; 0: as many as the plan allows.",
        ),
        click.option(
            "--limit",
            "limits",
            metavar="LIMIT",
            multiple=True,
            help="Such as requests=100/1d, tokens=1_000_000/5h or money=2.50/30d. Repeatable.",
        ),
        click.option(
            "--address",
            "addresses",
            metavar="NETWORK",
            multiple=True,
            help="It may be used from, such as 192.0.2.0/24. Repeatable.",
        ),
        click.option(
            "--model",
            "models",
            metavar="MODEL",
            multiple=True,
            help="It may use, such as claude-sonnet-*. Repeatable.",
        ),
    ):
        command = option(command)
    return command


def _rules(**stated: Any) -> "KeyRules":
    """Raises Misuse: one of the options is wrong."""
    from relay.accounts import InvalidError
    from relay.accounts.key_rules import rules

    try:
        return rules(**stated)
    except InvalidError as error:
        raise Misuse(f"relay: {error}") from None


@click.group()
@config_option
def key() -> None:
    """Keys that callers authenticate with."""


@key.command("create")
@click.option("--user", "email", metavar="EMAIL", required=True, help="Whose key it is.")
@click.option("--name", default="", help="A name to recognise it by.")
@click.option("--expires", metavar="DURATION", help="How long it works, such as 30d.")
@click.option(
    "--no-cache-breakpoints",
    "no_cache_breakpoints",
    is_flag=True,
    help="Add no prompt-cache breakpoints to requests whose caller sets none.",
)
@_rule_options
@config_option
@json_option
def key_create(
    email: str,
    name: str,
    expires: str | None,
    no_cache_breakpoints: bool,
    as_json: bool,
    **stated: Any,
) -> None:
    """Make a key. It is shown now and never again."""
    settings = load_settings()
    from relay.accounts import keys

    rules = _rules(**stated)

    issued = run_on_database(
        settings,
        lambda database: keys.create(
            database,
            settings,
            email,
            keys.KeyOptions(name, expires, not no_cache_breakpoints, rules),
            now=time.time(),
        ),
    )
    if issued.user.suspended_at is not None:
        print_stderr(f"{email} is suspended: the key works after `relay user resume {email}`")
    _print_issued(issued, settings.server.public_url, as_json)


def _print_issued(issued: "Issued", public_url: str, as_json: bool) -> None:
    record, secret = issued.record, issued.key.reveal()
    if as_json:
        view = _key_view(record, time.time())
        print_json({"id": record.id, "key": secret, **view})
        return
    click.echo(secret)
    click.echo(f"\nThis is {record.id}; the key is not shown again. To use it:\n")
    click.echo(f"  export ANTHROPIC_BASE_URL={public_url}")
    click.echo(f"  export ANTHROPIC_AUTH_TOKEN={secret}")


@key.command("list")
@click.option("--user", "email", metavar="EMAIL", help="Only the keys of this account.")
@config_option
@json_option
def key_list(email: str | None, as_json: bool) -> None:
    """Show keys, by their hints."""
    settings = load_settings()
    from relay.accounts import users
    from relay.store.keys import list_keys

    async def read(database: "Database") -> "list[Key]":
        if email is not None:
            await users.find(database, email)  # fails if there is no such account
        return await list_keys(database, email)

    now = time.time()
    found = run_on_database(settings, read)
    rows = [_key_view(one, now) for one in found]
    if not as_json:
        _drop_defaults(rows)
    print_records(rows, as_json, "There are no keys yet.")


@key.command("revoke")
@click.argument("key_id")
@config_option
@json_option
def key_revoke(key_id: str, as_json: bool) -> None:
    """Withdraw a key for good. The beginning of its id is enough."""
    settings = load_settings()
    from relay.accounts import keys

    now = time.time()
    revoked = run_on_database(settings, lambda database: keys.revoke(database, key_id, now))
    if as_json:
        print_json(_key_view(revoked, now))
    else:
        click.echo(f"{revoked.id} ({revoked.hint}) of {revoked.email} is revoked.")


@key.command("delete")
@click.argument("key_id")
@config_option
@json_option
def key_delete(key_id: str, as_json: bool) -> None:
    """Delete a key. Its usage stays."""
    settings = load_settings()
    from relay.accounts import keys

    now = time.time()
    gone = run_on_database(settings, lambda database: keys.delete(database, key_id, now))
    _print_key(gone, as_json, "is deleted.")


@key.command("rename")
@click.argument("key_id")
@click.argument("name")
@config_option
@json_option
def key_rename(key_id: str, name: str, as_json: bool) -> None:
    """Give a key another NAME."""
    settings = load_settings()
    from relay.accounts import keys

    now = time.time()
    renamed = run_on_database(settings, lambda database: keys.rename(database, key_id, name, now))
    _print_key(renamed, as_json, f"is called {name!r}.")


@key.command("disable")
@click.argument("key_id")
@config_option
@json_option
def key_disable(key_id: str, as_json: bool) -> None:
    """Refuse a key until it is enabled."""
    settings = load_settings()
    from relay.accounts import keys

    now = time.time()
    disabled = run_on_database(settings, lambda database: keys.disable(database, key_id, now))
    _print_key(disabled, as_json, "is disabled.")


@key.command("enable")
@click.argument("key_id")
@config_option
@json_option
def key_enable(key_id: str, as_json: bool) -> None:
    """Accept a disabled key again."""
    settings = load_settings()
    from relay.accounts import keys

    now = time.time()
    enabled = run_on_database(settings, lambda database: keys.enable(database, key_id, now))
    _print_key(enabled, as_json, "is enabled.")


@key.command("restrict")
@click.argument("key_id")
@_rule_options
@config_option
@json_option
def key_restrict(key_id: str, as_json: bool, **stated: Any) -> None:
    """Set what a key may do. Replaces all that was set; without an option, the key may do all that
    its plan allows."""
    settings = load_settings()
    from relay.accounts import keys

    rules, now = _rules(**stated), time.time()
    changed = run_on_database(
        settings, lambda database: keys.set_rules(database, key_id, rules, now)
    )
    _print_key(changed, as_json, "has these rules." if rules.any else "has no rules.")


@key.command("rotate")
@click.argument("key_id")
@click.option(
    "--grace",
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="How long the present key goes on working; 0: not at all.",
)
@config_option
@json_option
def key_rotate(key_id: str, grace: str, as_json: bool) -> None:
    """Make a new key in the place of one. Its id, rules and usage stay."""
    settings = load_settings()
    from relay.accounts import keys

    now = time.time()
    issued = run_on_database(
        settings, lambda database: keys.rotate(database, settings, key_id, grace=grace, now=now)
    )
    if not as_json and grace != "0":
        print_stderr(f"The key before works until {timestamp(issued.record.old_until)}.")
    _print_issued(issued, settings.server.public_url, as_json)


def _key_view(one: "Key", now: float) -> dict[str, Any]:
    from relay.accounts.key_rules import limit_text

    return {
        "id": one.id,
        "user": one.email,
        "name": one.name,
        "hint": one.hint,
        "state": one.state(now),
        "created_at": timestamp(one.created_at),
        "expires_at": timestamp(one.expires_at),
        "revoked_at": timestamp(one.revoked_at),
        "cache_breakpoints": one.cache_breakpoints,
        "models": [*(one.rules.models or ())],
        "addresses": [*(one.rules.addresses or ())],
        "limits": [limit_text(limit) for limit in one.rules.limits or ()],
        "max_concurrency": one.rules.max_concurrency,
        "old_key_until": timestamp(one.old_until),
    }


def _drop_defaults(rows: list[dict[str, Any]]) -> None:
    for name, default in _DEFAULTS.items():
        if all(row[name] == default for row in rows):
            for row in rows:
                del row[name]
    for row in rows:
        for name in ("models", "addresses", "limits"):
            if name in row:
                row[name] = ", ".join(row[name])


def _print_key(one: "Key", as_json: bool, change: str) -> None:
    if as_json:
        print_json(_key_view(one, time.time()))
    else:
        click.echo(f"{one.id} ({one.hint}) of {one.email} {change}")

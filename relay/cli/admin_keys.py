"""`relay admin-key`: keys of the provisioning API.

Decides the arguments and what is printed. The rules are in `relay.accounts.admin_keys`.
"""

import time
from typing import TYPE_CHECKING, Any

import click

from relay.cli.database import run_on_database
from relay.cli.output import print_json, print_records, timestamp
from relay.cli.program import config_option, json_option, load_settings

if TYPE_CHECKING:
    from relay.store.admin_keys import AdminKey


@click.group("admin-key")
@config_option
def admin_key() -> None:
    """Keys of the provisioning API, /api/v1."""


@admin_key.command("create")
@click.option("--scope", "scopes", multiple=True, help="Such as people:read. Repeatable.")
@click.option("--name", default="", help="A name to recognise it by.")
@click.option("--expires", metavar="DURATION", help="How long it works, such as 90d.")
@config_option
@json_option
def admin_key_create(
    scopes: tuple[str, ...], name: str, expires: str | None, as_json: bool
) -> None:
    """Make a key. It is shown now and never again."""
    settings = load_settings()
    from relay.accounts import admin_keys

    issued = run_on_database(
        settings,
        lambda database: admin_keys.create(
            database, settings, scopes, name=name, lifetime=expires, now=time.time()
        ),
    )
    if as_json:
        print_json({"key": issued.key.reveal(), **_view(issued.record)})
        return
    click.echo(issued.key.reveal())
    click.echo(f"\nThis is {issued.record.id}; the key is not shown again. To use it:\n")
    url = f"{settings.server.public_url}/api/v1/people"
    click.echo(f"  curl -H 'authorization: Bearer {issued.key.reveal()}' {url}")


@admin_key.command("list")
@config_option
@json_option
def admin_key_list(as_json: bool) -> None:
    """Show all keys, by their hints."""
    settings = load_settings()
    from relay.store.admin_keys import list_admin_keys

    found = run_on_database(settings, list_admin_keys)
    rows = [_view(one) for one in found]
    if not as_json:
        for row in rows:
            row["scopes"] = ", ".join(row["scopes"])
    print_records(rows, as_json, "There are no admin keys.")


@admin_key.command("revoke")
@click.argument("key_id")
@config_option
def admin_key_revoke(key_id: str) -> None:
    """Withdraw a key for good."""
    settings = load_settings()
    from relay.accounts import admin_keys

    run_on_database(settings, lambda database: admin_keys.revoke(database, key_id, time.time()))
    click.echo(f"{key_id} is revoked.")


def _view(one: "AdminKey") -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "hint": one.hint,
        "scopes": [*one.scopes],
        "created_at": timestamp(one.created_at),
        "expires_at": timestamp(one.expires_at),
        "revoked_at": timestamp(one.revoked_at),
    }

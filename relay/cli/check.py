"""`relay check`: errors in relay.toml, warnings, and every setting in force.

Decides what is worth a warning, and tries the PostgreSQL of `[ledger]`; it asks nobody else.
`check_references` is also what `relay serve` checks before it starts.
"""

import asyncio
import importlib.util
import ipaddress
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from relay import config
from relay.cli.output import counted, print_json, print_stderr
from relay.cli.program import (
    Failure,
    Misuse,
    config_option,
    config_path,
    json_option,
    load_settings,
)

if TYPE_CHECKING:
    from relay.cluster.probe import LedgerState

_HTTPS_PORT: Final = 443


@click.command()
@config_option
@json_option
@click.option("--offline", is_flag=True, help="Do not try the PostgreSQL of [ledger].")
def check(as_json: bool, offline: bool) -> None:
    """Check relay.toml and show every setting that is in force.

    Tries the PostgreSQL of [ledger], if there is one, and shows its version.
    """
    settings = load_settings()
    check_references(settings)
    from relay.net import tls

    try:
        tls.check(settings, time.time())
    except config.ConfigError as error:
        raise Misuse(f"{config_path()}: {error}") from None
    state = None
    if settings.ledger.url and not offline:
        state = _try_ledger(settings.ledger.resolved_url())
    used = _vendors_used(settings)
    for warning in (*_warnings(settings), *_vendor_terms(settings, used)):
        print_stderr(warning)
    tree = config.effective(settings)
    if as_json:
        ledger = {} if state is None else {"ledger": state._asdict()}
        print_json({"ok": True, **ledger, "settings": tree})
    else:
        _print_settings(tree, {*used, *_vendors_changed(settings)}, state)


def _try_ledger(url: str) -> "LedgerState":
    """See that relays can share limits there. Raises Failure: they cannot."""
    try:
        from relay.cluster.probe import LedgerFault, examine
    except ImportError as error:
        raise Failure(f"{config_path()}: ledger.url: {config.missing_client()} ({error})") from None
    found = asyncio.run(examine(url))
    if isinstance(found, LedgerFault):
        raise Failure(f"{config_path()}: ledger.url: {found.found}; {found.remedy}")
    return found


def _print_settings(tree: dict[str, Any], vendors: set[str], state: "LedgerState | None") -> None:
    """Print every setting as a line, of `vendors` only those that are named. `state`: of the
    ledger; None: it was not tried."""
    counts = ", ".join(
        f"{len(tree[name])} {name}{'' if len(tree[name]) == 1 else 's'}"
        for name in ("upstream", "model", "plan")
    )
    click.echo(f"ok: {config_path()} ({counts})")
    if state is not None:
        relays = (
            "no relay has shared it yet"
            if state.relays is None
            else f"{counted(state.relays, 'relay')} alive"
        )
        click.echo(f"ok: ledger: PostgreSQL {state.postgresql}, {relays}")
    tree["vendor"] = [
        {**vendor, "rules": len(vendor["rules"])}
        for vendor in tree["vendor"]
        if vendor["name"] in vendors
    ]
    for path, value in _dotted(tree):
        click.echo(f"{path} = {json.dumps(value, ensure_ascii=False)}")


def _dotted(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a tree with its dotted path: `upstream[0].name`."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _dotted(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value):
            yield from _dotted(inner, f"{path}[{number}]")
    else:
        yield path, value


# --- warnings ---


def _warnings(settings: config.Settings) -> Iterator[str]:
    """Settings that are valid but probably not intended."""
    path = config_path()
    for section in ("upstream", "model"):
        if not getattr(settings, section):
            yield f"{path}: there is no [[{section}]], so no request can be served"
    for model in _unserved_models(settings):
        yield f"{path}: no upstream serves {model} under its own name; give it routes"
    if _reachable_from_elsewhere(settings.server.admin_listen):
        yield (
            f"{path}: server.admin_listen: other machines may reach "
            f"{settings.server.admin_listen}; its token crosses the network in plain text, so "
            "keep it on loopback or on a Unix socket"
        )
    yield from _tls_warnings(settings)


def _tls_warnings(settings: config.Settings) -> Iterator[str]:
    """Settings with which certificates may be in vain."""
    server, path = settings.server, config_path()
    host = urlsplit(server.public_url).hostname or ""
    if server.tls and server.public_url.startswith("http://"):
        yield f"{path}: server.public_url begins with http://, but server.tls serves https"
    if server.domains and host not in server.domains:
        yield f"{path}: server.public_url: {host} is not in server.domains: {server.domains[0]} is"
    if server.tls != "auto":
        return
    if not any(address.port == _HTTPS_PORT for address in server.listen):
        yield (
            f'{path}: server.listen has no port 443, where clients look for https; write "[::]:443"'
        )
    if settings.acme.challenge == "http-01" and server.redirect_listen == []:
        yield f"{path}: acme.challenge: http-01 is answered on server.redirect_listen, which is []"


def _vendor_terms(settings: config.Settings, used: dict[str, list[str]]) -> Iterator[str]:
    """The terms of use of the vendors in use, for those that have any."""
    for vendor in settings.vendor:
        if vendor.terms and vendor.name in used:
            yield f"upstream {', '.join(used[vendor.name])}: {vendor.terms}"


def _reachable_from_elsewhere(address: config.Address) -> bool:
    """Whether other machines may reach an address. True for a host name: it may resolve to any."""
    if not address:
        return False
    if address.path is not None or address.host.lower() == "localhost":
        return False
    try:
        return not ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return True


def _vendors_used(settings: config.Settings) -> dict[str, list[str]]:
    """Vendor names, each with the names of its upstreams."""
    used: dict[str, list[str]] = {}
    for upstream in settings.upstream:
        used.setdefault(config.vendor_of(settings, upstream).name, []).append(upstream.name)
    return used


def _vendors_changed(settings: config.Settings) -> list[str]:
    """Names of the vendors that relay.toml adds or changes."""
    from relay.config.vendors import shipped

    return [vendor.name for vendor in settings.vendor if vendor not in shipped()]


def _unserved_models(settings: config.Settings) -> list[str]:
    """Models without routes that no upstream's vendor has. Empty if there is no upstream."""
    vendors = [config.vendor_of(settings, upstream) for upstream in settings.upstream]
    return [
        model.id
        for model in settings.model
        if vendors
        and model.routes is None
        and not any(config.serves(vendor, model.id) for vendor in vendors)
    ]


# --- errors ---


def check_references(settings: config.Settings) -> None:
    """Check that the files and environment variables that relay.toml names can be read.

    Raises:
        Misuse: one cannot; the others that cannot are printed before.
    """
    errors = [f"{config_path()}: {path}: {reason}" for path, reason in _unreadable(settings)]
    for line in errors[:-1]:
        print_stderr(line)
    if errors:
        raise Misuse(errors[-1])


def _ledger(settings: config.Settings) -> Iterator[tuple[str, str]]:
    if not settings.ledger.url:
        return
    try:
        settings.ledger.resolved_url()
    except ValueError as error:
        yield "ledger.url", str(error)
    if importlib.util.find_spec("psycopg") is None:
        yield "ledger.url", config.missing_client()


def _unreadable(settings: config.Settings) -> Iterator[tuple[str, str]]:
    """Settings that refer to something unreadable: dotted path and reason."""
    for number, upstream in enumerate(settings.upstream):
        try:
            upstream.credential()
        except ValueError as error:
            yield f"upstream[{number}].api_key", str(error)
        try:
            upstream.proxy()
        except ValueError as error:
            yield f"upstream[{number}].egress", str(error)
    yield from _ledger(settings)
    try:
        settings.acme.binding_key()
    except ValueError as error:
        yield "acme.eab_key", str(error)
    if settings.backup.s3 is not None:
        try:
            settings.backup.s3.credentials()
        except ValueError as error:
            name, _, reason = str(error).partition(": ")
            yield f"backup.s3.{name}", reason
    for number, one in enumerate(settings.alert):
        for name in ("url", "secret", "password"):
            try:
                one.resolved(name)
            except ValueError as error:
                yield f"alert[{number}].{name}", str(error)
    for number, provider in enumerate(settings.web.oidc):
        try:
            provider.secret()
        except ValueError as error:
            yield f"web.oidc[{number}].client_secret", str(error)
    for name in ("stripe_key", "webhook_secret") if settings.payments.enabled else ():
        try:
            settings.payments.resolved(name)
        except ValueError as error:
            yield f"payments.{name}", str(error)
    try:
        settings.traces.fields()
    except ValueError as error:
        name, _, reason = str(error).partition(": ")
        yield f"traces.headers.{name}", reason
    files = [(f"upstream[{number}].ca", one.ca) for number, one in enumerate(settings.upstream)]
    files.append(("acme.ca", settings.acme.ca))
    files += [(f"web.oidc[{number}].ca", one.ca) for number, one in enumerate(settings.web.oidc)]
    pairs = config.certificate_files(settings.server.tls)
    for number, pair in enumerate(pairs):
        path = f"server.tls[{number}]" if len(pairs) > 1 else "server.tls"
        files += [(f"{path}.cert", pair.cert), (f"{path}.key", pair.key)]
    for path, file in files:
        try:
            if file is not None:
                Path(file).open("rb").close()
        except OSError as error:
            yield path, f"cannot read {file}: {error.strerror}"

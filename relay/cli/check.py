"""`relay check`: what relay.toml says, and what it names that cannot be had."""

import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from relay import config
from relay.cli.output import print_json, tell
from relay.cli.program import Misuse, config_path, load_settings, with_config, with_json


@click.command()
@with_config
@with_json
def check(as_json: bool) -> None:
    """Check relay.toml and show every setting that is in force."""
    settings = load_settings()
    check_references(settings)
    from relay.net import tls as certificates

    try:
        certificates.check(settings)
    except config.ConfigError as error:
        raise Misuse(f"{config_path()}: {error}") from None
    for what in ("upstream", "model"):
        if not getattr(settings, what):
            tell(f"{config_path()}: there is no [[{what}]], so no request can be served")
    for name in _unserved(settings):
        tell(f"{config_path()}: no upstream serves {name} under its own name; give it routes")
    if _is_open(settings.server.admin_listen):
        tell(
            f"{config_path()}: server.admin_listen: {settings.server.admin_listen} is not for "
            "this machine alone, and whoever reaches it may pause upstreams: no key is asked for"
        )
    used = _vendors_used(settings)
    for vendor in settings.vendor:
        if vendor.terms and vendor.name in used:
            tell(f"upstream {', '.join(used[vendor.name])}: {vendor.terms}")
    tree = config.effective(settings)
    if as_json:
        print_json({"ok": True, "settings": tree})
        return
    counts = ", ".join(
        f"{len(tree[name])} {name}{'' if len(tree[name]) == 1 else 's'}"
        for name in ("upstream", "model", "plan")
    )
    click.echo(f"ok: {config_path()} ({counts})")
    if config.LATER:
        click.echo("Read and checked, but not in force in this version: " + ", ".join(config.LATER))
    of_interest = {*used, *_vendors_changed(settings)}
    tree["vendor"] = [
        {**vendor, "rules": len(vendor["rules"])}
        for vendor in tree["vendor"]
        if vendor["name"] in of_interest
    ]
    for path, value in _dotted(tree):
        click.echo(f"{path} = {json.dumps(value, ensure_ascii=False)}")


def _is_open(admin_listen: str) -> bool:
    """Whether an address may be reached from elsewhere; of a name nobody knows."""
    if not admin_listen:
        return False
    where = config.address(admin_listen)
    if where.path is not None or where.host.lower() == "localhost":
        return False
    try:
        return not ipaddress.ip_address(where.host).is_loopback
    except ValueError:
        return True


def _vendors_used(settings: config.Settings) -> dict[str, list[str]]:
    """Names of vendors, each with those of its upstreams."""
    used: dict[str, list[str]] = {}
    for upstream in settings.upstream:
        used.setdefault(config.vendor_of(settings, upstream).name, []).append(upstream.name)
    return used


def _vendors_changed(settings: config.Settings) -> list[str]:
    """Names of the vendors that relay.toml has, or has otherwise than they are shipped."""
    from relay.config.vendors import shipped

    return [vendor.name for vendor in settings.vendor if vendor not in shipped()]


def _unserved(settings: config.Settings) -> list[str]:
    """Models without routes that the vendors of all upstreams do not have."""
    vendors = [config.vendor_of(settings, upstream) for upstream in settings.upstream]
    return [
        model.id
        for model in settings.model
        if vendors
        and model.routes is None
        and not any(config.serves(vendor, model.id) for vendor in vendors)
    ]


def check_references(settings: config.Settings) -> None:
    wrong = [f"{config_path()}: {path}: {reason}" for path, reason in _unreadable(settings)]
    for line in wrong[:-1]:
        tell(line)
    if wrong:
        raise Misuse(wrong[-1])


def _unreadable(settings: config.Settings) -> Iterator[tuple[str, str]]:
    """What relay.toml names outside itself and cannot be had."""
    for number, upstream in enumerate(settings.upstream):
        try:
            upstream.credential()
        except ValueError as error:
            yield f"upstream[{number}].api_key", str(error)
        try:
            proxy = upstream.proxy()
            if proxy is not None:
                from relay.net.upstream import proxy as egress

                egress.parse(proxy)
        except ValueError as error:
            yield f"upstream[{number}].egress", str(error)
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

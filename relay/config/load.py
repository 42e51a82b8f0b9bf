"""relay.toml → `Settings`: reading the file, cross-field checks, showing the settings.

Refuses an unknown or mistyped setting with its dotted path and the values that are accepted. Opens
no file but relay.toml and the shipped vendors.
"""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from relay.config import vendors
from relay.config.alerts import AlertSettings
from relay.config.anchored import anchored
from relay.config.errors import ConfigError, explain
from relay.config.names import check_names
from relay.config.schema import Settings
from relay.config.tls_schema import LETS_ENCRYPT
from relay.config.values import SECRET_NAME, decode, encode, password_span

# Of a database's URL: up to the password, and the password.
_PASSWORD: Final = re.compile(r"(//[^/?#@:]*:)([^/?#]*)@")


def load(path: str | Path) -> Settings:
    """Read and check a relay.toml; relative paths in it are relative to its folder.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has a setting that cannot be used.
    """
    return load_text(read_text(path), path)


def read_text(path: str | Path) -> str:
    """The text of a relay.toml. Raises ConfigError: the file cannot be read."""
    try:
        return Path(path).read_bytes().decode()
    except OSError as error:
        raise ConfigError("", f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError("", f"{path} is not UTF-8") from None


def load_text(text: str, path: str | Path) -> Settings:
    """As `load`, of a text that is to be the file at `path`."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("", f"{path} is no valid TOML: {error}") from None
    return anchored(parse(tree), Path(path).resolve().parent)


def parse(tree: dict[str, Any]) -> Settings:
    """Check a parsed TOML document, and add the shipped vendors.

    Raises:
        ConfigError: see `load`.
    """
    try:
        settings = msgspec.convert(tree, Settings, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise explain(str(error), tree) from None
    _unique("vendor", "name", [vendor.name for vendor in settings.vendor])
    given = [set(table) for table in tree.get("vendor", ())]
    settings = msgspec.structs.replace(
        settings,
        vendor=vendors.merged(settings.vendor, given),
        alert=[_with_mail(settings, number) for number in range(len(settings.alert))],
    )
    _cross_check(settings)
    return settings


def _with_mail(settings: Settings, number: int) -> AlertSettings:
    """A receiver of alerts; one that is reached by mail has a mail server, if need be [mail]'s."""
    alert, mail = settings.alert[number], settings.mail
    if alert.kind != "mail" or alert.smtp:
        return alert
    if not mail.smtp:
        raise ConfigError(
            f"alert[{number}].smtp", 'must be host:port, or [mail] must have a server: smtp = "…"'
        )
    given = {name: getattr(mail, name) for name in mail.__struct_fields__}
    return msgspec.structs.replace(alert, **given)


def _cross_check(settings: Settings) -> None:
    """Check settings against each other."""
    server = settings.server
    admin = settings.admin_address
    if admin in server.listen and not admin.endswith(":0"):
        raise ConfigError("server.admin_listen", "is in server.listen, too; it is the operator's")
    for address in server.redirect_listen or ():
        if address in (*server.listen, admin) and not address.endswith(":0"):
            raise ConfigError("server.redirect_listen", f"{address} is listened on already")
    if server.tls == "auto" and settings.acme.directory == LETS_ENCRYPT:
        for domain in server.domains:
            if "." not in domain:
                raise ConfigError(
                    "server.domains", f"{domain!r} is no public name, which Let's Encrypt needs"
                )
    upstreams = _unique("upstream", "name", [u.name for u in settings.upstream])
    _unique("alert", "name", [one.name for one in settings.alert])
    for name in settings.alerting.plan:
        if name not in upstreams:
            raise ConfigError("alerting.plan", f"no upstream is named {name!r}")
    _unique("plan", "id", [plan.id for plan in settings.plan])
    check_names(settings.model)
    _unique("web.oidc", "name", [one.name for one in settings.web.oidc])
    _unique("web.oidc", "issuer", [one.issuer_url for one in settings.web.oidc])
    plan = settings.web.sign_up_plan
    if plan and plan not in [one.id for one in settings.plan]:
        raise ConfigError("web.sign_up_plan", f"no plan has the id {plan!r}")
    _check_offers(settings)
    known = [vendor.name for vendor in settings.vendor]
    for number, upstream in enumerate(settings.upstream):
        if upstream.vendor and upstream.vendor not in known:
            raise ConfigError(
                f"upstream[{number}].vendor",
                f"no vendor is named {upstream.vendor!r}; there are: " + ", ".join(sorted(known)),
            )
    for number, model in enumerate(settings.model):
        for index, route in enumerate(model.routes or ()):
            if route.upstream not in upstreams:
                raise ConfigError(
                    f"model[{number}].routes[{index}].upstream",
                    f"no upstream is named {route.upstream!r}; there are: "
                    + (", ".join(sorted(upstreams)) or "none"),
                )
        _check_served(settings, number)
        if model.price is None:
            _check_unpriced(settings, number)
            priced = [plan.id for plan in settings.plan if plan.billing == "per-token"]
            if priced:
                raise ConfigError(
                    f"model[{number}].price",
                    f"plan {priced[0]!r} bills per token, so {model.id} needs a price",
                )


def _check_offers(settings: Settings) -> None:
    """Check that what is for sale can be bought here."""
    payments, plans = settings.payments, [plan.id for plan in settings.plan]
    _unique("payments.offer", "id", [offer.id for offer in payments.offer])
    if payments.enabled and not settings.web.enabled:
        raise ConfigError("payments.stripe_key", "needs the pages: set web.enabled = true")
    for number, offer in enumerate(payments.offer):
        for name in ("plan", "then"):
            plan = getattr(offer, name)
            if plan and plan not in plans:
                raise ConfigError(
                    f"payments.offer[{number}].{name}", f"no plan has the id {plan!r}"
                )


def _check_unpriced(settings: Settings, number: int) -> None:
    """Check that no upstream with a cap on its cost serves a model that has no price."""
    model = settings.model[number]
    routes = None if model.routes is None else {route.upstream for route in model.routes}
    for upstream in settings.upstream:
        if upstream.cost_cap is None:
            continue
        if routes is None:
            serves = vendors.serves(vendors.vendor_of(settings, upstream), model.id)
        else:
            serves = upstream.name in routes
        if serves:
            raise ConfigError(
                f"model[{number}].price",
                f"upstream {upstream.name!r} has a cost_cap, so {model.id} needs a price",
            )


def _check_served(settings: Settings, number: int) -> None:
    """Check that vendors serve the names that a model's routes send to them.

    A model without routes goes to the upstreams that serve its id: nothing to check.
    """
    model = settings.model[number]
    vendor_at = {one.name: vendors.vendor_of(settings, one) for one in settings.upstream}
    for index, route in enumerate(model.routes or ()):
        vendor = vendor_at[route.upstream]
        name = route.model or model.id
        if not vendors.serves(vendor, name):
            raise ConfigError(
                f"model[{number}].routes[{index}].model",
                f"vendor {vendor.name!r} serves {', '.join(vendor.models)}, not {name!r}; "
                "write the name that it has there",
            )


def _unique(section: str, key: str, names: list[str]) -> set[str]:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ConfigError(section, f"{key} {name!r} is given twice")
    return set(names)


def effective(settings: Settings, show: Callable[[str], str] = lambda _: "•••") -> dict[str, Any]:
    """All settings as plain values, literal secrets masked by `show`."""
    tree: dict[str, Any] = msgspec.to_builtins(settings, enc_hook=encode)
    responses = tree["responses"]
    if responses["key"] and not responses["key"].startswith(("env:", "file:")):
        responses["key"] = show(responses["key"])
    ledger = tree["ledger"]
    if ledger["url"] and not ledger["url"].startswith(("env:", "file:")):
        ledger["url"] = _PASSWORD.sub(lambda found: found[1] + show(found[2]) + "@", ledger["url"])
    acme = tree["acme"]
    if acme["eab_key"] and not acme["eab_key"].startswith(("env:", "file:")):
        acme["eab_key"] = show(acme["eab_key"])
    storage = tree["backup"]["s3"]
    for name in ("access_key", "secret_key") if storage else ():
        if not storage[name].startswith(("env:", "file:")):
            storage[name] = show(storage[name])
    for alert in tree["alert"]:
        for name in ("url", "secret", "password"):
            if alert[name] and not alert[name].startswith(("env:", "file:")):
                alert[name] = show(alert[name])
    mail = tree["mail"]
    if mail["password"] and not mail["password"].startswith(("env:", "file:")):
        mail["password"] = show(mail["password"])
    for one in tree["web"]["oidc"]:
        if not one["client_secret"].startswith(("env:", "file:")):
            one["client_secret"] = show(one["client_secret"])
    payments = tree["payments"]
    for name in ("stripe_key", "webhook_secret"):
        if payments[name] and not payments[name].startswith(("env:", "file:")):
            payments[name] = show(payments[name])
    fields = tree["traces"]["headers"]
    for name, value in fields.items():
        if not value.startswith(("env:", "file:")):
            fields[name] = show(value)
    tree["upstream"] = [masked_upstream(upstream, show) for upstream in tree["upstream"]]
    return tree


def masked_upstream(
    table: dict[str, Any], show: Callable[[str], str] = lambda _: "•••"
) -> dict[str, Any]:
    """One upstream's table, as relay.toml has it, with literal secrets masked by `show`."""
    masked = dict(table)
    key = masked.get("api_key")
    if isinstance(key, str) and not key.startswith(("env:", "file:")):
        masked["api_key"] = show(key)
    if isinstance(masked.get("egress"), str):
        masked["egress"] = _without_password(masked["egress"], show)
    if isinstance(masked.get("headers"), dict):
        masked["headers"] = {
            name: show(value) if SECRET_NAME.search(name) else value
            for name, value in masked["headers"].items()
        }
    return masked


def _without_password(egress: str | None, show: Callable[[str], str]) -> str | None:
    span = password_span(egress or "")
    if egress is None or span is None:
        return egress  # none, without a password, or the name of a variable or file
    start, end = span
    return egress[:start] + show(egress[start:end]) + egress[end:]

"""`relay alerts test`: a test message to the receivers of alerts."""

import time

import click

from relay.cli.output import print_json
from relay.cli.program import Failure, Misuse, config_option, json_option, load_settings


@click.group()
@config_option
def alerts() -> None:
    """Messages to the operator, and their receivers."""


@alerts.command("test")
@click.argument("name", required=False)
@config_option
@json_option
def alerts_test(name: str | None, as_json: bool) -> None:
    """Send a test message to every receiver, or to NAME, and show the results."""
    settings = load_settings()
    from relay.alerts.delivery import DeliveryError, send
    from relay.alerts.rules import Alert

    if not settings.alert:
        raise Misuse("relay: relay.toml has no [[alert]], so nobody is alerted")
    chosen = [one for one in settings.alert if name in (None, one.name)]
    if not chosen:
        names = ", ".join(one.name for one in settings.alert)
        raise Misuse(f"relay: no [[alert]] is named {name!r}; there are: {names}")
    now = time.time()
    alert = Alert("upstream", "test", "test", "", now, now)
    results: dict[str, str] = {}
    for one in chosen:
        try:
            send(one, alert, settings.server.public_url)
            results[one.name] = ""
        except DeliveryError as error:
            results[one.name] = str(error)
    if as_json:
        print_json([{"name": key, "sent": not why, "why": why} for key, why in results.items()])
    else:
        for key, why in results.items():
            click.echo(f"{key}: {why or 'sent'}")
    failed = [key for key, why in results.items() if why]
    if failed:
        raise Failure(f"relay: no message reached {', '.join(failed)}")

"""`relay metrics`: the running relay's metrics, or a dashboard for them.

Must not know how metrics are made.
"""

from importlib import resources

import click

from relay.cli.admin_client import call
from relay.cli.program import config_option, load_settings


@click.command()
@config_option
@click.option("--grafana", is_flag=True, help="Print a Grafana dashboard to import.")
def metrics(grafana: bool) -> None:
    """Metrics of the running relay, as Prometheus reads them."""
    if grafana:
        dashboard = resources.files("relay.telemetry").joinpath("grafana.json")
        click.echo(dashboard.read_text(), nl=False)
        return
    click.echo(call(load_settings(), "GET", "/metrics"), nl=False)

"""The commands that run a server: `relay serve`, `relay demo` and `relay simulate`.

Decides how their errors are shown. The server's modules are imported last, after the
settings have been checked.
"""

from collections.abc import Callable
from typing import Literal

import click

from relay import config
from relay.cli.check import check_references
from relay.cli.program import Failure, Misuse, config_option, config_path, load_settings


@click.command()
@config_option
@click.option(
    "--log",
    "log_format",
    type=click.Choice(["json", "text"]),
    help="Form of the access log, in place of log.format.",
)
@click.option(
    "--takeover",
    is_flag=True,
    help="Take the place of the running relay, which finishes its requests and ends.",
)
def serve(log_format: Literal["json", "text"] | None, takeover: bool) -> int:
    """Serve with the settings in relay.toml until SIGTERM."""
    settings = load_settings()
    check_references(settings)
    from relay import process

    path = config_path()
    return _until_stopped(
        lambda: process.serve(settings, path, takeover=takeover, log_format=log_format)
    )


@click.command()
@config_option
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the relay.")
def demo(port: int | None) -> int:
    """Try it: a simulated upstream, the relay, and one key."""
    settings = load_settings()
    from relay.demo import run_demo

    return _until_stopped(lambda: run_demo(settings, port))


@click.command()
@config_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), required=True, help="Port to listen on.")
def simulate(host: str, port: int) -> int:
    """Run the simulated upstream alone."""
    from relay.demo import run_simulator

    return _until_stopped(lambda: run_simulator(host, port))


def _until_stopped(run: Callable[[], int]) -> int:
    """Run a server; returns its exit status.

    Raises:
        Misuse: relay.toml names something that cannot be used.
        Failure: the database cannot be used, or an address cannot be bound.
    """
    from relay.store.database import StoreError

    try:
        return run()
    except config.ConfigError as error:
        raise Misuse(f"{config_path()}: {error}") from None
    except (StoreError, OSError) as error:
        raise Failure(f"relay: {error}") from None

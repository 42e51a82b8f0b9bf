"""`relay reload`: lets the running relay read relay.toml again.

Decides how the changes are shown. Status 1 if the file is refused: the relay goes on as before.
"""

from typing import Final

import click

from relay import config
from relay.cli.admin_client import call
from relay.cli.output import print_json
from relay.cli.program import Failure, config_option, config_path, json_option

_TIMEOUT_SECONDS: Final = 30.0  # it reads every file that relay.toml names


@click.command()
@config_option
@json_option
def reload(as_json: bool) -> None:
    """Let the running relay use relay.toml as it is now."""
    path = config_path()
    try:
        settings = config.load(path)
    except config.ConfigError as error:
        where = f"{path}: " if error.path else "relay: "
        raise Failure(f"{where}{error}; a running relay keeps its settings") from None
    call(settings)  # fails with a clear message if another relay listens there
    report = call(settings, "POST", "/reload", _TIMEOUT_SECONDS)
    if as_json:
        print_json(report)
        return
    for line in report["changed"]:
        click.echo(line)
    for line in report["restart"]:
        click.echo(f"{line} (after a restart)")
    if not report["changed"] and not report["restart"]:
        click.echo("Nothing has changed.")

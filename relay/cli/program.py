"""The command line: what can be typed, what is printed, and how an error is told.

Every error is one line on standard error: status 2 when the command or relay.toml is
wrong, 1 for the rest. A command's module is imported when it is asked for, so that `serve`
is ready soon.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from relay import config
from relay.cli.output import tell

_DEFAULT_CONFIG = "relay.toml"
_COMMANDS: Final = {
    "serve": "relay.cli.serve:serve",
    "demo": "relay.cli.serve:demo",
    "simulate": "relay.cli.serve:simulate",
    "check": "relay.cli.check:check",
    "user": "relay.cli.accounts:user",
    "key": "relay.cli.accounts:key",
    "usage": "relay.cli.usage:usage",
    "upstreams": "relay.cli.upstreams:upstreams",
    "backup": "relay.cli.database:backup",
}  # name → module:attribute


class Failure(click.ClickException):
    """An error that is told in its own words."""


class Misuse(Failure):
    """The command or relay.toml is at fault."""

    exit_code = 2


def _open_standard_streams() -> None:
    """A service may be started without them; the loop would take their numbers for sockets."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


class _Program(click.Group):
    """The whole command: tells every error in one line, and never shows a traceback."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        _open_standard_streams()
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a terminal that lacks … still gets the rest
                stream.reconfigure(errors="replace")
        extra["standalone_mode"] = False
        try:
            status = super().main(args, *rest, **extra)
        except NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "relay"
            tell(f"relay: {error.format_message()} See `{command} --help`.")
            sys.exit(2)
        except click.ClickException as error:
            tell(error.format_message())
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(130)
        except Exception as error:  # what nobody thought of is told too
            tell(f"relay: internal error: {type(error).__name__}: {error} ({_origin(error)})")
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)


def _origin(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "nowhere"
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def _remember_config(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(dict)["config"] = value  # the innermost comes last, and wins


with_config = click.option(
    "--config",
    metavar="PATH",
    expose_value=False,
    callback=_remember_config,
    help=f"The settings file.  [default: ./{_DEFAULT_CONFIG}]",
)

with_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def config_path() -> str:
    return str(click.get_current_context().ensure_object(dict).get("config", _DEFAULT_CONFIG))


def load_settings() -> config.Settings:
    path = config_path()
    try:
        return config.load(path)
    except config.ConfigError as error:
        if error.path:
            raise Misuse(f"{path}: {error}") from None
        hint = "" if Path(path).exists() else "; --config PATH names another file"
        raise Misuse(f"relay: {error.reason}{hint}") from None


@click.group(cls=_Program, name="relay", context_settings={"help_option_names": ["-h", "--help"]})
@with_config
@click.version_option(package_name="relay", prog_name="relay")
def main() -> None:
    """Relay: one endpoint in front of many large-language-model upstreams."""

"""The command `relay`: its commands by name, the options they share, and its errors.

Decides how an error is shown: one line on standard error, status 2 when the command or
relay.toml is wrong, else 1. A command's module is imported only when the command is used, so
that `serve` starts fast. Must not know what a command does.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from relay import __version__, config
from relay.cli.output import print_stderr
from relay.forbidden_addresses import guard_connections

_DEFAULT_CONFIG: Final = "relay.toml"
_CONFIG_VARIABLE: Final = "RELAY_CONFIG"
_COMMANDS: Final = {  # name → module:attribute
    "admin-key": "relay.cli.admin_keys:admin_key",
    "alerts": "relay.cli.alerts:alerts",
    "announce": "relay.cli.announce:announce",
    "audit": "relay.cli.audit:audit",
    "backup": "relay.cli.database:backup",
    "check": "relay.cli.check:check",
    "code": "relay.cli.codes:code",
    "database": "relay.cli.database:database",
    "demo": "relay.cli.serve:demo",
    "doctor": "relay.cli.doctor.command:doctor",
    "explain": "relay.cli.explain:explain",
    "import": "relay.cli.imports:import_accounts",
    "key": "relay.cli.keys:key",
    "ledger": "relay.cli.ledger:ledger",
    "metrics": "relay.cli.metrics:metrics",
    "move": "relay.cli.move:move",
    "reload": "relay.cli.reload:reload",
    "restore": "relay.cli.restore:restore",
    "rollback": "relay.cli.upgrade:rollback",
    "schema": "relay.cli.upgrade:schema",
    "serve": "relay.cli.serve:serve",
    "service": "relay.cli.service_units:service",
    "simulate": "relay.cli.serve:simulate",
    "top": "relay.cli.top:top",
    "upgrade": "relay.cli.upgrade:upgrade",
    "upstreams": "relay.cli.upstreams:upstreams",
    "usage": "relay.cli.usage:usage",
    "user": "relay.cli.accounts:user",
}


class Failure(click.ClickException):
    """A command failed; the message is shown as it is."""


class Misuse(Failure):
    """The command or relay.toml is wrong."""

    exit_code = 2


class _Program(click.Group):
    """The command `relay`: imports its commands by name and shows every error as one line."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run a command and exit with its status; never shows a traceback."""
        _open_standard_streams()
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # an ASCII terminal gets "?" in place of "…"
                stream.reconfigure(errors="replace")
        extra["standalone_mode"] = False
        guard_connections()
        try:
            status = super().main(args, *rest, **extra)
        except NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "relay"
            print_stderr(f"relay: {error.format_message()} See `{command} --help`.")
            sys.exit(2)
        except click.ClickException as error:
            print_stderr(error.format_message())
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(130)
        except Exception as error:
            cause = f"{type(error).__name__}: {error} ({_raised_at(error)})"
            print_stderr(f"relay: internal error: {cause}")
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None: there is none of this name."""
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, for the help text. `schema` is for other versions."""
        return [name for name in _COMMANDS if name != "schema"]


def _open_standard_streams() -> None:
    """Open descriptors 0 to 2 if the service manager left them closed.

    A socket would get their numbers otherwise, and the access log would be written to it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _raised_at(error: Exception) -> str:
    """File and line that raised an error, for a bug report."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "nowhere"
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def _remember_config(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(dict)["config"] = value  # the innermost command is parsed last and wins


config_option = click.option(
    "--config",
    metavar="PATH",
    expose_value=False,
    callback=_remember_config,
    help=f"The settings file.  [default: ${_CONFIG_VARIABLE}, else ./{_DEFAULT_CONFIG}]",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def config_path() -> str:
    """The settings file of this command: `--config`, else $RELAY_CONFIG, else ./relay.toml."""
    default = os.environ.get(_CONFIG_VARIABLE) or _DEFAULT_CONFIG
    return str(click.get_current_context().ensure_object(dict).get("config", default))


def load_settings() -> config.Settings:
    """Read the settings file.

    Raises:
        Misuse: it cannot be read, or a setting is wrong.
    """
    path = config_path()
    try:
        return config.load(path)
    except config.ConfigError as error:
        if error.path:
            raise Misuse(f"{path}: {error}") from None
        hint = "" if Path(path).exists() else "; --config PATH names another file"
        raise Misuse(f"relay: {error.reason}{hint}") from None


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from relay.compiled import is_compiled

        form = "compiled" if is_compiled() else "not compiled"
        click.echo(f"relay, version {__version__} ({form})")
        context.exit()


@click.group(cls=_Program, name="relay", context_settings={"help_option_names": ["-h", "--help"]})
@config_option
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
    help="Show the version, and whether it is compiled.",
)  # fmt: skip
def main() -> None:
    """Relay: one endpoint in front of many large-language-model upstreams."""
